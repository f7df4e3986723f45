//! What readers may see without asking PostgreSQL: never an older state than a finished write left.
//!
//! Lists are the fields of one hash, which every write drops whole. A reader that misses plants a
//! lease in the hash before it asks PostgreSQL, and stores its answer only if that lease is still
//! there: a write in between has dropped it, and with it the right to store what is old by now.
//!
//! Redis is never needed: whatever fails here, readers go to PostgreSQL, and a drop that failed
//! travels with the event to the sidecar, which repeats it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use contract::cache::{lists_key, task_key};
use spin_sdk::redis::{Connection, Error as RedisError, RedisParameter, RedisResult};
use thiserror::Error;
use uuid::Uuid;

use crate::deadline::{TimedOut, within};
use crate::log;

/// Lists kept at once; the next ones are answered from PostgreSQL until a write drops them all.
const LISTS_MAX: i64 = 1_000;

const LEASE: &str = "lease";

/// Plants a lease unless there is one, and says which holds. ARGV: lease, seconds to live.
const TAKE_LEASE: &str = "
if redis.call('HSETNX', KEYS[1], 'lease', ARGV[1]) == 1 then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return redis.call('HGET', KEYS[1], 'lease')";

/// Stores a list under the lease that its reader took. ARGV: lease, field, list, fields at most.
const STORE_LIST: &str = "
if redis.call('HGET', KEYS[1], 'lease') == ARGV[1] and redis.call('HLEN', KEYS[1]) < tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
end
return redis.status_reply('OK')";

pub struct Cache {
    redis_url: String,
    timeout: Duration,
    pause: Duration,
    ttl: Duration,
    prefix: String,
    /// Kept for the life of the instance, since Spin opens a TCP connection at each `open`.
    connection: RefCell<Option<Rc<Connection>>>,
    /// After a timeout nobody asks until then, so that a hung Redis costs one request its wait and
    /// not every request.
    paused_until: Cell<Option<Instant>>,
    /// So that the log tells when Redis goes and comes, and not of every command.
    failing: Cell<bool>,
}

/// What a reader of lists found.
pub enum Lists {
    Hit(Vec<u8>),
    /// The answer may be stored under this lease.
    Miss(Lease),
    /// Redis cannot be asked.
    Unavailable,
}

pub struct Lease(Vec<u8>);

/// What became of a drop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dropped {
    Done,
    /// The sidecar has to repeat it.
    Left,
}

/// Redis gave no answer; why is in the log already.
struct Unanswered;

#[derive(Debug, Error)]
enum CacheError {
    #[error(transparent)]
    TimedOut(TimedOut),
    #[error("{0}")]
    Redis(RedisError),
}

impl Cache {
    pub fn new(
        redis_url: String,
        timeout: Duration,
        pause: Duration,
        ttl: Duration,
        prefix: String,
    ) -> Cache {
        Cache {
            redis_url,
            timeout,
            pause,
            ttl,
            prefix,
            connection: RefCell::new(None),
            paused_until: Cell::new(None),
            failing: Cell::new(false),
        }
    }

    /// To be called after the commit and before the response of every write.
    pub async fn drop_lists(&self) -> Dropped {
        match self.command("DEL", vec![binary(lists_key(&self.prefix))]).await {
            Ok(_) => Dropped::Done,
            Err(Unanswered) => Dropped::Left,
        }
    }

    pub async fn list(&self, query: &str) -> Lists {
        self.find_list(query).await.unwrap_or(Lists::Unavailable)
    }

    pub async fn store_list(&self, lease: Lease, query: &str, list: &str) {
        let arguments = vec![
            binary(STORE_LIST),
            RedisParameter::Int64(1),
            binary(lists_key(&self.prefix)),
            RedisParameter::Binary(lease.0),
            binary(query),
            binary(list),
            RedisParameter::Int64(LISTS_MAX),
        ];
        // Not stored is not wrong: the next reader tries again.
        let _: Result<_, Unanswered> = self.command("EVAL", arguments).await;
    }

    /// The task as JSON, if it is cached.
    pub async fn task(&self, id: Uuid) -> Option<Vec<u8>> {
        let reply = self.command("GET", vec![binary(task_key(&self.prefix, id))]).await.ok()?;
        reply.into_iter().next().and_then(bytes)
    }

    pub async fn store_task(&self, id: Uuid, task: &str) {
        let arguments = vec![
            binary(task_key(&self.prefix, id)),
            binary(task),
            binary("EX"),
            RedisParameter::Int64(self.ttl_s()),
        ];
        let _: Result<_, Unanswered> = self.command("SET", arguments).await;
    }

    async fn find_list(&self, query: &str) -> Result<Lists, Unanswered> {
        let key = lists_key(&self.prefix);
        let reply = self.command("HMGET", vec![binary(&key), binary(query), binary(LEASE)]).await?;
        let mut values = reply.into_iter().map(bytes);
        match (values.next().flatten(), values.next().flatten()) {
            (Some(list), _) => return Ok(Lists::Hit(list)),
            (None, Some(lease)) => return Ok(Lists::Miss(Lease(lease))),
            (None, None) => {}
        }
        let arguments = vec![
            binary(TAKE_LEASE),
            RedisParameter::Int64(1),
            binary(key),
            binary(Uuid::now_v7().to_string()),
            RedisParameter::Int64(self.ttl_s()),
        ];
        let reply = self.command("EVAL", arguments).await?;
        let lease = reply.into_iter().next().and_then(bytes);
        Ok(lease.map_or(Lists::Unavailable, |lease| Lists::Miss(Lease(lease))))
    }

    /// Sends one command, within the timeout; if the kept connection fails, once more on a new one.
    async fn command(
        &self,
        name: &str,
        arguments: Vec<RedisParameter>,
    ) -> Result<Vec<RedisResult>, Unanswered> {
        if self.paused_until.get().is_some_and(|until| Instant::now() < until) {
            return Err(Unanswered);
        }
        let failure = match within(self.timeout, self.attempts(name, arguments)).await {
            Ok(Ok(reply)) => {
                if self.failing.replace(false) {
                    log::info("the cache answers again");
                }
                return Ok(reply);
            }
            Ok(Err(error)) => CacheError::Redis(error),
            Err(timed_out) => {
                self.paused_until.set(Some(Instant::now() + self.pause));
                CacheError::TimedOut(timed_out)
            }
        };
        self.connection.replace(None);
        if !self.failing.replace(true) {
            log::warn("the cache does not answer: reads go to PostgreSQL, drops to the sidecar", &failure);
        }
        Err(Unanswered)
    }

    async fn attempts(
        &self,
        name: &str,
        arguments: Vec<RedisParameter>,
    ) -> Result<Vec<RedisResult>, RedisError> {
        let kept = self.connection.borrow().clone();
        if let Some(connection) = kept
            && let Ok(reply) = connection.execute(name, arguments.clone()).await
        {
            return Ok(reply);
        }
        let connection = Rc::new(Connection::open(&self.redis_url).await?);
        self.connection.replace(Some(connection.clone()));
        connection.execute(name, arguments).await
    }

    fn ttl_s(&self) -> i64 {
        i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX)
    }
}

fn binary(value: impl AsRef<[u8]>) -> RedisParameter {
    RedisParameter::Binary(value.as_ref().to_vec())
}

fn bytes(reply: RedisResult) -> Option<Vec<u8>> {
    match reply {
        RedisResult::Binary(value) => Some(value),
        RedisResult::Nil | RedisResult::Status(_) | RedisResult::Int64(_) => None,
    }
}
