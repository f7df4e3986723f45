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
    let connection = Connection::open(address).await.map_err(|error| refusal(&error))?;
    if call == "open-many" {
        return open_many(&args).await;
    }
    let result = match call {
        "execute" => execute(&connection, args).await,
        // Twice on one connection, with time for the test to take the server away in between.
        "execute-again" => again(&connection, args).await,
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

/// `args`: a command that the server takes its connection's end from, then any other one.
async fn again(connection: &Connection, args: Vec<Argument>) -> Result<Value, Error> {
    let commands: Vec<String> = args.into_iter().map(Into::into).collect();
    let mut outcomes = Vec::new();
    for command in commands {
        let mut words = command.split(' ').map(str::to_owned);
        let name = words.next().unwrap_or_default();
        let args: Vec<_> = words.map(|word| RedisParameter::Binary(word.into_bytes())).collect();
        outcomes.push(match connection.execute(name, args).await {
            Ok(results) => results.iter().map(value).collect(),
            Err(error) => refusal(&error),
        });
    }
    Ok(Value::Array(outcomes))
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
async fn open_many(args: &[Argument]) -> Outcome {
    let [Argument::Text(address), Argument::Number(count)] = args else {
        return Err(json!("args: address, count"));
    };
    let mut kept = Vec::new();
    for _ in 0..*count {
        match Connection::open(address).await {
            Ok(connection) => kept.push(connection),
            Err(error) => return Ok(json!({ "opened": kept.len(), "then": refusal(&error) })),
        }
    }
    Ok(json!({ "opened": kept.len() }))
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
