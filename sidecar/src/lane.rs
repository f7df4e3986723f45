//! What a partition publishes next: the decisions, without any effect.
//!
//! A lane never has more than one batch under way, and lets an event go only when every older one of
//! its task is acknowledged, in the same batch before it, or ahead of it in the queue. So the first
//! occurrences of a task's events are on the partition in the order of their versions.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZeroUsize;

use contract::Event;
use lru::LruCache;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use uuid::Uuid;

/// Tasks whose last acknowledged version a lane remembers. A task that is forgotten costs a query at
/// its next change, or, if the same event is offered again after that, a second occurrence.
const ACKED_TASKS_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// An event on its way to the lane.
#[derive(Debug)]
pub struct Offered {
    pub event: Event,
    /// The outbox was seen without an older event of the task: what came before it is published.
    pub oldest: bool,
    pub companion: Companion,
}

/// What goes with an event, whatever way the event itself takes.
#[derive(Debug, Default)]
pub struct Companion {
    /// The event's share of the sidecar's memory.
    #[expect(dead_code, reason = "given back by being dropped, when the event is done with")]
    pub hold: Option<OwnedSemaphorePermit>,
    /// Who waits for the event's offset. Dropped without a word when that cannot be told any more.
    pub receipt: Option<oneshot::Sender<i64>>,
}

/// What became of an offered event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Offer {
    /// It will be in one of the next batches.
    Queued,
    /// An older event of its task is missing; the lane wants the task's backlog.
    Held,
    /// It is queued, or published, already.
    Duplicate,
}

/// A task's newest version on the partition, and where it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OnTopic {
    pub version: u64,
    pub offset: i64,
}

/// The part of the outbox that a lane needs: a task's rows after a version, up to another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gap {
    pub task_id: Uuid,
    /// The newest version that is queued or published as far as the lane remembers, or 0.
    pub after: u64,
    /// The newest version that is held.
    pub up_to: u64,
}

/// How much goes into one produce request.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    pub events_max: usize,
    pub bytes_max: usize,
}

pub struct Lane {
    /// The last acknowledged version of each task.
    acked: LruCache<Uuid, OnTopic>,
    /// The newest version of each task that is queued or under way.
    queued: HashMap<Uuid, u64>,
    /// In the order of publication.
    queue: VecDeque<Offered>,
    under_way: Vec<Offered>,
    /// The versions of each task that wait for its backlog. The events themselves come back with it.
    held: BTreeMap<Uuid, BTreeMap<u64, Companion>>,
}

impl Default for Lane {
    fn default() -> Self {
        Lane {
            acked: LruCache::new(ACKED_TASKS_MAX),
            queued: HashMap::new(),
            queue: VecDeque::new(),
            under_way: Vec::new(),
            held: BTreeMap::new(),
        }
    }
}

impl Lane {
    /// Takes an event in, whichever way it came.
    pub fn offer(&mut self, offered: Offered) -> Offer {
        let Event { task_id, version, .. } = offered.event;
        let mut known = self.known(task_id);
        if version <= known {
            if let Some(receipt) = offered.companion.receipt {
                self.promise(task_id, version, receipt);
            }
            return Offer::Duplicate;
        }
        if offered.oldest {
            known = version - 1;
        }
        if version > known + 1 {
            self.held.entry(task_id).or_default().entry(version).or_insert(offered.companion);
            return Offer::Held;
        }
        self.enqueue(offered);
        Offer::Queued
    }

    /// A task whose backlog is to be loaded, if there is one.
    pub fn gap(&self) -> Option<Gap> {
        let (task_id, held) = self.held.first_key_value()?;
        let (up_to, _) = held.last_key_value()?;
        Some(Gap { task_id: *task_id, after: self.known(*task_id), up_to: *up_to })
    }

    /// Takes in what the outbox holds of a gap, all of its rows, oldest first. They are the whole
    /// truth: a version that is not among them is published already.
    pub fn fill(&mut self, gap: Gap, backlog: Vec<Event>) {
        let mut companions = self.release(gap.task_id, gap.up_to);
        for event in backlog {
            if event.version > self.known(gap.task_id) {
                let companion = companions.remove(&event.version).unwrap_or_default();
                self.enqueue(Offered { event, oldest: false, companion });
            }
        }
    }

    /// The next batch to publish, at least one event if any is queued. Nothing while one is under way.
    pub fn next_batch(&mut self, limits: BatchLimits) -> &[Offered] {
        assert!(self.under_way.is_empty(), "one produce request under way at a time");
        let mut bytes = 0;
        let fitting = self.queue.iter().take(limits.events_max).take_while(|offered| {
            bytes += event_bytes(&offered.event);
            bytes <= limits.bytes_max
        });
        let count = fitting.count().max(1).min(self.queue.len());
        self.under_way.extend(self.queue.drain(..count));
        &self.under_way
    }

    /// The broker has acknowledged the batch, an offset for each of its events. Tells who waits, and
    /// gives the events' ids: their rows can go.
    pub fn acked(&mut self, offsets: &[i64]) -> Vec<Uuid> {
        let batch = std::mem::take(&mut self.under_way);
        let mut ids = Vec::with_capacity(batch.len());
        for (offered, offset) in batch.into_iter().zip(offsets.iter().copied()) {
            let Event { id, task_id, version, .. } = offered.event;
            ids.push(id);
            if let Some(receipt) = offered.companion.receipt {
                tell(receipt, offset);
            }
            self.acked.put(task_id, OnTopic { version, offset });
            if self.queued.get(&task_id) == Some(&version) {
                self.queued.remove(&task_id);
            }
        }
        ids
    }

    /// The batch is not acknowledged: it is the next one again, but for what is `seen` of it.
    pub fn failed(&mut self) {
        for offered in self.under_way.drain(..).rev() {
            self.queue.push_front(offered);
        }
    }

    /// Reading the partition back has shown these versions of tasks there: they, and all older ones, are
    /// published, whatever became of the acks.
    pub fn seen(&mut self, found: &HashMap<Uuid, OnTopic>) {
        for (task_id, on_topic) in found {
            if self.acked.peek(task_id).is_none_or(|acked| acked.version < on_topic.version) {
                self.acked.put(*task_id, *on_topic);
            }
            if self.queued.get(task_id).is_some_and(|queued| *queued <= on_topic.version) {
                self.queued.remove(task_id);
            }
            self.release(*task_id, on_topic.version);
        }
        let is_news =
            |event: &Event| found.get(&event.task_id).is_none_or(|seen| event.version > seen.version);
        self.queue.retain(|offered| is_news(&offered.event));
    }

    /// Events that only wait for their turn.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Events that are not acknowledged yet.
    pub fn pending(&self) -> usize {
        let held: usize = self.held.values().map(BTreeMap::len).sum();
        self.queue.len() + self.under_way.len() + held
    }

    /// Tells who waits for a version that came by another way already, now or with its ack.
    fn promise(&mut self, task_id: Uuid, version: u64, receipt: oneshot::Sender<i64>) {
        if let Some(acked) = self.acked.peek(&task_id)
            && acked.version == version
        {
            return tell(receipt, acked.offset);
        }
        let is_it = |event: &Event| event.task_id == task_id && event.version == version;
        let mut known = self.under_way.iter_mut().chain(&mut self.queue);
        if let Some(offered) = known.find(|offered| is_it(&offered.event)) {
            offered.companion.receipt = Some(receipt);
        }
    }

    /// The newest version of a task that needs no further thought.
    fn known(&self, task_id: Uuid) -> u64 {
        let acked = self.acked.peek(&task_id).map_or(0, |acked| acked.version);
        self.queued.get(&task_id).copied().unwrap_or(0).max(acked)
    }

    fn enqueue(&mut self, offered: Offered) {
        let Event { task_id, version, .. } = offered.event;
        self.release(task_id, version);
        self.queued.insert(task_id, version);
        self.queue.push_back(offered);
    }

    /// Ends the wait of a task's versions up to `version`.
    fn release(&mut self, task_id: Uuid, version: u64) -> BTreeMap<u64, Companion> {
        let Some(held) = self.held.get_mut(&task_id) else {
            return BTreeMap::new();
        };
        let waiting_on = held.split_off(&(version + 1));
        let released = std::mem::replace(held, waiting_on);
        if held.is_empty() {
            self.held.remove(&task_id);
        }
        released
    }
}

fn tell(receipt: oneshot::Sender<i64>, offset: i64) {
    // Nobody waits any more when the wait was too short.
    let _: Result<(), i64> = receipt.send(offset);
}

/// What an event takes of a batch and of the sidecar's memory: its payload, and roughly what key,
/// headers and bookkeeping come to.
pub fn event_bytes(event: &Event) -> usize {
    const OVERHEAD_BYTES: usize = 512;
    event.payload.get().len() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests;
