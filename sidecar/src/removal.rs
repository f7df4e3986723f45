//! Removes the rows of acknowledged events, many lanes' acks with one statement.

use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};
use uuid::Uuid;

use crate::health::Health;
use crate::outbox::Outbox;

/// Acks that may wait, in batches; past it the lanes wait.
pub const WAITING_BATCHES_MAX: usize = 64;

/// Rows of one statement, roughly: a batch more may come on top.
const ROWS_MAX: usize = 5_000;

/// The wait before a failed removal is repeated; it is repeated until it succeeds.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Runs until every lane has gone and all is removed.
pub async fn run(outbox: Outbox, health: Health, mut acks: mpsc::Receiver<Vec<Uuid>>) {
    while let Some(mut ids) = acks.recv().await {
        while ids.len() < ROWS_MAX
            && let Ok(more) = acks.try_recv()
        {
            ids.extend(more);
        }
        loop {
            let result = outbox.remove(&ids).await;
            let is_news = health.note("removal", &result);
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
