//! Publishes what nobody forwarded: goes through the outbox again and again and offers every row to
//! its lane. Rows that are on their way already are recognised there, so the sweep needs no memory of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::health::Health;
use crate::lanes::Lanes;
use crate::offered::{Companion, Offered, event_bytes};
use crate::outbox::{Oldest, Outbox, Unpublished};

const PAGE_ROWS_MAX: u32 = 256;

/// Bytes of swept events in a lane at once: by default one batch that is under way and three that are next. It bounds the
/// sweep's memory, and keeps a long backlog from standing in front of new events. With half of it the lanes stand still
/// while the sweep waits for a place in the slowest of them.
const IN_LANE_BYTES_MAX: u32 = 2 * 1024 * 1024;

/// How long the sweep waits for a place in a lane. Past it the lane's rows are left for the next pass,
/// so that a partition that takes nothing holds up nobody else's events.
const PLACE_WAIT: Duration = Duration::from_millis(500);

/// Every so many intervals a pass begins at the very beginning.
const WHOLE_PASS_INTERVALS: u32 = 30;

/// Asks for a pass before its time.
#[derive(Default)]
pub struct Wake {
    requested: Notify,
    is_whole: AtomicBool,
}

impl Wake {
    /// For events that are new.
    pub fn request(&self) {
        self.requested.notify_one();
    }

    /// From the very beginning, for events that are old.
    pub fn request_whole(&self) {
        self.is_whole.store(true, Ordering::Relaxed);
        self.requested.notify_one();
    }
}

pub struct Sweep {
    pub outbox: Outbox,
    pub lanes: Arc<Lanes>,
    pub health: Health,
    pub interval: Duration,
    pub wake: Arc<Wake>,
    pub closing: CancellationToken,
}

impl Sweep {
    /// Runs until it is told to close.
    pub async fn run(self) {
        self.closing.run_until_cancelled(self.run_forever()).await;
    }

    async fn run_forever(&self) {
        let places: Vec<_> =
            (0..self.lanes.count()).map(|_| Arc::new(Semaphore::new(IN_LANE_BYTES_MAX as usize))).collect();
        let mut oldest = Oldest::new(self.interval * WHOLE_PASS_INTERVALS);
        loop {
            let look = oldest.look(self.wake.is_whole.swap(false, Ordering::Relaxed));
            let result = self.pass(&places, look.after).await;
            if let Ok(swept) = &result {
                oldest.note(&look, swept.oldest);
            }
            let is_news = self.health.note("sweep", result.as_ref().err());
            match result {
                Ok(_) if is_news => info!("sweeping the outbox again"),
                Ok(Swept { rows: 0, .. }) => {}
                Ok(Swept { rows, .. }) => debug!(rows, "swept"),
                Err(error) if is_news => warn!(error = format!("{error:#}"), "cannot sweep the outbox"),
                Err(_) => {}
            }
            // Whichever comes first: the next turn, or a standby that has taken a forward.
            let _elapsed = tokio::time::timeout(self.interval, self.wake.requested.notified()).await;
        }
    }

    /// Goes through the outbox once, from the oldest row after `after` to the newest. While the rows of a page are
    /// offered the next page is being read.
    async fn pass(&self, places: &[Arc<Semaphore>], after: Uuid) -> anyhow::Result<Swept> {
        let mut swept = Swept::default();
        let mut stuck = HashSet::new();
        let mut page = self.outbox.page(after, PAGE_ROWS_MAX).await?;
        loop {
            swept.rows += page.len();
            swept.oldest = swept.oldest.or(page.first().map(|row| row.event.id));
            let last = page.last().filter(|_| page.len() == PAGE_ROWS_MAX as usize).map(|last| last.event.id);
            let next = async {
                match last {
                    Some(last) => self.outbox.page(last, PAGE_ROWS_MAX).await.map(Some),
                    None => Ok(None),
                }
            };
            let (next, offered) = tokio::join!(next, self.offer(page, places, &mut stuck));
            offered?;
            match next? {
                Some(next) if stuck.len() < places.len() => page = next,
                _ => return Ok(swept),
            }
        }
    }

    /// Offers rows to their lanes, but for those that are `stuck`, or turn out to be.
    async fn offer(
        &self,
        page: Vec<Unpublished>,
        places: &[Arc<Semaphore>],
        stuck: &mut HashSet<u32>,
    ) -> anyhow::Result<()> {
        for Unpublished { event, oldest } in page {
            let lane = self.lanes.of_task(event.task_id);
            if stuck.contains(&lane) {
                continue;
            }
            let bytes = u32::try_from(event_bytes(&event)).unwrap_or(u32::MAX).min(IN_LANE_BYTES_MAX);
            let place = Arc::clone(&places[lane as usize]).acquire_many_owned(bytes);
            let Ok(place) = tokio::time::timeout(PLACE_WAIT, place).await else {
                stuck.insert(lane);
                continue;
            };
            let companion = Companion { hold: Some(place?), receipt: None };
            self.lanes.offer(Offered { event, oldest, companion });
        }
        Ok(())
    }
}

/// What a pass came by.
#[derive(Default)]
struct Swept {
    rows: usize,
    oldest: Option<Uuid>,
}
