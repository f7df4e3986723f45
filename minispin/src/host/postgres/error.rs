//! What the guest learns of a failed query: the server's fields where it sent some, else the driver's text.

use tokio_postgres::error::DbError;

use super::Error;
use crate::host::bindings::spin::postgres::postgres::{DbError as WitDbError, QueryError};

pub(super) fn query_failed(error: &tokio_postgres::Error) -> Error {
    // The driver's debug form, because that is what Spin's guests see and may look for words in.
    let as_text = format!("{error:?}");
    Error::QueryFailed(match error.as_db_error() {
        None => QueryError::Text(as_text),
        Some(server) => QueryError::DbError(WitDbError {
            as_text,
            severity: server.severity().to_owned(),
            code: server.code().code().to_owned(),
            message: server.message().to_owned(),
            detail: server.detail().map(str::to_owned),
            extras: extras(server),
        }),
    })
}

pub(super) fn conversion_failed(error: &anyhow::Error) -> Error {
    Error::QueryFailed(QueryError::Text(format!("{error:#}")))
}

fn extras(error: &DbError) -> Vec<(String, String)> {
    let line = error.line().map(|line| line.to_string());
    [
        ("column", error.column()),
        ("constraint", error.constraint()),
        ("routine", error.routine()),
        ("hint", error.hint()),
        ("table", error.table()),
        ("datatype", error.datatype()),
        ("schema", error.schema()),
        ("file", error.file()),
        ("line", line.as_deref()),
        ("where_", error.where_()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
    .collect()
}
