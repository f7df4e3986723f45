//! Publishes what nobody forwarded: goes through the outbox again and again and offers every row to
//! its lane. Rows that are on their way already are recognised there, so the sweep needs no memory of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::health::Health;
use crate::lanes::Lanes;
use crate::offered::{Companion, Offered, event_bytes};
use crate::outbox::{Oldest, Outbox, Unpublished, Unreadable};

/// PostgreSQL sends a page while the rows before are offered, and keeps its snapshot until the last one is sent: the more
/// there are, the less there is to wait for between pages, and the longer others' dead rows stay.
const PAGE_ROWS_MAX: u32 = 2_048;

/// Bytes of swept events in all lanes at once. It bounds the sweep's memory, and keeps a long backlog from standing in front
/// of new events.
const IN_LANES_BYTES: u32 = 9 * 1024 * 1024;

/// Of them in one lane: by default one batch that is under way and more than the next one. With less, lanes stand still
/// while the sweep waits for a place in the slowest of them.
const IN_LANE_BYTES_MAX: u32 = 3 * 1024 * 1024;
const IN_LANE_BYTES_MIN: u32 = 256 * 1024;

/// How long a pass waits in vain for places in lanes, all of them together. A lane that gives none
/// has its rows left for the next pass, so that partitions that take nothing hold up nobody else's
/// events, however many they are.
const VAIN_WAIT_MAX: Duration = Duration::from_millis(500);

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
        let places = Places::new(self.lanes.count());
        let mut oldest = Oldest::new(self.interval * WHOLE_PASS_INTERVALS);
        let mut left = Left::default();
        loop {
            let look = oldest.look(self.wake.is_whole.swap(false, Ordering::Relaxed));
            if look.after.is_nil() {
                // Every row is looked at, but those lanes that take nothing are known.
                left.swept_to = Uuid::nil();
            }
            let result = self.pass(&places, look.after, &mut left).await.map(|swept| {
                oldest.note(&look, swept.oldest);
                left.swept_to = look.settled();
                swept.rows
            });
            let is_news = self.health.note("sweep", result.as_ref().err());
            match result {
                Ok(_) if is_news => info!("sweeping the outbox again"),
                Ok(0) => {}
                Ok(rows) => debug!(rows, "swept"),
                Err(error) if is_news => warn!(error = format!("{error:#}"), "cannot sweep the outbox"),
                Err(_) => {}
            }
            // Whichever comes first: the next turn, or a standby that has taken a forward.
            let _elapsed = tokio::time::timeout(self.interval, self.wake.requested.notified()).await;
        }
    }

    /// Goes through the outbox once, from the oldest row after `after` to the newest, and leaves the rows of those lanes
    /// that take nothing.
    async fn pass(&self, places: &Places, mut after: Uuid, left: &mut Left) -> anyhow::Result<Swept> {
        let mut swept = Swept::default();
        let mut stuck = left.without_room(places);
        let mut patience = Patience::default();
        loop {
            if left.is_still(&stuck) && left.swept_to > after {
                swept.oldest = swept.oldest.or(Some(after));
                after = left.swept_to;
            }
            if stuck.len() == places.lanes.len() {
                // Nothing is known of the rows from here on.
                swept.oldest = swept.oldest.or(Some(after));
                left.lanes = stuck;
                return Ok(swept);
            }
            let mut page = self.outbox.page(after, PAGE_ROWS_MAX).await?;
            let mut rows = 0;
            while let Some(row) = page.next().await? {
                rows += 1;
                after = row.as_ref().map_or_else(|unreadable| unreadable.event_id, |row| row.event.id);
                match row {
                    Ok(row) => {
                        swept.oldest = swept.oldest.or(Some(after));
                        self.offer(row, places, &mut patience, &mut stuck).await;
                    }
                    Err(unreadable) => self.park(unreadable).await?,
                }
                if stuck.len() == places.lanes.len() {
                    break;
                }
            }
            swept.rows += rows as usize;
            if rows < PAGE_ROWS_MAX {
                left.lanes = stuck;
                return Ok(swept);
            }
        }
    }

    /// Whoever comes after it is not to wait for somebody to mend it.
    async fn park(&self, Unreadable { event_id, reason }: Unreadable) -> anyhow::Result<()> {
        self.outbox.park(event_id, &reason).await?;
        error!(%event_id, reason, "a row of the outbox is no event: it is parked");
        Ok(())
    }

    /// Offers a row to its lane, unless that is `stuck`, or turns out to be.
    async fn offer(
        &self,
        Unpublished { event, oldest, seq }: Unpublished,
        places: &Places,
        patience: &mut Patience,
        stuck: &mut HashSet<u32>,
    ) {
        let lane = self.lanes.of_task(event.task_id);
        if stuck.contains(&lane) {
            return;
        }
        match places.take(lane, event_bytes(&event), patience).await {
            Some(place) => {
                let companion = Companion { hold: Some(place), receipt: None };
                self.lanes.offer(lane, Offered { event, oldest, seq: Some(seq), companion });
            }
            None => {
                stuck.insert(lane);
            }
        }
    }
}

/// Room in the lanes for what the sweep finds.
struct Places {
    in_lane_bytes: u32,
    lanes: Vec<Arc<Semaphore>>,
}

impl Places {
    fn new(lanes: usize) -> Places {
        let share = IN_LANES_BYTES / u32::try_from(lanes).unwrap_or(u32::MAX).max(1);
        let in_lane_bytes = share.clamp(IN_LANE_BYTES_MIN, IN_LANE_BYTES_MAX);
        let lanes = (0..lanes).map(|_| Arc::new(Semaphore::new(in_lane_bytes as usize))).collect();
        Places { in_lane_bytes, lanes }
    }

    /// For more than what may be on its way to a lane that takes nothing.
    fn has_room(&self, lane: u32) -> bool {
        self.lanes[lane as usize].available_permits() > self.in_lane_bytes as usize / 2
    }

    /// Waits until there is room for so many bytes in a lane, as long as there is patience; what is
    /// larger than a lane waits until that is empty.
    async fn take(&self, lane: u32, bytes: usize, patience: &mut Patience) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.in_lane_bytes);
        let lane = &self.lanes[lane as usize];
        if let Ok(place) = Arc::clone(lane).try_acquire_many_owned(bytes) {
            return Some(place);
        }
        let wait = patience.next();
        let place = tokio::time::timeout(wait, Arc::clone(lane).acquire_many_owned(bytes)).await;
        if place.is_err() {
            patience.lose(wait);
        }
        place.ok()?.ok()
    }
}

/// What a pass may still wait in vain.
struct Patience {
    left: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { left: VAIN_WAIT_MAX }
    }
}

impl Patience {
    /// For the next lane that is full. A wait that ends with a place costs nothing, so lanes that
    /// take something are waited for; each one in vain leaves half for the lanes after it.
    fn next(&self) -> Duration {
        self.left / 2
    }

    /// So long was in vain.
    fn lose(&mut self, wait: Duration) {
        self.left = self.left.saturating_sub(wait);
    }
}

/// What a pass came by.
#[derive(Default)]
struct Swept {
    rows: usize,
    oldest: Option<Uuid>,
}

/// What the passes before left to others, so that the backlog of a partition that takes nothing is not read again by each.
#[derive(Default)]
struct Left {
    lanes: HashSet<u32>,
    /// All other lanes have been offered what is older.
    swept_to: Uuid,
}

impl Left {
    /// What is older than `swept_to` was left by lanes that are all stuck again.
    fn is_still(&self, stuck: &HashSet<u32>) -> bool {
        !self.lanes.is_empty() && self.lanes.is_subset(stuck)
    }

    /// Those of the lanes that still take nothing.
    fn without_room(&self, places: &Places) -> HashSet<u32> {
        self.lanes.iter().copied().filter(|lane| !places.has_room(*lane)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_lane_without_room_left_is_passed_over_until_it_has_some() {
        let places = Places::new(3);
        let left = Left { lanes: HashSet::from([0, 2]), swept_to: Uuid::max() };
        let most = places.in_lane_bytes as usize * 2 / 3;
        let mut patience = Patience::default();
        let [first, third] =
            [places.take(0, most, &mut patience).await, places.take(2, most, &mut patience).await];
        let stuck = left.without_room(&places);
        assert!(left.is_still(&stuck) && stuck == HashSet::from([0, 2]));
        drop(first);
        let stuck = left.without_room(&places);
        assert!(!left.is_still(&stuck) && stuck == HashSet::from([2]));
        drop(third);
        assert!(left.without_room(&places).is_empty());
        // Nothing was left: everything is looked at.
        assert!(!Left::default().is_still(&HashSet::new()));
    }

    #[tokio::test]
    async fn lanes_that_take_nothing_cost_a_pass_one_wait_together() {
        let places = Places::new(100);
        let mut patience = Patience::default();
        let mut full = Vec::new();
        for lane in 0..80 {
            full.push(places.take(lane, usize::MAX, &mut patience).await.unwrap());
        }
        let mut waited = Duration::ZERO;
        for lane in 0..80 {
            waited += patience.next();
            assert!(places.take(lane, 1, &mut patience).await.is_none());
        }
        assert!(waited <= VAIN_WAIT_MAX, "{waited:?}");
        for lane in 80..100 {
            assert!(places.take(lane, 1, &mut patience).await.is_some());
        }
    }

    #[tokio::test]
    async fn a_lane_that_takes_something_costs_no_patience() {
        let places = Places::new(1);
        let mut patience = Patience::default();
        for _ in 0..20 {
            let place = places.take(0, usize::MAX, &mut patience).await.unwrap();
            let (next, ()) = tokio::join!(places.take(0, 1, &mut patience), async {
                tokio::task::yield_now().await;
                drop(place);
            });
            assert!(next.is_some());
        }
        assert_eq!(patience.left, VAIN_WAIT_MAX);
    }

    #[test]
    fn a_lane_has_its_share_of_the_memory_for_swept_events() {
        for (lanes, in_lane_bytes) in [
            (1, IN_LANE_BYTES_MAX),
            (3, IN_LANE_BYTES_MAX),
            (9, IN_LANES_BYTES / 9),
            (100, IN_LANE_BYTES_MIN),
        ] {
            assert_eq!(Places::new(lanes).in_lane_bytes, in_lane_bytes, "of {lanes}");
        }
    }
}
