//! Redis calls: `{"address", "args": [text or number, …]}`, the call's name being in the path.

use serde::Deserialize;
use serde_json::{Value, json};
use spin_sdk::redis::{Connection, Error, RedisParameter, RedisResult};

use crate::Outcome;

#[derive(Deserialize)]
struct Call {
    address: String,
    #[serde(default)]
    args: Vec<Argument>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Argument {
    Number(i64),
    Text(String),
}

impl From<Argument> for RedisParameter {
    fn from(argument: Argument) -> Self {
        match argument {
            Argument::Number(number) => Self::Int64(number),
            Argument::Text(text) => Self::Binary(text.into_bytes()),
        }
    }
}

impl From<Argument> for String {
    fn from(argument: Argument) -> Self {
        match argument {
            Argument::Number(number) => number.to_string(),
            Argument::Text(text) => text,
        }
    }
}

pub(crate) async fn call(call: &str, body: &[u8]) -> Outcome {
    let Call { address, args } = serde_json::from_slice(body).map_err(|error| json!(error.to_string()))?;
    if call == "open-many" {
        return Ok(open_many(&address).await);
    }
    let connection = Connection::open(&address).await.map_err(|error| refusal(&error))?;
    let result = match call {
        "execute" => execute(&connection, args).await,
        "until-gone" => {
            let list = args.into_iter().next().map(String::from).unwrap_or_default();
            Ok(until_gone(&address, &connection, list).await)
        }
        _ => shorthand(&connection, call, args.into_iter().map(Into::into).collect()).await,
    };
    result.map_err(|error| refusal(&error))
}

async fn execute(connection: &Connection, args: Vec<Argument>) -> Result<Value, Error> {
    let mut args = args.into_iter();
    let command = args.next().map(String::from).unwrap_or_default();
    let args: Vec<RedisParameter> = args.map(Into::into).collect();
    let results = connection.execute(command, args).await?;
    Ok(results.iter().map(value).collect())
}

/// Waits for a list that stays empty, until the server goes; then tries the connection once more, then a new one.
async fn until_gone(address: &str, connection: &Connection, list: String) -> Value {
    let list = RedisParameter::Binary(list.into_bytes());
    let waiting = connection.execute("BLPOP", [list, RedisParameter::Int64(0)]).await;
    let again = connection.execute("PING", []).await;
    let reopened = Connection::open(address).await;
    let errors = [waiting.err(), again.err(), reopened.err()];
    errors.iter().map(|error| error.as_ref().map(refusal)).collect()
}

async fn shorthand(connection: &Connection, call: &str, args: Vec<String>) -> Result<Value, Error> {
    let key = args.first().cloned().unwrap_or_default();
    let rest = args.get(1..).unwrap_or_default();
    let second = rest.first().cloned().unwrap_or_default();
    Ok(match call {
        "publish" => connection.publish(key, second).await.map(|()| Value::Null)?,
        "get" => json!(connection.get(key).await?.map(|value| String::from_utf8_lossy(&value).into_owned())),
        "set" => connection.set(key, second).await.map(|()| Value::Null)?,
        "incr" => json!(connection.incr(key).await?),
        "del" => json!(connection.del(&args).await?),
        "sadd" => json!(connection.sadd(key, rest).await?),
        "smembers" => json!(connection.smembers(key).await?),
        "srem" => json!(connection.srem(key, rest).await?),
        _ => json!("the test asked for an unknown call"),
    })
}

/// Opens connections and keeps them all, until one is refused.
async fn open_many(address: &str) -> Value {
    let mut kept = Vec::new();
    loop {
        match Connection::open(address).await {
            Ok(connection) => kept.push(connection),
            Err(error) => return json!({ "opened": kept.len(), "then": refusal(&error) }),
        }
    }
}

/// Kind and value, under the name that the WIT gives the kind.
fn value(result: &RedisResult) -> Value {
    match result {
        RedisResult::Nil => json!("nil"),
        RedisResult::Status(text) => json!({ "status": text }),
        RedisResult::Int64(number) => json!({ "int64": number }),
        RedisResult::Binary(bytes) => json!({ "binary": String::from_utf8_lossy(bytes) }),
    }
}

fn refusal(error: &Error) -> Value {
    match error {
        Error::InvalidAddress => json!("invalid-address"),
        Error::TooManyConnections => json!("too-many-connections"),
        Error::TypeError => json!("type-error"),
        Error::Other(text) => json!({ "other": text }),
    }
}
