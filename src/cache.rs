//! What readers may see without asking PostgreSQL: never an older state than a finished write left.
//!
//! What is cached is a field of a hash: each list a field of one hash, each task alone in its own.
//! A reader that misses plants a lease in the hash before it asks PostgreSQL, and stores its answer
//! only if that lease is still there. A write deletes the hashes that it makes stale, and their
//! leases with them: what was read before it can not be stored after it, however slow the reader,
//! and not even after Redis has forgotten everything in between, which comparing versions would not
//! notice.
//!
//! A look-up is a script that also deletes a key: a Redis that would refuse an invalidation refuses
//! the look-up. Each hash names its owner, the deployment and the history of the primary that it
//! was filled on. So neither a snapshot, nor a promoted replica, nor another deployment's answers
//! are read.
//!
//! Redis is never needed: whatever fails here, readers go to PostgreSQL, and an invalidation that
//! failed travels with the event to the sidecar, which repeats it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use contract::cache::{FIND, KeyPrefix, STORE, Script};
use sha2::{Digest as _, Sha256};
use spin_sdk::redis::{Connection, Error as RedisError, RedisParameter, RedisResult};
use thiserror::Error;
use uuid::Uuid;

use crate::batcher::Batcher;
use crate::config::Config;
use crate::deadline::{TimedOut, within};
use crate::log;

/// Fields of one hash at most: lists kept at once. The next ones are answered from PostgreSQL until a
/// write invalidates them all.
const LISTS_MAX: i64 = 1_000;

/// Bytes of the fields of one hash at most, with the same effect. A list of 100 tasks has up to 6 MB.
const LISTS_BYTES_MAX: i64 = 8 * 1024 * 1024;

/// The field of a task in its hash.
const TASK: &str = "task";

pub struct Cache {
    redis_url: String,
    timeout: Duration,
    pause: Duration,
    ttl: Duration,
    prefix: KeyPrefix,
    /// Part of every hash's owner: tells this deployment from others that use the same prefix.
    deployment: String,
    /// The next lease of this instance: its own id, and a number.
    leases: (Uuid, Cell<u64>),
    /// Kept for the life of the instance, since Spin opens a TCP connection at each `open`.
    connection: RefCell<Option<Rc<Connection>>>,
    opening: Batcher<(), Result<Rc<Connection>, RedisError>>,
    /// After a failure no reader asks until then, and whoever asks next opens a connection: the
    /// server may be a replica now. So a hung Redis costs one reader its wait, and one that refuses
    /// everything costs a connection a pause. Writers ask all the same: others may be reading what
    /// they have to invalidate.
    paused_until: Cell<Option<Instant>>,
    /// So that the log tells when Redis goes and comes, and not of every command.
    failing: Cell<bool>,
    /// The log has told that another deployment has the same prefix.
    told_shared: Cell<bool>,
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
    #[error("the connection failed: {0}")]
    Broken(RedisError),
    /// The connection works, and the server does not do what it was asked.
    #[error("the server refuses: {0}")]
    Refused(RedisError),
}

#[derive(Debug, Error)]
#[error("variable cache_key_prefix is {0:?} here as well: the two empty each other's cache")]
struct Shared(String);

impl Cache {
    pub fn new(config: &Config) -> Cache {
        Cache {
            redis_url: config.redis_url.expose().to_owned(),
            timeout: config.redis_timeout,
            pause: config.redis_pause,
            ttl: config.cache_ttl,
            prefix: config.cache_key_prefix.clone(),
            deployment: deployment(config.database_url.expose(), config.sidecar_token.expose()),
            leases: (Uuid::now_v7(), Cell::new(0)),
            connection: RefCell::new(None),
            opening: Batcher::new(),
            paused_until: Cell::new(None),
            failing: Cell::new(false),
            told_shared: Cell::new(false),
        }
    }

    /// Invalidates the lists and these tasks: to be called before the response of every write, with
    /// the tasks that were there before it, and also when it cannot be said whether the write took
    /// place.
    pub async fn drop_stale(&self, changed: &[Uuid]) -> Dropped {
        let tasks = changed.iter().map(|id| self.prefix.task_key(*id));
        let keys = std::iter::once(self.prefix.lists_key()).chain(tasks).map(binary).collect();
        match self.command("DEL", keys).await {
            Ok(_) => Dropped::Done,
            Err(Unanswered) => Dropped::Left,
        }
    }

    pub async fn list(&self, query: &str) -> Cached {
        self.find(self.prefix.lists_key(), query).await.unwrap_or(Cached::Unavailable)
    }

    pub async fn task(&self, id: Uuid) -> Cached {
        self.find(self.prefix.task_key(id), TASK).await.unwrap_or(Cached::Unavailable)
    }

    /// Whether readers are answered from the cache at present.
    pub async fn is_usable(&self) -> bool {
        !matches!(self.task(Uuid::nil()).await, Cached::Unavailable)
    }

    pub async fn store(&self, lease: Lease, answer: &[u8]) {
        // It could never be stored.
        if i64::try_from(answer.len()).is_ok_and(|bytes| bytes > LISTS_BYTES_MAX) || self.is_paused() {
            return;
        }
        let arguments = vec![
            RedisParameter::Int64(1),
            binary(lease.key),
            RedisParameter::Binary(lease.token),
            binary(lease.field),
            binary(answer),
            RedisParameter::Int64(LISTS_MAX),
            RedisParameter::Int64(LISTS_BYTES_MAX),
        ];
        // Not stored is not wrong: the next reader tries again.
        let _: Result<_, Unanswered> = self.script(&STORE, arguments).await;
    }

    async fn find(&self, key: String, field: &str) -> Result<Cached, Unanswered> {
        if self.is_paused() {
            return Err(Unanswered);
        }
        let (instance, count) = &self.leases;
        let lease = format!("{instance}-{}", count.replace(count.get() + 1));
        let arguments = vec![
            RedisParameter::Int64(2),
            binary(&key),
            binary(self.prefix.probe_key()),
            binary(&self.deployment),
            binary(field),
            binary(lease),
            RedisParameter::Int64(i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX)),
        ];
        let mut reply = self.script(&FIND, arguments).await?.into_iter();
        let (first, is_shared) = (reply.next().and_then(bytes), reply.next());
        if let Some(RedisResult::Int64(1)) = is_shared
            && !self.told_shared.replace(true)
        {
            log::warn("another deployment uses the same keys in Redis", &Shared(self.prefix.to_string()));
        }
        Ok(match (first, is_shared) {
            (Some(answer), None) => Cached::Hit(answer),
            (Some(token), Some(_)) => Cached::Miss(Lease { key, field: field.to_owned(), token }),
            (None, _) => Cached::Unavailable,
        })
    }

    /// Runs a script, within the timeout.
    async fn script(
        &self,
        script: &Script,
        mut arguments: Vec<RedisParameter>,
    ) -> Result<Vec<RedisResult>, Unanswered> {
        arguments.insert(0, binary(&script.sha1));
        self.noted(async {
            match self.attempts("EVALSHA", &arguments).await {
                Err(CacheError::Refused(RedisError::Other(text))) if text.contains("NoScript") => {
                    arguments[0] = binary(script.text);
                    self.attempts("EVAL", &arguments).await
                }
                answered => answered,
            }
        })
        .await
    }

    /// Sends one command, within the timeout.
    async fn command(
        &self,
        name: &str,
        arguments: Vec<RedisParameter>,
    ) -> Result<Vec<RedisResult>, Unanswered> {
        self.noted(self.attempts(name, &arguments)).await
    }

    /// Awaits a reply, within the timeout, and notes what a failure means for those who come next.
    async fn noted(
        &self,
        reply: impl Future<Output = Result<Vec<RedisResult>, CacheError>>,
    ) -> Result<Vec<RedisResult>, Unanswered> {
        let failure = match within(self.timeout, reply).await {
            Ok(Ok(reply)) => {
                if self.failing.replace(false) {
                    log::info("the cache answers again");
                }
                return Ok(reply);
            }
            Ok(Err(error)) => error,
            Err(timed_out) => CacheError::TimedOut(timed_out),
        };
        if !matches!(failure, CacheError::Refused(_)) {
            self.connection.replace(None);
        }
        if !self.is_paused() {
            self.paused_until.set(Some(Instant::now() + self.pause));
        }
        if !self.failing.replace(true) {
            log::warn(
                "the cache cannot be used: reads go to PostgreSQL, invalidations to the sidecar",
                &failure,
            );
        }
        Err(Unanswered)
    }

    /// If the kept connection fails, once more on a new one.
    async fn attempts(
        &self,
        name: &str,
        arguments: &[RedisParameter],
    ) -> Result<Vec<RedisResult>, CacheError> {
        let kept = self.connection.borrow().clone();
        if let Some(connection) = kept {
            match connection.execute(name, arguments.to_vec()).await.map_err(CacheError::of_command) {
                Err(CacheError::Broken(_)) => self.forget(&connection),
                answered => return answered,
            }
        }
        let open = async || self.open().await;
        let opened = self.opening.submit((), open, async |opened, items| vec![opened; items.len()]).await;
        let connection = opened.map_err(CacheError::Broken)?;
        connection.execute(name, arguments.to_vec()).await.map_err(CacheError::of_command)
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

    /// Whether readers leave Redis alone. When that is over the connection goes as well.
    fn is_paused(&self) -> bool {
        let Some(until) = self.paused_until.get() else {
            return false;
        };
        let is_paused = Instant::now() < until;
        if !is_paused {
            self.paused_until.set(None);
            self.connection.replace(None);
        }
        is_paused
    }
}

impl CacheError {
    fn of_command(error: RedisError) -> CacheError {
        if is_reply(&error) { CacheError::Refused(error) } else { CacheError::Broken(error) }
    }
}

/// Whether the server said so. Spin hands over its client's text: `An error was signalled by the
/// server - ReadOnly: …` where the client knows the code, `OOM: …` with the code itself where it
/// does not, and what the system says otherwise.
fn is_reply(error: &RedisError) -> bool {
    match error {
        RedisError::Other(text) => {
            let code = text.split(':').next().unwrap_or_default();
            text.starts_with("An error was signalled by the server")
                || (code.len() > 1 && code.bytes().all(|byte| byte.is_ascii_uppercase()))
        }
        RedisError::TypeError => true,
        RedisError::InvalidAddress | RedisError::TooManyConnections => false,
    }
}

/// What tells deployments apart: where the database is, as whom it is used, and the secret shared
/// with the sidecar. Not the password of the database: whoever reads Redis could guess it at
/// leisure.
fn deployment(database_url: &str, sidecar_token: &str) -> String {
    let address = database_url.split('?').next().unwrap_or_default();
    let (credentials, place) = address.rsplit_once('@').unwrap_or(("", address));
    let credentials = credentials.trim_start_matches("postgres://");
    let user = credentials.split(':').next().unwrap_or_default();
    let digest = Sha256::digest(format!("{user}\n{place}\n{sidecar_token}"));
    hex::encode(&digest[..16])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_the_server_is_no_broken_connection() {
        let is_reply = |text: &str| is_reply(&RedisError::Other(text.to_owned()));
        for text in [
            "An error was signalled by the server - ReadOnly: You can't write against a read only replica.",
            "An error was signalled by the server - ResponseError: Error running script",
            "OOM: command not allowed when used memory > 'maxmemory'.",
            "NOREPLICAS: Not enough good replicas to write.",
            "NOPERM",
        ] {
            assert!(is_reply(text), "{text}");
        }
        for text in [
            "broken pipe",
            "Connection reset by peer (os error 104)",
            "Connection refused (os error 111)",
            "Multiplexed connection driver unexpectedly terminated",
            "I/O: timed out",
            "",
        ] {
            assert!(!is_reply(text), "{text}");
        }
    }

    #[test]
    fn deployments_differ_by_database_user_or_token() {
        let one = deployment("postgres://u:secret@db:5432/tasks?sslmode=disable", "token");
        assert_eq!(one, deployment("postgres://u:other@db:5432/tasks?", "token"), "a new password");
        for (url, token) in [
            ("postgres://u:secret@db:5432/other", "token"),
            ("postgres://u:secret@db2:5432/tasks", "token"),
            ("postgres://v:secret@db:5432/tasks", "token"),
            ("postgres://u:secret@db:5432/tasks", "token2"),
        ] {
            assert_ne!(one, deployment(url, token), "{url} {token}");
        }
    }
}
