//! Looks again and again at what waits in the outbox, and tells the metrics and the readiness check. Every sidecar
//! does, whoever publishes.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::health::Health;
use crate::metrics::Metrics;
use crate::outbox::{Oldest, Outbox};

const INTERVAL: Duration = Duration::from_secs(1);

/// Every so often the whole outbox is looked at.
const WHOLE_INTERVAL: Duration = Duration::from_secs(30);

/// Counting reads every row, which costs most when there is a backlog to be published: after each time it is left alone for
/// so many times as long as it took.
const COUNT_PAUSE_FACTOR: u32 = 50;

/// Runs until it is told to close.
pub async fn run(outbox: Outbox, metrics: Metrics, health: Health, closing: CancellationToken) {
    let watch =
        Watch { outbox, metrics, health, oldest: Oldest::new(WHOLE_INTERVAL), count_at: Instant::now() };
    closing.run_until_cancelled(watch.run_forever()).await;
}

struct Watch {
    outbox: Outbox,
    metrics: Metrics,
    health: Health,
    oldest: Oldest,
    count_at: Instant,
}

impl Watch {
    async fn run_forever(mut self) {
        loop {
            if let Err(error) = self.look().await {
                // Whoever needs the outbox says so; this only looks.
                debug!(error = format!("{error:#}"), "the state of the outbox is not known");
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn look(&mut self) -> Result<()> {
        let look = self.oldest.look(false);
        let state = self.outbox.state(look.after).await?;
        self.oldest.note(&look, state.oldest_id);
        self.metrics.outbox_parked.set(state.parked);
        self.metrics.outbox_oldest_age.set(state.oldest_age_s);
        self.health.parked(state.parked);
        if state.oldest_id.is_none() {
            self.metrics.outbox_events.set(0);
        } else if Instant::now() >= self.count_at {
            let began = Instant::now();
            let counted = self.outbox.count(look.after).await;
            self.count_at = Instant::now() + COUNT_PAUSE_FACTOR * began.elapsed();
            self.metrics.outbox_events.set(counted?);
        }
        Ok(())
    }
}
