//! Looks again and again at what waits in the outbox, and tells the metrics and the readiness check. Every sidecar
//! does, whoever publishes.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::health::Health;
use crate::metrics::Metrics;
use crate::outbox::{Oldest, Outbox};

const INTERVAL: Duration = Duration::from_secs(1);

/// Every so often the whole outbox is looked at.
const WHOLE_INTERVAL: Duration = Duration::from_secs(30);

/// Runs until it is told to close.
pub async fn run(outbox: Outbox, metrics: Metrics, health: Health, closing: CancellationToken) {
    closing.run_until_cancelled(run_forever(outbox, metrics, health)).await;
}

async fn run_forever(outbox: Outbox, metrics: Metrics, health: Health) {
    let mut oldest = Oldest::new(WHOLE_INTERVAL);
    loop {
        let look = oldest.look(false);
        match outbox.state(look.after).await {
            Ok(state) => {
                oldest.note(&look, state.oldest_id);
                metrics.outbox_events.set(state.events);
                metrics.outbox_parked.set(state.parked);
                metrics.outbox_oldest_age.set(state.oldest_age_s);
                health.parked(state.parked);
            }
            // Whoever needs the outbox says so; this only looks.
            Err(error) => debug!(error = format!("{error:#}"), "the state of the outbox is not known"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
