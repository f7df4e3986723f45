//! Does what a lane wants done. Outbox rows go only after the broker's ack, or when reading back has shown
//! the event on the partition: a crash in between costs reading back, never an event.
//!
//! Retries: a lane repeats what failed for ever, after 100 ms at first and at most 2 s later. Only
//! progress ends the growth of that wait: records read, a batch answered, or an idle lane's broker
//! answering. A failure is logged once, until there is progress.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use chrono::Utc;
use contract::Event;
use rskafka::record::Record;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::health::Health;
use crate::kafka::{Kafka, Partition, Produced};
use crate::lane::{BatchLimits, Lane, Next, Offer, Published, Refused, Start};
use crate::leader::Lock;
use crate::metrics::{Metrics, SendError};
use crate::offered::Offered;
use crate::outbox::Outbox;
use crate::read_back::{Progress, ReadBack, TRANSACTION_INTERVAL};
use crate::record::{self, Naming};
use crate::removal::Ack;
use crate::repair::Repair;

/// How often an idle lane asks its broker for a sign of life, so that readiness is the present state
/// and the broker does not close the connection as idle (connections.max.idle.ms, 10 minutes).
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// After a failure a lane waits, at first this long, then twice as long each time, up to the maximum,
/// and for as long as it takes: its events have nowhere else to go.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

pub struct Publisher {
    pub topic: String,
    pub partition: u32,
    /// What the lane knows at its start.
    pub start: Start,
    pub offers: mpsc::UnboundedReceiver<Offered>,
    pub removals: mpsc::Sender<Ack>,
    pub lock: Lock,
    /// Where reading back begins, as it was stored before any row was read; none if the partition is new to this database.
    pub position: Option<i64>,
    pub kafka: Kafka,
    pub naming: Naming,
    pub outbox: Outbox,
    pub repair: Repair,
    pub limits: BatchLimits,
    /// Between the beginnings of two batches, unless the second one is full.
    pub linger: Duration,
    pub health: Health,
    pub metrics: Metrics,
    pub closing: CancellationToken,
    pub read_back: ReadBack,
    /// How long an event of unknown fate waits for a new one that proves what the partition holds.
    pub replication_wait: Duration,
    pub state: State,
}

/// What a publisher keeps beside its lane.
#[derive(Default)]
pub struct State {
    /// Before then a batch goes only if it is full.
    linger_until: Option<Instant>,
    /// Until then events of unknown fate wait for a new one.
    doubt_until: Option<Instant>,
    /// The broker does not take the times of changes as timestamps.
    stamps_publication: bool,
    /// Acks whose rows are removed.
    removed: Arc<AtomicU64>,
}

/// Whether a step has brought the lane further.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Progress,
    /// A step on the way, which the next one may turn out to have been in vain.
    Attempt,
}

/// The name of a lane's health check.
pub fn check(partition: u32) -> String {
    format!("partition {partition}")
}

/// Whether a health check is a lane's.
pub fn is_check(name: &str) -> bool {
    name.starts_with("partition ")
}

impl Publisher {
    /// Runs until it is told to close and has nothing left.
    pub async fn run(mut self) {
        let check = check(self.partition);
        let mut lane = Lane::new(self.start);
        self.state.doubt_until = Some(Instant::now() + self.replication_wait);
        let mut client = None;
        let mut backoff = BACKOFF_MIN;
        loop {
            if client.is_some() {
                self.wait_for_work(&mut lane).await;
                self.linger(&mut lane).await;
            }
            if lane.pending() == 0 && self.closing.is_cancelled() {
                return;
            }
            self.metrics.note_pending(self.partition, lane.pending());
            lane.note_removed(self.state.removed.load(Ordering::Acquire));
            let result = self.step(&mut lane, &mut client).await;
            self.metrics.note_pending(self.partition, lane.pending());
            let partition = self.partition;
            match result {
                Ok(Step::Progress) => {
                    if self.health.note(&check, None) {
                        info!(partition, "publishing again");
                    }
                    backoff = BACKOFF_MIN;
                }
                Ok(Step::Attempt) => {}
                Err(error) => {
                    // A request of unknown fate may be under way on that connection; nothing of it is
                    // used again.
                    client = None;
                    lane.failed();
                    if self.health.note(&check, Some(&error)) {
                        let pending = lane.pending();
                        let error = format!("{error:#}");
                        warn!(partition, pending, error, "not publishing, and trying again");
                    }
                    self.meanwhile(&mut lane, tokio::time::sleep(backoff)).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Takes in what has arrived. Waits if there is nothing to do, but not forever.
    async fn wait_for_work(&mut self, lane: &mut Lane) {
        if lane.is_idle() {
            tokio::select! {
                Some(offered) = self.offers.recv() => self.take_in(lane, offered),
                () = self.closing.cancelled() => {}
                () = tokio::time::sleep(PROBE_INTERVAL) => {}
            }
        }
        self.take_in_all(lane);
    }

    /// Lets events gather when the last batch began only just now: a request for each few of them costs the broker more
    /// than they do. One that comes after a pause does not wait.
    async fn linger(&mut self, lane: &mut Lane) {
        while let Some(until) = self.state.linger_until
            && Instant::now() < until
            && !lane.has_full_batch(self.limits)
            && !self.closing.is_cancelled()
        {
            tokio::select! {
                Some(offered) = self.offers.recv() => self.take_in(lane, offered),
                () = self.closing.cancelled() => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
            self.take_in_all(lane);
        }
    }

    /// Does the one thing that the lane wants done.
    async fn step(&mut self, lane: &mut Lane, client: &mut Option<Partition>) -> Result<Step> {
        match (lane.next(self.limits), client) {
            (Next::Load(mut gap), _) => {
                let outbox = self.outbox.clone();
                let backlog = self.meanwhile(lane, outbox.backlog(&mut gap)).await?;
                lane.fill(gap, backlog);
                Ok(Step::Attempt)
            }
            (Next::Park(refused), _) => {
                let outbox = self.outbox.clone();
                self.meanwhile(lane, outbox.park(refused.event_id, &refused.reason)).await?;
                lane.parked();
                let partition = self.partition;
                let Refused { event_id, task_id, version, reason } = refused;
                error!(
                    partition, %event_id, %task_id, version, reason,
                    "the broker refuses an event: it is parked"
                );
                Ok(Step::Attempt)
            }
            (Next::Connect { from }, client) => self.connect(lane, client, from).await,
            (Next::Read { from }, Some(client)) => self.read_on(lane, client, from).await,
            (Next::Publish, Some(client)) => self.publish(lane, client).await,
            (Next::Prove, Some(client)) => self.prove(lane, client).await,
            (Next::Idle, Some(client)) => {
                let end = self.meanwhile(lane, client.stable_end()).await?;
                if let Some(looked) = lane.looked(end) {
                    self.remove(lane, looked).await;
                }
                Ok(Step::Progress)
            }
            (Next::Read { .. } | Next::Publish | Next::Prove | Next::Idle, None) => {
                bail!("not connected")
            }
        }
    }

    /// Connects, and finds out whether there is something to be read back.
    async fn connect(
        &mut self,
        lane: &mut Lane,
        client: &mut Option<Partition>,
        from: Option<i64>,
    ) -> Result<Step> {
        let (kafka, outbox, topic) = (self.kafka.clone(), self.outbox.clone(), self.topic.clone());
        let partition = self.partition;
        let from = from.or(self.position);
        let connect = async {
            let client = kafka.partition(partition).await?;
            let end = client.end().await?;
            let from = match from {
                Some(offset) => offset,
                None => outbox.position(&topic, partition, end).await?,
            };
            anyhow::Ok((client, from, end))
        };
        let (connected, from, end) = self.meanwhile(lane, connect).await?;
        if from != end {
            debug!(partition, from, end, "reading back what is on the topic already");
        }
        *client = Some(connected);
        lane.connected(from, end);
        Ok(Step::Attempt)
    }

    /// Reads on, a fetch at a time however long the way is, and drops what is found from the work to do.
    async fn read_on(&mut self, lane: &mut Lane, client: &Partition, from: i64) -> Result<Step> {
        let read = self.meanwhile(lane, client.read(from)).await?;
        let (found, next_offset, end) = match self.read_back.judge(from, read) {
            Progress::Found { found, next_offset, end } => (found, next_offset, end),
            Progress::Wait => {
                self.meanwhile(lane, tokio::time::sleep(TRANSACTION_INTERVAL)).await;
                return Ok(Step::Attempt);
            }
            Progress::Gone { earliest } => {
                let partition = self.partition;
                warn!(partition, from, earliest, "the position is gone; events may be published twice");
                // Stored at once: when a topic that was made anew has grown past it, the old position would
                // hide the first of what is published from here on.
                let (outbox, topic) = (self.outbox.clone(), self.topic.clone());
                let known = [(partition, earliest)].into();
                self.meanwhile(lane, outbox.remove(&topic, &[], &known)).await?;
                lane.gone(earliest);
                return Ok(Step::Attempt);
            }
        };
        let published = lane.read(&found, next_offset, end);
        self.remove(lane, published).await;
        Ok(if next_offset > from { Step::Progress } else { Step::Attempt })
    }

    async fn publish(&mut self, lane: &mut Lane, client: &Partition) -> Result<Step> {
        let mut lock = self.lock.clone();
        self.meanwhile(lane, lock.is_ours()).await;
        let now = Utc::now();
        let stamps_publication = self.state.stamps_publication;
        let record = |offered: &Offered| {
            let record = record::of_event(&offered.event, &self.naming, now);
            if stamps_publication { Record { timestamp: now, ..record } } else { record }
        };
        let records = lane.batch().iter().map(record).collect();
        let started = Instant::now();
        self.state.linger_until = Some(started + self.linger);
        let produced = self.meanwhile(lane, client.produce(records)).await;
        let error_type = match &produced {
            Ok(Produced::Acked(_)) => None,
            Ok(Produced::Refused(_) | Produced::BadTimestamp) => Some(SendError::refused),
            Err(_) => Some(SendError::unknown),
        };
        self.metrics.note_send(self.partition, started.elapsed(), error_type);
        if produced.is_err() {
            self.state.doubt_until = Some(Instant::now() + self.replication_wait);
        }
        match produced? {
            Produced::Acked(offsets) => {
                let now = Utc::now();
                let delays = lane.batch().iter().map(|offered| now - offered.event.time);
                // Clocks may differ, but nothing is published before it happens.
                let delays = delays.map(|delay| delay.to_std().unwrap_or_default());
                self.metrics.note_acked(self.partition, delays);
                let published = lane.acked(&offsets);
                self.remove(lane, published).await;
            }
            Produced::Refused(reason) => lane.refused(reason),
            Produced::BadTimestamp => {
                lane.not_taken();
                if std::mem::replace(&mut self.state.stamps_publication, true) {
                    bail!(
                        "the broker does not take the present time as a timestamp: set its clock or \
                         this host's"
                    );
                }
                info!(
                    partition = self.partition,
                    "the broker does not take the times of changes: records get the time of publication"
                );
                return Ok(Step::Attempt);
            }
        }
        Ok(Step::Progress)
    }

    /// Waits for an event that nobody can have sent before. Without one for too long, what cannot be
    /// read by then is sent again: a follower that lags for longer is out of the in-sync replicas.
    async fn prove(&mut self, lane: &mut Lane, client: &Partition) -> Result<Step> {
        let until = self.state.doubt_until.unwrap_or_else(Instant::now);
        if Instant::now() < until && !self.closing.is_cancelled() {
            let until = until.min(Instant::now() + PROBE_INTERVAL);
            let end = self.meanwhile(lane, client.stable_end()).await?;
            debug!(partition = self.partition, end, "waiting for an event that is surely new");
            // The broker answers, and the events wait on purpose: the lane is ready.
            self.health.note(&check(self.partition), None);
            tokio::select! {
                Some(offered) = self.offers.recv() => self.take_in(lane, offered),
                () = self.closing.cancelled() => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
            self.take_in_all(lane);
            return Ok(Step::Attempt);
        }
        if self.closing.is_cancelled() {
            // They are in the outbox, and the next sidecar finds out what became of them.
            pending::<()>().await;
        }
        let end = self.meanwhile(lane, client.end()).await?;
        lane.waived(end);
        Ok(Step::Attempt)
    }

    /// Waits when the database is behind: nothing more is published until rows can go again.
    async fn remove(&mut self, lane: &mut Lane, published: Published) {
        // The receiver outlives the lanes.
        let removals = self.removals.clone();
        let removed = Arc::clone(&self.state.removed);
        let ack = Ack { partition: self.partition, published, removed };
        let _: Result<(), _> = self.meanwhile(lane, removals.send(ack)).await;
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

    /// Takes in what has arrived.
    fn take_in_all(&mut self, lane: &mut Lane) {
        while let Ok(offered) = self.offers.try_recv() {
            self.take_in(lane, offered);
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
