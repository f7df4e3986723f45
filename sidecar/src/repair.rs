//! Repeats what the component could not do: takes stale lists out of the cache, until Redis has done
//! it. Requests that come meanwhile are one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use contract::cache;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use tracing::{info, warn};

/// For connecting and for each command.
const REDIS_TIMEOUT: Duration = Duration::from_secs(1);

/// The wait before a failed repair is repeated; it is repeated until it succeeds.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub struct Repair {
    requested: Arc<Notify>,
}

impl Repair {
    pub fn new() -> Repair {
        Repair { requested: Arc::default() }
    }

    /// Asks for the cached lists to be dropped. Returns at once.
    pub fn request(&self) {
        self.requested.notify_one();
    }

    /// Runs until it is dropped.
    pub async fn run(self, client: redis::Client, cache_key_prefix: String) {
        let lists_key = cache::lists_key(&cache_key_prefix);
        let mut connection = None;
        let mut failing = false;
        loop {
            self.requested.notified().await;
            while let Err(error) = drop_key(&client, &mut connection, &lists_key).await {
                connection = None;
                if !std::mem::replace(&mut failing, true) {
                    warn!(error = format!("{error:#}"), "cached lists may be stale until Redis answers");
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            if std::mem::replace(&mut failing, false) {
                info!("stale lists dropped from the cache");
            }
        }
    }
}

async fn drop_key(
    client: &redis::Client,
    connection: &mut Option<MultiplexedConnection>,
    key: &str,
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
    redis::cmd("DEL").arg(key).query_async(connection).await.context("dropping the cached lists")
}
