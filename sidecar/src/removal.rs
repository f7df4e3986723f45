//! Removes the rows of acknowledged events, many lanes' acks with one statement.

use std::collections::BTreeMap;
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

/// What a lane has published, and the lane's partition.
pub type Ack = (u32, Published);

/// Runs until every lane has gone and all is removed.
pub async fn run(outbox: Outbox, topic: String, health: Health, mut acks: mpsc::Receiver<Ack>) {
    while let Some((partition, Published { mut ids, next_offset })) = acks.recv().await {
        let mut positions = BTreeMap::from([(partition, next_offset)]);
        while ids.len() < ROWS_MAX
            && let Ok((partition, more)) = acks.try_recv()
        {
            ids.extend(more.ids);
            positions.insert(partition, more.next_offset);
        }
        loop {
            let result = outbox.remove(&topic, &ids, &positions).await;
            let is_news = health.note("removal", result.as_ref().err());
            match result {
                Ok(()) => {
                    if is_news {
                        info!("published events are removed from the outbox again");
                    }
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
