//! Over which partitions the events are placed, now and when the topic changes.
//!
//! ```text
//! term over 3 ── watch: there are 6 ──▶ drain ──▶ settle: read back the 3, store the layout ──▶ term over 6
//! ```
//!
//! Invariant: before an event is placed by another number of partitions, every record that the number before may have placed
//! has been read back. So no event is published a second time in another partition, whatever crashes in between.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::health::Health;
use crate::kafka::{Kafka, Partition};
use crate::layout::Layout;
use crate::outbox::Outbox;
use crate::publisher;
use crate::read_back::{Progress, ReadBack, TRANSACTION_INTERVAL};

/// How soon the topic is looked at again while a lane fails, or when it seems to be gone.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How the topic differs from what a term has begun with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// It has more partitions.
    Grown(u32),
    /// It is gone, or there is another one with fewer partitions.
    MadeAnew,
}

pub struct Topology {
    pub kafka: Kafka,
    pub outbox: Outbox,
    pub topic: String,
    pub health: Health,
    /// How old what is known of the topic may be.
    pub max_age: Duration,
    /// How long another producer's open transaction is waited for before events of unknown fate may be published twice.
    pub transaction_wait: Duration,
}

/// What is to be read back of a partition before the change.
struct Piece {
    client: Partition,
    partition: u32,
    from: i64,
    end: i64,
}

impl Topology {
    /// The number of partitions to publish over. The topic is created if it is missing. While Kafka does not answer, the number
    /// that is stored stays; while an old partition cannot be read back, too.
    ///
    /// # Errors
    /// When the outbox cannot be asked, and when there is no topic to publish to.
    pub async fn settle(&self) -> Result<u32> {
        let stored = self.outbox.layouts(&self.topic).await?;
        let found = match (self.kafka.find_partitions().await, stored.last()) {
            (Err(error), Some(Layout { partitions, .. })) => {
                warn!(
                    partitions,
                    error = format!("{error:#}"),
                    "the topic is taken to have as many partitions as before"
                );
                return Ok(*partitions);
            }
            (found, _) => found?,
        };
        let partitions = self.kafka.found_or_created(found).await?;
        let before = match stored.last() {
            Some(layout) => layout.partitions,
            // An earlier version stored no layouts, but a position for each of its lanes.
            None => self
                .outbox
                .positions(&self.topic)
                .await?
                .last_key_value()
                .map_or(partitions, |(last, _)| last + 1),
        };
        if before == partitions && stored.is_empty() {
            let first = [Layout::from_the_beginning(partitions)];
            self.outbox.add_layouts(&self.topic, 0, &first).await?;
        }
        if before == partitions && stored.len() < 2 {
            return Ok(partitions);
        }
        match self.change(&stored, before, partitions).await {
            Ok(()) => Ok(partitions),
            Err(error) if before <= partitions => {
                if before < partitions {
                    warn!(
                        before,
                        partitions,
                        error = format!("{error:#}"),
                        "partitions were added and are not used yet: the others could not all be read back"
                    );
                }
                Ok(before)
            }
            Err(error) => Err(error.context("reading back a topic that was made anew")),
        }
    }

    /// Reads back what was placed by `before` partitions, and stores that there are `partitions` from here on.
    async fn change(&self, stored: &[Layout], before: u32, partitions: u32) -> Result<()> {
        let positions = self.outbox.positions(&self.topic).await?;
        let mut is_anew = partitions < before;
        let mut pieces = Vec::new();
        let mut begin_offsets = Vec::new();
        for partition in 0..partitions {
            let client = self.kafka.partition(partition).await?;
            let (earliest, end) = (client.earliest().await?, client.end().await?);
            let position = positions.get(&partition).copied();
            let was_there = partition < before;
            let begin = stored.last().map_or(0, |layout| layout.begin_offset(partition));
            is_anew |= was_there && end < begin.max(position.unwrap_or(0));
            let from = match position {
                Some(position) if (earliest..=end).contains(&position) => position,
                // Another topic's.
                Some(_) => earliest,
                // Nothing of ours is there.
                None if was_there => end,
                // Something of ours is there if the database has been restored to a time before the change.
                None => earliest,
            };
            // What is in a new partition was not placed by fewer of them.
            begin_offsets.push(if was_there { end } else { 0 });
            pieces.push(Piece { client, partition, from, end });
        }
        if before == partitions && !is_anew {
            return Ok(());
        }
        for piece in &pieces {
            self.read_back(piece).await?;
        }
        let now = Layout { partitions, begin_offsets };
        if is_anew {
            warn!(before, partitions, "the topic was made anew: what was known of the old one is forgotten");
            let layouts = if before == partitions {
                vec![Layout::from_the_beginning(partitions)]
            } else {
                // Lanes may have published to the new topic before anybody noticed.
                vec![Layout::from_the_beginning(before), now]
            };
            return self.outbox.replace_layouts(&self.topic, &layouts, partitions).await;
        }
        warn!(
            before,
            partitions,
            "partitions were added: events of a task may be in another partition than its earlier ones, and consumers that \
             read both see them in order of time only"
        );
        match stored {
            [] => self.outbox.add_layouts(&self.topic, 0, &[Layout::from_the_beginning(before), now]).await,
            stored => self.outbox.add_layouts(&self.topic, stored.len(), &[now]).await,
        }
    }

    /// Removes the rows of all events that a partition holds.
    async fn read_back(&self, Piece { client, partition, from, end }: &Piece) -> Result<()> {
        let (partition, end) = (*partition, *end);
        let mut next_offset = *from;
        let mut read_back = ReadBack::new(partition, self.transaction_wait);
        while next_offset < end {
            let mut ids = Vec::new();
            match read_back.judge(next_offset, client.read(next_offset).await?) {
                // The partition has become shorter.
                Progress::Found { next_offset: same, .. } if same == next_offset => break,
                Progress::Found { found, next_offset: next, .. } => {
                    next_offset = next;
                    ids.extend(found.iter().map(|(_, event)| event.id));
                }
                Progress::Wait => {
                    sleep(TRANSACTION_INTERVAL).await;
                    continue;
                }
                Progress::Gone { earliest } => {
                    ensure!(earliest > next_offset, "partition {partition} was made anew while it was read");
                    next_offset = earliest;
                }
            }
            let known = [(partition, next_offset)].into();
            self.outbox.remove(&self.topic, &ids, &known).await?;
        }
        info!(partition, from, end, "read back before events are placed anew");
        Ok(())
    }

    /// Waits until the topic is not the one any more that a term over `partitions` has begun with.
    pub async fn changed(&self, partitions: u32) -> Change {
        let mut looked_at = Instant::now();
        // Whether the last look found it gone: one answer may come from a broker that knows nothing yet.
        let mut seemed_anew = false;
        loop {
            let is_due = seemed_anew || looked_at.elapsed() >= self.max_age || self.is_failing();
            if !is_due || looked_at.elapsed() < LOOK_AGAIN.min(self.max_age) {
                sleep(LOOK_AGAIN.min(self.max_age) / 2).await;
                continue;
            }
            looked_at = Instant::now();
            match self.kafka.find_partitions().await {
                Ok(Some(found)) if found == partitions => seemed_anew = false,
                Ok(Some(found)) if found > partitions => {
                    seemed_anew = false;
                    match self.can_be_read(partitions).await {
                        Ok(()) => return Change::Grown(found),
                        Err(error) => debug!(error = format!("{error:#}"), found, "partitions were added"),
                    }
                }
                Ok(_) if seemed_anew => return Change::MadeAnew,
                Ok(_) => seemed_anew = true,
                // The lanes say so.
                Err(error) => debug!(error = format!("{error:#}"), "the topic's partitions are not known"),
            }
        }
    }

    fn is_failing(&self) -> bool {
        self.health.is_failing(publisher::is_check)
    }

    /// Draining is of use only if every partition can be read back after it.
    async fn can_be_read(&self, partitions: u32) -> Result<()> {
        for partition in 0..partitions {
            let client = self.kafka.partition(partition).await?;
            client.end().await.with_context(|| format!("partition {partition}"))?;
        }
        Ok(())
    }
}
