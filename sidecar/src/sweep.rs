//! Publishes what nobody forwarded: goes through the outbox again and again and offers every row to
//! its lane. Rows that are on their way already are recognised there, so the sweep needs no memory.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::health::Health;
use crate::lanes::Lanes;
use crate::offered::{Companion, Offered};
use crate::outbox::Outbox;

const PAGE_ROWS_MAX: u32 = 256;

/// Swept events in the lanes at once. It bounds the sweep's memory, and keeps a long backlog from
/// standing in front of new events.
const IN_LANE_MAX: usize = PAGE_ROWS_MAX as usize;

/// How long the sweep waits for a place in a lane. Past it the lane's rows are left for the next pass,
/// so that a partition that takes nothing holds up nobody else's events.
const PLACE_WAIT: Duration = Duration::from_millis(500);

pub struct Sweep {
    pub outbox: Outbox,
    pub lanes: Arc<Lanes>,
    pub health: Health,
    pub interval: Duration,
    pub wake: Arc<Notify>,
    pub closing: CancellationToken,
}

impl Sweep {
    /// Runs until it is told to close.
    pub async fn run(self) {
        self.closing.run_until_cancelled(self.run_forever()).await;
    }

    async fn run_forever(&self) {
        let places: Vec<_> = (0..self.lanes.count()).map(|_| Arc::new(Semaphore::new(IN_LANE_MAX))).collect();
        loop {
            let result = self.pass(&places).await;
            let is_news = self.health.note("sweep", result.as_ref().err());
            match result {
                Ok(_) if is_news => info!("sweeping the outbox again"),
                Ok(0) => {}
                Ok(rows) => debug!(rows, "swept"),
                Err(error) if is_news => warn!(error = format!("{error:#}"), "cannot sweep the outbox"),
                Err(_) => {}
            }
            // Whichever comes first: the next turn, or a standby that has taken a forward.
            let _elapsed = tokio::time::timeout(self.interval, self.wake.notified()).await;
        }
    }

    /// Goes through the outbox once, from the oldest row to the newest.
    async fn pass(&self, places: &[Arc<Semaphore>]) -> anyhow::Result<usize> {
        let mut after = Uuid::nil();
        let mut rows = 0;
        let mut stuck = HashSet::new();
        loop {
            let page = self.outbox.page(after, PAGE_ROWS_MAX).await?;
            let is_last = page.len() < PAGE_ROWS_MAX as usize;
            rows += page.len();
            for row in page {
                after = row.event.id;
                let lane = self.lanes.of_task(row.event.task_id);
                if stuck.contains(&lane) {
                    continue;
                }
                let place = Arc::clone(&places[lane as usize]).acquire_owned();
                let Ok(place) = tokio::time::timeout(PLACE_WAIT, place).await else {
                    stuck.insert(lane);
                    continue;
                };
                let companion = Companion { hold: Some(place?), receipt: None };
                self.lanes.offer(Offered { event: row.event, oldest: row.oldest, companion });
            }
            if is_last || stuck.len() == places.len() {
                return Ok(rows);
            }
        }
    }
}
