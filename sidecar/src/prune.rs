//! Removes idempotency keys that have had their time, 24 hours. A few at a time, so that it never
//! stands in the way of a write.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::outbox::Outbox;

const INTERVAL: Duration = Duration::from_secs(60);

/// Keys of one statement; as long as it finds so many, the next one follows at once.
const KEYS_MAX: u32 = 1_000;

/// Runs until it is told to close.
pub async fn run(outbox: Outbox, closing: CancellationToken) {
    closing.run_until_cancelled(run_forever(outbox)).await;
}

async fn run_forever(outbox: Outbox) {
    loop {
        match outbox.prune(KEYS_MAX).await {
            Ok(removed) if removed >= u64::from(KEYS_MAX) => continue,
            Ok(removed) => debug!(removed, "idempotency keys pruned"),
            Err(error) => warn!(error = format!("{error:#}"), "old idempotency keys stay for now"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
