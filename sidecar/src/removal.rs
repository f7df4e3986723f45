//! Removes the rows of acknowledged events, many lanes' acks with one statement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::health::Health;
use crate::lane::Published;
use crate::outbox::Outbox;

/// Acks that may wait, in batches; past it the lanes wait.
pub const WAITING_BATCHES_MAX: usize = 64;

/// Rows of one statement, roughly: a batch more may come on top.
const ROWS_MAX: usize = 5_000;

/// The wait before a failed removal is repeated; it is repeated until it succeeds.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What a lane has published.
pub struct Ack {
    pub partition: u32,
    pub published: Published,
    /// Counts the lane's acks whose rows are removed.
    pub removed: Arc<AtomicU64>,
}

/// Runs until every lane has gone and all is removed.
pub async fn run(outbox: Outbox, topic: String, health: Health, mut acks: mpsc::Receiver<Ack>) {
    while let Some(first) = acks.recv().await {
        let (mut ids, mut positions) = (Vec::new(), BTreeMap::new());
        let mut counters = Vec::new();
        let mut next = Some(first);
        while let Some(Ack { partition, published, removed }) = next {
            ids.extend(published.ids);
            positions.insert(partition, published.next_offset);
            counters.push(removed);
            next = if ids.len() < ROWS_MAX { acks.try_recv().ok() } else { None };
        }
        loop {
            let result = outbox.remove(&topic, &ids, &positions).await;
            let is_news = health.note("removal", result.as_ref().err());
            match result {
                Ok(()) => {
                    if is_news {
                        info!("published events are removed from the outbox again");
                    }
                    counters.iter().for_each(|removed| {
                        removed.fetch_add(1, Ordering::Release);
                    });
                    break;
                }
                Err(error) => {
                    if is_news {
                        warn!(error = format!("{error:#}"), "published events stay in the outbox for now");
                    }
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }
}
