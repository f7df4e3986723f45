//! What readers may see without asking PostgreSQL: never an older state than a finished write left.
//!
//! What is cached is a field of a hash: each list a field of one hash, each task alone in its own. A
//! reader that misses plants a lease in the hash before it asks PostgreSQL, and stores its answer only
//! if that lease is still there. A write drops the hashes that it makes stale, and their leases with
//! them: what was read before it can not be stored after it, however slow the reader, and not even
//! after Redis has forgotten everything in between, which comparing versions would not notice.
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
use crate::together::Together;

/// Fields of one hash at most: lists kept at once. The next ones are answered from PostgreSQL until a
/// write drops them all.
const FIELDS_MAX: i64 = 1_000;

/// The field of a task in its hash.
const TASK: &str = "task";

const LEASE: &str = "lease";

/// Plants a lease unless there is one, and says which holds. ARGV: lease, seconds to live.
const TAKE_LEASE: &str = "
if redis.call('HSETNX', KEYS[1], 'lease', ARGV[1]) == 1 then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return redis.call('HGET', KEYS[1], 'lease')";

/// Stores an answer under the lease that its reader took. ARGV: lease, field, answer, fields at most.
const STORE: &str = "
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
    opening: Together<(), Result<Rc<Connection>, RedisError>>,
    /// After a timeout nobody asks until then, so that a hung Redis costs one request its wait and
    /// not every request.
    paused_until: Cell<Option<Instant>>,
    /// So that the log tells when Redis goes and comes, and not of every command.
    failing: Cell<bool>,
}

/// What a reader found.
pub enum Cached {
    Hit(Vec<u8>),
    /// The answer may be stored under this lease.
    Miss(Lease),
    /// Redis cannot be asked.
    Unavailable,
}

/// The right to store one answer, until a write takes it away.
pub struct Lease {
    key: String,
    field: String,
    token: Vec<u8>,
}

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
            opening: Together::new(),
            paused_until: Cell::new(None),
            failing: Cell::new(false),
        }
    }

    /// Drops the lists and these tasks: to be called after the commit and before the response of every
    /// write, with the tasks that were there before it.
    pub async fn drop_stale(&self, changed: &[Uuid]) -> Dropped {
        let tasks = changed.iter().map(|id| task_key(&self.prefix, *id));
        let keys = std::iter::once(lists_key(&self.prefix)).chain(tasks).map(binary).collect();
        match self.command("DEL", keys).await {
            Ok(_) => Dropped::Done,
            Err(Unanswered) => Dropped::Left,
        }
    }

    pub async fn list(&self, query: &str) -> Cached {
        self.find(lists_key(&self.prefix), query).await.unwrap_or(Cached::Unavailable)
    }

    pub async fn task(&self, id: Uuid) -> Cached {
        self.find(task_key(&self.prefix, id), TASK).await.unwrap_or(Cached::Unavailable)
    }

    pub async fn store(&self, lease: Lease, answer: &[u8]) {
        let arguments = vec![
            binary(STORE),
            RedisParameter::Int64(1),
            binary(lease.key),
            RedisParameter::Binary(lease.token),
            binary(lease.field),
            binary(answer),
            RedisParameter::Int64(FIELDS_MAX),
        ];
        // Not stored is not wrong: the next reader tries again.
        let _: Result<_, Unanswered> = self.command("EVAL", arguments).await;
    }

    async fn find(&self, key: String, field: &str) -> Result<Cached, Unanswered> {
        let miss = |key, token| Cached::Miss(Lease { key, field: field.to_owned(), token });
        let reply = self.command("HMGET", vec![binary(&key), binary(field), binary(LEASE)]).await?;
        let mut values = reply.into_iter().map(bytes);
        match (values.next().flatten(), values.next().flatten()) {
            (Some(answer), _) => return Ok(Cached::Hit(answer)),
            (None, Some(token)) => return Ok(miss(key, token)),
            (None, None) => {}
        }
        let arguments = vec![
            binary(TAKE_LEASE),
            RedisParameter::Int64(1),
            binary(&key),
            binary(Uuid::now_v7().to_string()),
            RedisParameter::Int64(i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX)),
        ];
        let reply = self.command("EVAL", arguments).await?;
        let token = reply.into_iter().next().and_then(bytes);
        Ok(token.map_or(Cached::Unavailable, |token| miss(key, token)))
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
        if let Some(connection) = kept {
            if let Ok(reply) = connection.execute(name, arguments.clone()).await {
                return Ok(reply);
            }
            self.forget(&connection);
        }
        let open = async || self.open().await;
        let connection =
            self.opening.ask((), open, async |opened, askers| vec![opened; askers.len()]).await?;
        connection.execute(name, arguments).await
    }

    async fn open(&self) -> Result<Rc<Connection>, RedisError> {
        // Another request may have opened one while this one's failed.
        let kept = self.connection.borrow().clone();
        if let Some(connection) = kept {
            return Ok(connection);
        }
        let opened = Rc::new(Connection::open(&self.redis_url).await?);
        self.connection.replace(Some(Rc::clone(&opened)));
        Ok(opened)
    }

    /// Nobody gets this one any more.
    fn forget(&self, broken: &Rc<Connection>) {
        let mut kept = self.connection.borrow_mut();
        if kept.as_ref().is_some_and(|kept| Rc::ptr_eq(kept, broken)) {
            *kept = None;
        }
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
