//! Publishes one lane. Outbox rows go only after the broker's ack: a crash in between costs a second
//! occurrence, never an event.

use std::pin::pin;
use std::time::Duration;

use anyhow::Result;
use contract::{Event, Receipt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::health::Health;
use crate::kafka::{Kafka, Partition};
use crate::lane::{BatchLimits, Lane, Offer, Offered};
use crate::outbox::Outbox;
use crate::record;
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
    pub offers: mpsc::UnboundedReceiver<Offered>,
    pub removals: mpsc::Sender<Vec<Uuid>>,
    pub kafka: Kafka,
    pub outbox: Outbox,
    pub repair: Repair,
    pub limits: BatchLimits,
    pub health: Health,
    pub closing: CancellationToken,
}

impl Publisher {
    /// Runs until it is told to close and has nothing left.
    pub async fn run(mut self) {
        let check = format!("partition {}", self.partition);
        let mut lane = Lane::default();
        let mut client = None;
        let mut backoff = BACKOFF_MIN;
        loop {
            self.wait_for_work(&mut lane).await;
            if lane.pending() == 0 && self.closing.is_cancelled() {
                return;
            }
            let result = self.step(&mut lane, &mut client).await;
            let is_news = self.health.note(&check, &result);
            match result {
                Ok(()) => {
                    if is_news {
                        info!(self.partition, "publishing again");
                    }
                    backoff = BACKOFF_MIN;
                }
                Err(error) => {
                    // A request of unknown fate may be under way on that connection; nothing of it is
                    // used again.
                    client = None;
                    if is_news {
                        let pending = lane.pending();
                        warn!(self.partition, pending, error = format!("{error:#}"), "not publishing");
                    }
                    self.meanwhile(&mut lane, tokio::time::sleep(backoff)).await;
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

    /// Fills one gap and publishes one batch, whichever there is.
    async fn step(&mut self, lane: &mut Lane, client: &mut Option<Partition>) -> Result<()> {
        if let Some(mut gap) = lane.gap() {
            let outbox = self.outbox.clone();
            let backlog = self.meanwhile(lane, outbox.backlog(&mut gap)).await?;
            lane.fill(gap, backlog);
        }
        let client = match client {
            Some(client) => client,
            None => {
                let kafka = self.kafka.clone();
                client.insert(self.meanwhile(lane, kafka.partition(self.partition)).await?)
            }
        };
        let batch = lane.next_batch(self.limits);
        if batch.is_empty() {
            return self.meanwhile(lane, client.probe()).await;
        }
        let records = batch.iter().map(|offered| record::of_event(&offered.event)).collect();
        let offsets = match self.meanwhile(lane, client.produce(records)).await {
            Ok(offsets) => offsets,
            Err(error) => {
                lane.failed();
                return Err(error);
            }
        };
        let mut published = Vec::with_capacity(offsets.len());
        for (offered, offset) in lane.acked().into_iter().zip(offsets) {
            let event_id = offered.event.id;
            published.push(event_id);
            if let Some(waiting) = offered.companion.receipt {
                let (topic, partition) = (self.topic.clone(), self.partition);
                // Nobody waits any more when the wait was too short.
                let _: Result<(), _> = waiting.send(Receipt { event_id, topic, partition, offset });
            }
        }
        // Waits when the database is behind: nothing more is published until rows can go again. The
        // receiver outlives the lanes.
        let removals = self.removals.clone();
        let _: Result<(), _> = self.meanwhile(lane, removals.send(published)).await;
        Ok(())
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
