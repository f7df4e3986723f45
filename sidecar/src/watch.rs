//! Looks again and again at what waits in the outbox, and tells the metrics and the readiness
//! check. Every sidecar does, whoever publishes, from its start on. What is not known has no
//! sample: a 0 would keep an alert silent.

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

/// For how long what was last seen is told while looking fails.
const KNOWN_MAX: Duration = Duration::from_secs(15);

/// Counting reads every row, which costs most when there is a backlog to be published: after each time it is left alone for
/// so many times as long as it took.
const COUNT_PAUSE_FACTOR: u32 = 50;

/// Runs until it is told to close.
pub async fn run(outbox: Outbox, metrics: Metrics, health: Health, closing: CancellationToken) {
    let now = Instant::now();
    let oldest = Oldest::new(WHOLE_INTERVAL);
    let watch = Watch { outbox, metrics, health, oldest, count_at: now, known_at: now };
    closing.run_until_cancelled(watch.run_forever()).await;
}

struct Watch {
    outbox: Outbox,
    metrics: Metrics,
    health: Health,
    oldest: Oldest,
    count_at: Instant,
    known_at: Instant,
}

impl Watch {
    async fn run_forever(mut self) {
        loop {
            if let Err(error) = self.look().await {
                // Whoever needs the outbox says so; this only looks.
                debug!(error = format!("{error:#}"), "the state of the outbox is not known");
                if self.known_at.elapsed() > KNOWN_MAX {
                    self.metrics.forget_outbox();
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn look(&mut self) -> Result<()> {
        let look = self.oldest.look(false);
        let state = self.outbox.state(look.after).await?;
        self.oldest.note(&look, state.oldest_id);
        self.known_at = Instant::now();
        self.metrics.note_outbox(state.parked, state.oldest_age_s);
        self.health.parked(state.parked);
        if state.oldest_id.is_none() {
            self.metrics.note_outbox_events(0);
        } else if Instant::now() >= self.count_at {
            let began = Instant::now();
            let counted = self.outbox.count(look.after).await;
            self.count_at = Instant::now() + COUNT_PAUSE_FACTOR * began.elapsed();
            self.metrics.note_outbox_events(counted?);
        }
        Ok(())
    }
}
