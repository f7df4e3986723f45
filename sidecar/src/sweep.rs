//! Publishes what nobody forwarded: goes through the outbox again and again and offers every row to
//! its lane. Rows that are on their way already are recognised there, so the sweep needs no memory of them.
//!
//! It does not begin at the very beginning each time: before the oldest row there may be a million that are
//! removed, and are in the index until a vacuum.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::{Builder, Uuid};

use crate::health::Health;
use crate::lanes::Lanes;
use crate::offered::{Companion, Offered, event_bytes};
use crate::outbox::{Outbox, Unpublished};

const PAGE_ROWS_MAX: u32 = 256;

/// Bytes of swept events in a lane at once: one batch that is under way and one that is next, by default. It bounds
/// the sweep's memory, and keeps a long backlog from standing in front of new events.
const IN_LANE_BYTES_MAX: u32 = 1024 * 1024;

/// How long the sweep waits for a place in a lane. Past it the lane's rows are left for the next pass,
/// so that a partition that takes nothing holds up nobody else's events.
const PLACE_WAIT: Duration = Duration::from_millis(500);

/// Every so many intervals a pass begins at the very beginning: for rows that were committed long after
/// their ids were made.
const WHOLE_PASS_INTERVALS: u32 = 30;

/// How long after it was made an id may appear in the outbox, and how far clocks may be apart, without
/// that the event waits for a whole pass.
const LATE_MAX: Duration = Duration::from_secs(30);

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
        let whole_pass_interval = self.interval * WHOLE_PASS_INTERVALS;
        let mut after = Uuid::nil();
        let mut whole_at = Instant::now();
        loop {
            let is_wanted = self.wake.is_whole.swap(false, Ordering::Relaxed);
            if is_wanted || whole_at.elapsed() >= whole_pass_interval {
                after = Uuid::nil();
            }
            let (began, began_at) = (SystemTime::now(), Instant::now());
            let result = self.pass(&places, after).await;
            if let Ok(swept) = &result {
                if after.is_nil() {
                    whole_at = began_at;
                }
                after = before(swept.oldest, began);
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

/// Where the next pass may begin: before everything that this one found, and before what was made
/// while it ran, or shortly before that. Ids are UUIDv7, so they begin with their time.
fn before(oldest: Option<Uuid>, began: SystemTime) -> Uuid {
    let since_1970 = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = since_1970.saturating_sub(LATE_MAX).as_millis() as u64;
    let made = Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
    match oldest {
        // A page begins after the id that it is asked for.
        Some(oldest) => made.min(Uuid::from_u128(oldest.as_u128().saturating_sub(1))),
        None => made,
    }
}

#[cfg(test)]
mod tests {
    use uuid::{NoContext, Timestamp};

    use super::*;

    #[test]
    fn the_next_pass_begins_before_what_was_found_and_what_may_come() {
        let now = 1_800_000_000;
        let id = |seconds| Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, 0));
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        let after = before(None, began);
        assert!(after < id(now - LATE_MAX.as_secs()) && after > id(now - LATE_MAX.as_secs() - 1));
        // What is there already and new does not make it any later, and what is old makes it earlier.
        assert_eq!(before(Some(id(now)), began), after);
        let old = id(now - 3_600);
        assert!(before(Some(old), began) < old && before(Some(old), began) > id(now - 3_601));
    }
}
