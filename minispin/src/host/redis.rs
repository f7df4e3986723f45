//! spin:redis@3.0.0. Each open is a connection of its own, as in Spin, and no call has a deadline: the
//! component is who gives up.

use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value,
    aio::MultiplexedConnection, cmd, from_redis_value,
};
use wasmtime::component::{Accessor, HasSelf, Resource};

use super::{
    RESULT_BYTES_MAX, State,
    bindings::spin::redis::redis::{
        Error, Host, HostConnection, HostConnectionWithStore, Payload, RedisParameter, RedisResult,
    },
};
use crate::allowed_hosts::Destination;

/// What an instance may have open at once, as in Spin; past it, `too-many-connections`.
const CONNECTIONS_MAX: usize = 256;

/// The resource behind a guest's connection. Clones share the one socket.
pub struct Connection(MultiplexedConnection);

impl Host for State {}

impl HostConnection for State {
    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        self.redis_connections -= 1;
        Ok(())
    }
}

impl<T: Send> HostConnectionWithStore<T> for HasSelf<State> {
    async fn open(accessor: &Accessor<T, Self>, address: String) -> Result<Resource<Connection>, Error> {
        let component = accessor.with(|mut access| access.get().component.clone());
        let destination = Destination::parse(&address, "redis").map_err(|problem| {
            tracing::warn!(component = component.id, "the Redis address is no URL: {problem}");
            Error::InvalidAddress
        })?;
        if !component.permits(&destination) {
            return Err(Error::InvalidAddress);
        }
        let client = Client::open(address).map_err(|error| {
            tracing::warn!(component = component.id, %error, "the Redis address cannot be used (TLS needs Spin)");
            Error::InvalidAddress
        })?;
        let no_deadlines =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connection = client
            .get_multiplexed_async_connection_with_config(&no_deadlines)
            .await
            .map_err(|error| other(&error))?;
        accessor.with(|mut access| {
            let state = access.get();
            if state.redis_connections == CONNECTIONS_MAX {
                return Err(Error::TooManyConnections);
            }
            let resource =
                state.table.push(Connection(connection)).map_err(|full| Error::Other(full.to_string()))?;
            state.redis_connections += 1;
            Ok(resource)
        })
    }

    async fn publish(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        channel: String,
        payload: Payload,
    ) -> Result<(), Error> {
        call(accessor, &connection, cmd("PUBLISH").arg(channel).arg(payload)).await
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
    ) -> Result<Option<Payload>, Error> {
        let value: Option<Payload> = call(accessor, &connection, cmd("GET").arg(key)).await?;
        check_size(value.as_ref().map_or(0, Vec::len))?;
        Ok(value)
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
        value: Payload,
    ) -> Result<(), Error> {
        call(accessor, &connection, cmd("SET").arg(key).arg(value)).await
    }

    async fn incr(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
    ) -> Result<i64, Error> {
        call(accessor, &connection, cmd("INCRBY").arg(key).arg(1)).await
    }

    async fn del(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        keys: Vec<String>,
    ) -> Result<u32, Error> {
        call(accessor, &connection, cmd("DEL").arg(keys)).await
    }

    async fn sadd(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
        values: Vec<String>,
    ) -> Result<u32, Error> {
        call(accessor, &connection, cmd("SADD").arg(key).arg(values)).await
    }

    async fn smembers(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
    ) -> Result<Vec<String>, Error> {
        call(accessor, &connection, cmd("SMEMBERS").arg(key)).await
    }

    async fn srem(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
        values: Vec<String>,
    ) -> Result<u32, Error> {
        call(accessor, &connection, cmd("SREM").arg(key).arg(values)).await
    }

    async fn execute(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        command: String,
        arguments: Vec<RedisParameter>,
    ) -> Result<Vec<RedisResult>, Error> {
        let mut command = cmd(&command);
        for argument in arguments {
            match argument {
                RedisParameter::Int64(number) => command.arg(number),
                RedisParameter::Binary(bytes) => command.arg(bytes),
            };
        }
        let value: Value = call(accessor, &connection, &command).await?;
        let mut results = Vec::new();
        flatten(value, &mut results)?;
        check_size(results.iter().map(result_bytes).sum())?;
        Ok(results)
    }
}

async fn call<T: Send, R: FromRedisValue>(
    accessor: &Accessor<T, HasSelf<State>>,
    connection: &Resource<Connection>,
    command: &Cmd,
) -> Result<R, Error> {
    let mut connection = accessor
        .with(|mut access| access.get().table.get(connection).map(|Connection(open)| open.clone()))
        .map_err(|error| Error::Other(error.to_string()))?;
    let value: Value = command.query_async(&mut connection).await.map_err(|error| other(&error))?;
    from_redis_value(value).map_err(|error| {
        let reason = error.to_string();
        let reason = reason.trim_start_matches("Incompatible type - ");
        Error::Other(format!("Response was of incompatible type - TypeError: {reason}"))
    })
}

/// Spin gives nested arrays as one flat list, and has no words for the kinds that only RESP3 knows.
fn flatten(value: Value, into: &mut Vec<RedisResult>) -> Result<(), Error> {
    let unsupported = |kind: &str| {
        Err(Error::Other(format!("Could not convert Redis response - TypeError: Redis {kind} not supported")))
    };
    into.push(match value {
        Value::Nil => RedisResult::Nil,
        Value::Int(number) => RedisResult::Int64(number),
        Value::Boolean(truth) => RedisResult::Int64(truth.into()),
        Value::Okay => RedisResult::Status("OK".into()),
        Value::SimpleString(status) => RedisResult::Status(status),
        Value::BulkString(bytes) | Value::BigNumber(bytes) => RedisResult::Binary(bytes),
        Value::Double(number) => RedisResult::Binary(number.to_string().into_bytes()),
        Value::Array(values) | Value::Set(values) => {
            return values.into_iter().try_for_each(|value| flatten(value, into));
        }
        Value::Map(_) => return unsupported("Map type is"),
        Value::Attribute { .. } => return unsupported("Attribute type is"),
        Value::VerbatimString { .. } => return unsupported("string with format attribute is"),
        Value::Push { .. } => return unsupported("Pub/Sub types are"),
        Value::ServerError(error) => return Err(other(&error.into())),
        _ => return unsupported("type is"),
    });
    Ok(())
}

fn result_bytes(result: &RedisResult) -> usize {
    size_of::<RedisResult>()
        + match result {
            RedisResult::Nil | RedisResult::Int64(_) => 0,
            RedisResult::Status(text) => text.len(),
            RedisResult::Binary(bytes) => bytes.len(),
        }
}

fn check_size(bytes: usize) -> Result<(), Error> {
    match bytes > RESULT_BYTES_MAX {
        true => Err(Error::Other(format!("query result exceeds limit of {RESULT_BYTES_MAX} bytes"))),
        false => Ok(()),
    }
}

fn other(error: &RedisError) -> Error {
    Error::Other(spin_text(error))
}

/// The text that Spin's older Redis client gives an error. Components look for words in it, such as
/// `NoScriptError`, that this client's own text no longer has.
fn spin_text(error: &RedisError) -> String {
    let detail = || error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    match error.kind() {
        ErrorKind::Extension => {
            let code = error.code().unwrap_or("ERR");
            format!("{code}{}", detail())
        }
        ErrorKind::Server(kind) => {
            format!("An error was signalled by the server - {}{}", spin_kind(kind), detail())
        }
        _ => error.to_string(),
    }
}

fn spin_kind(kind: ServerErrorKind) -> String {
    match kind {
        ServerErrorKind::ExecAbort => "ExecAbortError".into(),
        ServerErrorKind::BusyLoading => "BusyLoadingError".into(),
        ServerErrorKind::NoScript => "NoScriptError".into(),
        // The others kept their names.
        kind => format!("{kind:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(value: Value) -> Result<Vec<RedisResult>, Error> {
        let mut results = Vec::new();
        flatten(value, &mut results).map(|()| results)
    }

    #[test]
    fn nested_arrays_become_one_list() {
        let nested = Value::Array(vec![
            Value::Int(1),
            Value::Array(vec![Value::BulkString(b"a".to_vec()), Value::Array(vec![Value::Nil])]),
            Value::Okay,
            Value::Boolean(true),
            Value::Double(1.5),
        ]);
        let results = flat(nested).expect("flattened");
        let shown: Vec<_> = results.iter().map(|result| format!("{result:?}")).collect();
        assert_eq!(
            shown,
            [
                "RedisResult::Int64(1)",
                "RedisResult::Binary([97])",
                "RedisResult::Nil",
                "RedisResult::Status(\"OK\")",
                "RedisResult::Int64(1)",
                "RedisResult::Binary([49, 46, 53])",
            ]
        );
    }

    #[test]
    fn kinds_that_spin_has_no_word_for_are_refused_by_name() {
        let error = flat(Value::Map(Vec::new())).expect_err("refused");
        assert!(matches!(error, Error::Other(text) if text.contains("Redis Map type is not supported")));
    }

    #[test]
    fn server_errors_read_as_spins_client_words_them() {
        let error =
            RedisError::from((ErrorKind::Server(ServerErrorKind::NoScript), "x", "No script.".into()));
        assert_eq!(spin_text(&error), "An error was signalled by the server - NoScriptError: No script.");
    }
}
