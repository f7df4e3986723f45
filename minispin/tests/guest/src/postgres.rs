//! PostgreSQL calls: `{"address", "sql", "params": [{"kind": value}, "db-null"]}`.

use serde::Deserialize;
use serde_json::{Value, json};
use spin_sdk::pg::wit::postgres::{
    Connection, ConnectionBuilder, DbValue, Error, ParameterValue, QueryError,
};

use crate::Outcome;

#[derive(Deserialize)]
struct Call {
    address: String,
    #[serde(default)]
    sql: String,
    #[serde(default)]
    params: Vec<Parameter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Parameter {
    Boolean(bool),
    Int32(i32),
    Int64(i64),
    Str(String),
    Binary(Vec<u8>),
    Date((i32, u8, u8)),
    Datetime((i32, u8, u8, u8, u8, u8, u32)),
    Timestamp(i64),
    Uuid(String),
    Jsonb(Value),
    Decimal(String),
    ArrayStr(Vec<Option<String>>),
    ArrayInt64(Vec<Option<i64>>),
    DbNull,
}

impl From<Parameter> for ParameterValue {
    fn from(parameter: Parameter) -> Self {
        match parameter {
            Parameter::Boolean(value) => Self::Boolean(value),
            Parameter::Int32(value) => Self::Int32(value),
            Parameter::Int64(value) => Self::Int64(value),
            Parameter::Str(value) => Self::Str(value),
            Parameter::Binary(value) => Self::Binary(value),
            Parameter::Date(value) => Self::Date(value),
            Parameter::Datetime(value) => Self::Datetime(value),
            Parameter::Timestamp(value) => Self::Timestamp(value),
            Parameter::Uuid(value) => Self::Uuid(value),
            Parameter::Jsonb(value) => Self::Jsonb(value.to_string().into_bytes()),
            Parameter::Decimal(value) => Self::Decimal(value),
            Parameter::ArrayStr(value) => Self::ArrayStr(value),
            Parameter::ArrayInt64(value) => Self::ArrayInt64(value),
            Parameter::DbNull => Self::DbNull,
        }
    }
}

pub(crate) async fn call(call: &str, body: &[u8]) -> Outcome {
    let Call { address, sql, params } =
        serde_json::from_slice(body).map_err(|error| json!(error.to_string()))?;
    let params: Vec<ParameterValue> = params.into_iter().map(Into::into).collect();
    let connection = match call {
        "query-sync" | "execute-sync" => Connection::open(&address),
        "build" => ConnectionBuilder::new(&address).build_async().await,
        "ca-root" => {
            let builder = ConnectionBuilder::new(&address);
            builder.set_ca_root("-----BEGIN CERTIFICATE-----").map_err(|error| refusal(&error))?;
            builder.build()
        }
        _ => Connection::open_async(address).await,
    };
    let connection = connection.map_err(|error| refusal(&error))?;
    match call {
        "query-sync" => {
            let set = connection.query(&sql, &params).map_err(|error| refusal(&error))?;
            Ok(json!({ "columns": columns(&set.columns), "rows": rows(&set.rows) }))
        }
        "execute-sync" => connection.execute(&sql, &params).map(Value::from).map_err(|error| refusal(&error)),
        "execute" => {
            connection.execute_async(sql, params).await.map(Value::from).map_err(|error| refusal(&error))
        }
        _ => query(&connection, call, sql, params).await,
    }
}

/// Tells apart what failed: the query itself (`error`), or what came after it had started (`end`).
async fn query(connection: &Connection, call: &str, sql: String, params: Vec<ParameterValue>) -> Outcome {
    let (column_list, mut stream, end) =
        connection.query_async(sql, params).await.map_err(|error| refusal(&error))?;
    let mut read = Vec::new();
    if call != "query-end-only" {
        while let Some(row) = stream.next().await {
            read.push(row);
        }
    }
    let end = match end.await {
        Ok(()) => json!("ok"),
        Err(error) => refusal(&error),
    };
    drop(stream);
    Ok(json!({ "columns": columns(&column_list), "rows": rows(&read), "end": end }))
}

fn columns(columns: &[spin_sdk::pg::Column]) -> Value {
    columns.iter().map(|column| json!([column.name, format!("{:?}", column.data_type)])).collect()
}

fn rows(rows: &[Vec<DbValue>]) -> Value {
    rows.iter().map(|row| row.iter().map(value).collect::<Value>()).collect()
}

/// Kind and value, under the name that the WIT gives the kind.
fn value(value: &DbValue) -> Value {
    match value {
        DbValue::Boolean(value) => json!({ "boolean": value }),
        DbValue::Int16(value) => json!({ "int16": value }),
        DbValue::Int32(value) => json!({ "int32": value }),
        DbValue::Int64(value) => json!({ "int64": value }),
        DbValue::Floating32(value) => json!({ "floating32": value }),
        DbValue::Floating64(value) => json!({ "floating64": value }),
        DbValue::Str(value) => json!({ "str": value }),
        DbValue::Binary(value) => json!({ "binary": value }),
        DbValue::Date(value) => json!({ "date": value }),
        DbValue::Time(value) => json!({ "time": value }),
        DbValue::Datetime(value) => json!({ "datetime": value }),
        DbValue::Uuid(value) => json!({ "uuid": value }),
        DbValue::Jsonb(value) => json!({ "jsonb": String::from_utf8_lossy(value) }),
        DbValue::ArrayInt32(value) => json!({ "array-int32": value }),
        DbValue::ArrayInt64(value) => json!({ "array-int64": value }),
        DbValue::ArrayStr(value) => json!({ "array-str": value }),
        DbValue::DbNull => json!("db-null"),
        DbValue::Unsupported(value) => json!({ "unsupported": value }),
        other => json!({ "other": format!("{other:?}") }),
    }
}

fn refusal(error: &Error) -> Value {
    match error {
        Error::ConnectionFailed(text) => json!({ "connection-failed": text }),
        Error::BadParameter(text) => json!({ "bad-parameter": text }),
        Error::QueryFailed(QueryError::Text(text)) => json!({ "query-failed": text }),
        Error::QueryFailed(QueryError::DbError(error)) => json!({ "db-error": {
            "severity": error.severity,
            "code": error.code,
            "message": error.message,
            "detail": error.detail,
            "extras": error.extras,
        }}),
        Error::ValueConversionFailed(text) => json!({ "value-conversion-failed": text }),
        Error::Other(text) => json!({ "other": text }),
    }
}
