//! The rules and the commands of the component's `src/cache.rs`, over one multiplexed connection.

use anyhow::{Context as _, Result};
use contract::cache::{FIND, KeyPrefix, STORE, Script};
use redis::aio::MultiplexedConnection;
use redis::{Arg, Cmd, ErrorKind, ServerErrorKind, Value, from_redis_value};
use uuid::Uuid;

const LISTS_MAX: i64 = 1_000;
const LISTS_BYTES_MAX: i64 = 8 * 1024 * 1024;
const TTL_S: i64 = 60;
const TASK: &str = "task";

#[derive(Clone)]
pub struct Cache {
    connection: MultiplexedConnection,
    prefix: KeyPrefix,
}

pub enum Cached {
    Hit { head: String, document: String },
    Miss(Lease),
}

pub struct Lease {
    key: String,
    field: String,
    token: String,
}

impl Cache {
    pub async fn connect(url: &str, prefix: &str) -> Result<Cache> {
        let connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        Ok(Cache { connection, prefix: prefix.parse()? })
    }

    pub async fn drop_stale(&self, changed: Option<Uuid>) -> Result<()> {
        let mut command = redis::cmd("DEL");
        command.arg(self.prefix.lists_key());
        if let Some(id) = changed {
            command.arg(self.prefix.task_key(id));
        }
        Ok(command.exec_async(&mut self.connection.clone()).await?)
    }

    pub async fn list(&self, query: &str) -> Result<Cached> {
        self.find(self.prefix.lists_key(), query).await
    }

    pub async fn task(&self, id: Uuid) -> Result<Cached> {
        self.find(self.prefix.task_key(id), TASK).await
    }

    pub async fn store(&self, lease: Lease, head: &str, document: &str) -> Result<()> {
        let Lease { key, field, token } = lease;
        let answer = format!("{head}\n{document}");
        self.run(&STORE, |command| {
            command.arg(1).arg(key).arg(token).arg(field).arg(answer);
            command.arg(LISTS_MAX).arg(LISTS_BYTES_MAX);
        })
        .await?;
        Ok(())
    }

    async fn find(&self, key: String, field: &str) -> Result<Cached> {
        let found = self
            .run(&FIND, |command| {
                command.arg(2).arg(&key).arg(self.prefix.probe_key());
                command.arg("bench").arg(field).arg(Uuid::now_v7().to_string()).arg(TTL_S);
            })
            .await?;
        if let Value::BulkString(_) = &found {
            let answer: String = from_redis_value(found)?;
            let (head, document) = answer.split_once('\n').context("an answer of ours")?;
            return Ok(Cached::Hit { head: head.to_owned(), document: document.to_owned() });
        }
        let (lease, _): (Option<String>, i64) = from_redis_value(found)?;
        let token = lease.context("Redis is full")?;
        Ok(Cached::Miss(Lease { key, field: field.to_owned(), token }))
    }

    async fn run(&self, script: &Script, arguments: impl FnOnce(&mut Cmd)) -> Result<Value> {
        let mut rest = Cmd::new();
        arguments(&mut rest);
        let by = async |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script);
            rest.args_iter().for_each(|argument| {
                if let Arg::Simple(argument) = argument {
                    command.arg(argument);
                }
            });
            command.query_async(&mut self.connection.clone()).await
        };
        match by("EVALSHA", &script.sha1).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                Ok(by("EVAL", script.text).await?)
            }
            answered => Ok(answered?),
        }
    }
}
