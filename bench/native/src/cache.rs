//! The rules and the commands of the component's `src/cache.rs`, over one multiplexed connection.

use anyhow::Result;
use contract::cache::{lists_key, task_key};
use redis::aio::MultiplexedConnection;
use uuid::Uuid;

const FIELDS_MAX: i64 = 1_000;
const TTL_S: i64 = 60;
const TASK: &str = "task";
const LEASE: &str = "lease";

const TAKE_LEASE: &str = "
if redis.call('HSETNX', KEYS[1], 'lease', ARGV[1]) == 1 then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return redis.call('HGET', KEYS[1], 'lease')";

const STORE: &str = "
if redis.call('HGET', KEYS[1], 'lease') == ARGV[1] and redis.call('HLEN', KEYS[1]) < tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
end
return redis.status_reply('OK')";

#[derive(Clone)]
pub struct Cache {
    connection: MultiplexedConnection,
    prefix: String,
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
        Ok(Cache { connection, prefix: prefix.to_owned() })
    }

    pub async fn drop_stale(&self, changed: Option<Uuid>) -> Result<()> {
        let mut command = redis::cmd("DEL");
        command.arg(lists_key(&self.prefix));
        if let Some(id) = changed {
            command.arg(task_key(&self.prefix, id));
        }
        Ok(command.exec_async(&mut self.connection.clone()).await?)
    }

    pub async fn list(&self, query: &str) -> Result<Cached> {
        self.find(lists_key(&self.prefix), query).await
    }

    pub async fn task(&self, id: Uuid) -> Result<Cached> {
        self.find(task_key(&self.prefix, id), TASK).await
    }

    pub async fn store(&self, lease: Lease, head: &str, document: &str) -> Result<()> {
        let Lease { key, field, token } = lease;
        let mut command = redis::cmd("EVAL");
        command.arg(STORE).arg(1).arg(key).arg(token).arg(field);
        command.arg(format!("{head}\n{document}")).arg(FIELDS_MAX);
        Ok(command.exec_async(&mut self.connection.clone()).await?)
    }

    async fn find(&self, key: String, field: &str) -> Result<Cached> {
        let mut connection = self.connection.clone();
        let (answer, lease): (Option<String>, Option<String>) =
            redis::cmd("HMGET").arg(&key).arg(field).arg(LEASE).query_async(&mut connection).await?;
        if let Some((head, document)) = answer.as_deref().and_then(|answer| answer.split_once('\n')) {
            return Ok(Cached::Hit { head: head.to_owned(), document: document.to_owned() });
        }
        let token = match lease {
            Some(token) => token,
            None => {
                let mut command = redis::cmd("EVAL");
                command.arg(TAKE_LEASE).arg(1).arg(&key).arg(Uuid::now_v7().to_string()).arg(TTL_S);
                command.query_async(&mut connection).await?
            }
        };
        Ok(Cached::Miss(Lease { key, field: field.to_owned(), token }))
    }
}
