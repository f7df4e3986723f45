//! Publishes one lane. Outbox rows go only after the broker's ack: a crash in between costs a second
//! occurrence, never an event.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Result, ensure};
use contract::Event;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::health::Health;
use crate::kafka::{Kafka, Partition, Read};
use crate::lane::{BatchLimits, Lane, Offer, Offered};
use crate::outbox::Outbox;
use crate::read_back;
use crate::record;
use crate::removal::Published;
use crate::repair::Repair;

/// How often an idle lane asks its broker for a sign of life, so that readiness is the present state
/// and the broker does not close the connection as idle (connections.max.idle.ms, 10 minutes).
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Offsets without a record that reading back passes over in a row; then it fails, and begins anew from
/// the stored position.
const EMPTY_READS_MAX: u32 = 100;

/// After a failure a lane waits, at first this long, then twice as long each time, up to the maximum,
/// and for as long as it takes: its events have nowhere else to go.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

pub struct Publisher {
    pub topic: String,
    pub partition: u32,
    pub offers: mpsc::UnboundedReceiver<Offered>,
    pub removals: mpsc::Sender<Published>,
    pub kafka: Kafka,
    pub outbox: Outbox,
    pub repair: Repair,
    pub limits: BatchLimits,
    pub health: Health,
    pub closing: CancellationToken,
}

/// What a publisher knows of its partition.
#[derive(Default)]
struct Known {
    lane: Lane,
    /// There only while nothing of unknown fate can stand behind `next_offset`: connecting reads back.
    client: Option<Partition>,
    /// The offset up to which there is nothing of ours that the lane does not know of.
    next_offset: Option<i64>,
}

/// The name of a lane's health check.
pub fn check(partition: u32) -> String {
    format!("partition {partition}")
}

impl Publisher {
    /// Runs until it is told to close and has nothing left.
    pub async fn run(mut self) {
        let check = check(self.partition);
        let mut known = Known::default();
        let mut backoff = BACKOFF_MIN;
        loop {
            if known.client.is_some() {
                self.wait_for_work(&mut known.lane).await;
            }
            if known.lane.pending() == 0 && self.closing.is_cancelled() {
                return;
            }
            let result = self.step(&mut known).await;
            let is_news = self.health.note(&check, result.as_ref().err());
            match result {
                Ok(()) => {
                    if is_news {
                        info!(self.partition, "publishing again");
                    }
                    backoff = BACKOFF_MIN;
                }
                Err(error) => {
                    // A request of unknown fate may be under way on that connection; nothing of it is
                    // used again, and the partition is read back before anything else is published.
                    known.client = None;
                    if is_news {
                        let pending = known.lane.pending();
                        warn!(self.partition, pending, error = format!("{error:#}"), "not publishing");
                    }
                    self.meanwhile(&mut known.lane, tokio::time::sleep(backoff)).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Takes in what has arrived. Waits if there is nothing to do, but not forever.
    async fn wait_for_work(&mut self, lane: &mut Lane) {
        if lane.pending() == 0 {
            tokio::select! {
                Some(offered) = self.offers.recv() => self.take_in(lane, offered),
                () = self.closing.cancelled() => {}
                () = tokio::time::sleep(PROBE_INTERVAL) => {}
            }
        }
        while let Ok(offered) = self.offers.try_recv() {
            self.take_in(lane, offered);
        }
    }

    /// Makes sure of what is there, fills one gap and publishes one batch, whichever there is.
    async fn step(&mut self, known: &mut Known) -> Result<()> {
        let lane = &mut known.lane;
        let client = match &mut known.client {
            Some(client) => client,
            none => {
                let kafka = self.kafka.clone();
                let client = self.meanwhile(lane, kafka.partition(self.partition)).await?;
                known.next_offset = Some(self.read_back(lane, &client, known.next_offset).await?);
                none.insert(client)
            }
        };
        // What the last one brought goes first, so that a long backlog is in memory a page at a time.
        if lane.queued() < self.limits.events_max
            && let Some(mut gap) = lane.gap()
        {
            let outbox = self.outbox.clone();
            let backlog = self.meanwhile(lane, outbox.backlog(&mut gap)).await?;
            lane.fill(gap, backlog);
        }
        let batch = lane.next_batch(self.limits);
        if batch.is_empty() {
            self.meanwhile(lane, client.end()).await?;
            return Ok(());
        }
        let records = batch.iter().map(|offered| record::of_event(&offered.event)).collect();
        let offsets = match self.meanwhile(lane, client.produce(records)).await {
            Ok(offsets) => offsets,
            Err(error) => {
                lane.failed();
                return Err(error);
            }
        };
        let ids = lane.acked(&offsets);
        if let Some(last) = offsets.last() {
            known.next_offset = Some(last + 1);
            self.remove(lane, ids, last + 1).await;
        }
        Ok(())
    }

    /// Reads the partition from where it is known to its end, and drops what is there from the work to
    /// do, a fetch at a time however long the way is. Gives back the end.
    async fn read_back(&mut self, lane: &mut Lane, client: &Partition, known: Option<i64>) -> Result<i64> {
        let end = self.meanwhile(lane, client.end()).await?;
        let mut next_offset = match known {
            Some(offset) => offset,
            None => {
                let (outbox, topic) = (self.outbox.clone(), self.topic.clone());
                self.meanwhile(lane, outbox.position(&topic, self.partition, end)).await?
            }
        };
        let from = next_offset;
        let mut seen = 0;
        // The end may move on while we read, so what the fetch says of it counts. A position that is
        // beyond the end is not at it either: the topic was made anew.
        let mut end = end;
        let mut empty_reads = 0;
        while next_offset != end {
            match self.meanwhile(lane, client.read(next_offset)).await? {
                Read::Gone { earliest } => {
                    let partition = self.partition;
                    warn!(
                        partition,
                        next_offset, earliest, "the position is gone; events may be published twice"
                    );
                    // Stored at once: when the new topic has grown past it, the old position would hide the
                    // first of what is published from here on.
                    let (outbox, topic) = (self.outbox.clone(), self.topic.clone());
                    self.meanwhile(lane, outbox.reset_position(&topic, partition, earliest)).await?;
                    next_offset = earliest;
                    end = end.max(earliest);
                }
                Read::Records(records, newest) => {
                    let found = read_back::events(&records);
                    seen += found.ids.len();
                    lane.seen(&found.newest);
                    // A fetch without records stands before what is no record, such as a marker, or before
                    // a transaction of another producer that is still open.
                    empty_reads = if records.is_empty() { empty_reads + 1 } else { 0 };
                    ensure!(
                        empty_reads <= EMPTY_READS_MAX,
                        "nothing to be read from offset {next_offset} on"
                    );
                    next_offset = records.last().map_or(next_offset, |last| last.offset) + 1;
                    end = newest;
                    self.remove(lane, found.ids, next_offset).await;
                }
            }
        }
        if seen > 0 {
            info!(
                self.partition,
                from, next_offset, seen, "read back: these events are on the topic already"
            );
        }
        Ok(next_offset)
    }

    /// Waits when the database is behind: nothing more is published until rows can go again.
    async fn remove(&mut self, lane: &mut Lane, ids: Vec<Uuid>, next_offset: i64) {
        let published = Published { ids, partition: self.partition, next_offset };
        // The receiver outlives the lanes.
        let removals = self.removals.clone();
        let _: Result<(), _> = self.meanwhile(lane, removals.send(published)).await;
    }

    /// Awaits `work`, and takes in what arrives meanwhile.
    async fn meanwhile<T>(&mut self, lane: &mut Lane, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(offered) = self.offers.recv() => self.take_in(lane, offered),
            }
        }
    }

    fn take_in(&self, lane: &mut Lane, offered: Offered) {
        let Event { task_id, cache_stale, .. } = offered.event;
        match lane.offer(offered) {
            // News that came from the sweep: nobody forwarded the event, and whether the cache was
            // told of the change is not known either.
            Offer::Queued | Offer::Held if cache_stale => self.repair.request(task_id),
            Offer::Queued | Offer::Held | Offer::Duplicate => {}
        }
    }
}
