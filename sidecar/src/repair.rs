//! Repeats what the component could not do: takes stale answers out of the cache, until Redis has done
//! it. Requests that come meanwhile are one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use contract::cache::KeyPrefix;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use tracing::{info, warn};
use uuid::Uuid;

use crate::health::Health;
use crate::metrics::Metrics;

/// For connecting and for each command.
const REDIS_TIMEOUT: Duration = Duration::from_secs(1);

/// The wait before a failed repair is repeated, on a connection of its own: the address may lead to
/// another server now. It is repeated until it succeeds and never less often, because a Redis that
/// comes back is read from at once.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Tasks to be dropped one by one; when there are more, all of them are.
const TASKS_MAX: usize = 10_000;

/// Keys that one step of a search for all tasks looks at, roughly.
const SCAN_KEYS: usize = 1_000;

#[derive(Clone, Default)]
pub struct Repair {
    stale: Arc<Mutex<Stale>>,
    requested: Arc<Notify>,
}

/// What is to be dropped, besides the lists.
#[derive(Default)]
struct Stale {
    /// Some of them more than once, perhaps.
    tasks: Vec<Uuid>,
    all_tasks: bool,
}

impl Repair {
    /// Asks for the cached lists and this task to be dropped. Returns at once.
    pub fn request(&self, task_id: Uuid) {
        self.add(&[task_id], false);
    }

    /// Asks for everything to be dropped.
    pub fn request_all(&self) {
        self.add(&[], true);
    }

    /// Runs until it is dropped.
    pub async fn run(self, client: redis::Client, prefix: KeyPrefix, health: Health, metrics: Metrics) {
        let mut connection = None;
        loop {
            self.requested.notified().await;
            metrics.invalidation_pending.set(1);
            let stale = std::mem::take(&mut *self.stale());
            let outcome = drop_stale(&client, &mut connection, &prefix, &stale).await;
            let is_news = health.note_cache(outcome.as_ref().err());
            if let Err(error) = outcome {
                connection = None;
                metrics.invalidation_failures.inc();
                if is_news {
                    warn!(
                        error = format!("{error:#}"),
                        "Redis does not take invalidations; they are repeated until it does"
                    );
                }
                self.add(&stale.tasks, stale.all_tasks);
                tokio::time::sleep(RETRY_INTERVAL).await;
            } else {
                metrics.invalidation_pending.set(0);
                if is_news {
                    info!("what was stale is invalidated in the cache");
                }
            }
        }
    }

    fn add(&self, tasks: &[Uuid], all_tasks: bool) {
        let mut stale = self.stale();
        if stale.all_tasks {
            return;
        }
        if stale.tasks.is_empty() {
            self.requested.notify_one();
        }
        stale.tasks.extend(tasks);
        stale.all_tasks = all_tasks || stale.tasks.len() > TASKS_MAX;
        if stale.all_tasks {
            stale.tasks.clear();
        }
    }

    fn stale(&self) -> MutexGuard<'_, Stale> {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn drop_stale(
    client: &redis::Client,
    connection: &mut Option<MultiplexedConnection>,
    prefix: &KeyPrefix,
    stale: &Stale,
) -> Result<()> {
    let connection = match connection {
        Some(connection) => connection,
        None => {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(REDIS_TIMEOUT))
                .set_response_timeout(Some(REDIS_TIMEOUT));
            let opened = client.get_multiplexed_async_connection_with_config(&config).await;
            connection.insert(opened.context("connecting to Redis")?)
        }
    };
    let mut drop = redis::cmd("DEL");
    drop.arg(prefix.lists_key());
    for task_id in &stale.tasks {
        drop.arg(prefix.task_key(*task_id));
    }
    let _: () = drop.query_async(connection).await.context("dropping stale answers")?;
    if stale.all_tasks {
        drop_all_tasks(connection, prefix).await.context("dropping all cached tasks")?;
    }
    Ok(())
}

async fn drop_all_tasks(connection: &mut MultiplexedConnection, prefix: &KeyPrefix) -> Result<()> {
    let pattern = prefix.task_keys_pattern();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_KEYS);
        let (next, keys): (u64, Vec<String>) = scan.query_async(connection).await?;
        if !keys.is_empty() {
            let _: () = redis::cmd("DEL").arg(keys).query_async(connection).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}
