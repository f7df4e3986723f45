//! Publishes one lane. Outbox rows go only after the broker's ack: a crash in between costs a second
//! occurrence, never an event.

use std::time::Duration;

use contract::Event;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::health::Health;
use crate::kafka::{Kafka, Partition};
use crate::lane::{BatchLimits, Lane, Offered};
use crate::outbox::Outbox;

/// How often an idle lane asks its broker for a sign of life, so that readiness is the present state
/// and the broker does not close the connection as idle (connections.max.idle.ms, 10 minutes).
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// After a failure a lane waits, at first this long, then twice as long each time, up to the maximum,
/// and for as long as it takes: its events have nowhere else to go.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

pub struct Publisher {
    pub partition: u32,
    pub offers: mpsc::UnboundedReceiver<Offered>,
    pub removals: mpsc::Sender<Vec<Uuid>>,
    pub kafka: Kafka,
    pub outbox: Outbox,
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
            self.take_in(&mut lane).await;
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
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Takes in all that has arrived. Waits if there is nothing to do, but not forever.
    async fn take_in(&mut self, lane: &mut Lane) {
        if lane.pending() == 0 {
            tokio::select! {
                offered = self.offers.recv() => {
                    if let Some(offered) = offered {
                        lane.offer(offered);
                    }
                }
                () = self.closing.cancelled() => {}
                () = tokio::time::sleep(PROBE_INTERVAL) => {}
            }
        }
        while let Ok(offered) = self.offers.try_recv() {
            lane.offer(offered);
        }
    }

    /// Fills one gap and publishes one batch, whichever there is.
    async fn step(&self, lane: &mut Lane, client: &mut Option<Partition>) -> anyhow::Result<()> {
        if let Some(mut gap) = lane.gap() {
            let backlog = self.outbox.backlog(&mut gap).await?;
            lane.fill(gap, backlog);
        }
        let client = match client {
            Some(client) => client,
            None => client.insert(self.kafka.partition(self.partition).await?),
        };
        if lane.pending() == 0 {
            return client.probe().await;
        }
        let batch = lane.next_batch(self.limits);
        if batch.is_empty() {
            return Ok(());
        }
        let events = batch.iter().map(|offered| -> &Event { &offered.event });
        match client.produce(events).await {
            Ok(()) => {
                let acked = lane.acked();
                // Waits when the database is behind; nothing is published then that cannot be removed.
                // The receiver outlives the lanes.
                let _: Result<(), _> = self.removals.send(acked).await;
                Ok(())
            }
            Err(error) => {
                lane.failed();
                Err(error)
            }
        }
    }
}
