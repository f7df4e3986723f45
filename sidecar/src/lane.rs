//! What a partition's publisher does next: the decisions, without any effect.
//!
//! A lane publishes nothing while it does not know what the partition holds, never has more than one
//! batch under way, and lets an event go only when every older one of its task is acknowledged, in the
//! same batch before it, or ahead of it in the queue. So the first occurrences of a task's events are on
//! the partition in the order of their versions, and further ones only where nobody could know.

mod memory; // what is published
mod next; // what is to be done

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::{DateTime, Utc};
use contract::Event;
use foldhash::fast::RandomState;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::offered::{Companion, Offered, event_bytes};
use memory::{Memory, Recalled};

pub use memory::OnTopic;
pub use next::{BatchLimits, Gap, Next, Published, Refused};

/// What became of an offered event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Offer {
    /// It will be in one of the next batches.
    Queued,
    /// An older event of its task is missing, or it may itself be published; the lane wants the task's backlog.
    Held,
    /// It is queued, or published, already.
    Duplicate,
}

/// Events that are on the partition.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Found {
    pub ids: Vec<Uuid>,
    /// The newest version of each task. Since versions are published in order, all older ones are there.
    pub newest: HashMap<Uuid, OnTopic>,
}

/// What is known of the partition's end.
#[derive(Clone, Copy, Debug)]
enum Tail {
    /// From this offset on, or from the stored position, there may be events of ours that the lane does not know of.
    Unknown { from: Option<i64> },
    /// The same, and the rest of it is being read, up to this end.
    Reading { next_offset: i64, end: i64 },
    /// Nothing of ours comes from this offset on.
    Known { next_offset: i64 },
}

/// Rows that go with one statement although nobody has seen their events on the partition.
const INFERRED_ROWS_MAX: usize = 1_000;

pub struct Lane {
    tail: Tail,
    memory: Memory,
    /// The newest version of each task that is queued or under way.
    queued: HashMap<Uuid, u64, RandomState>,
    /// In the order of publication.
    queue: VecDeque<Offered>,
    under_way: Vec<Offered>,
    /// Events at the front of the queue among which there is one that the broker refuses.
    suspects: usize,
    refused: Option<Refused>,
    /// Events that have a row although they are published, because newer ones of their tasks are: retention
    /// removed them before they could be read back.
    inferred: BTreeSet<Uuid>,
    /// The versions of each task that wait for its backlog. The events themselves come back with it.
    held: BTreeMap<Uuid, BTreeMap<u64, Companion>>,
}

impl Lane {
    /// One of `lanes`, that knows nothing of what has been published until now.
    pub fn new(now: DateTime<Utc>, lanes: u32) -> Lane {
        Lane {
            tail: Tail::Unknown { from: None },
            memory: Memory::new(now, lanes),
            queued: HashMap::default(),
            queue: VecDeque::new(),
            under_way: Vec::new(),
            suspects: 0,
            refused: None,
            inferred: BTreeSet::new(),
            held: BTreeMap::new(),
        }
    }

    /// Takes an event in, whichever way it came.
    pub fn offer(&mut self, offered: Offered) -> Offer {
        let Event { id, task_id, version, time, .. } = offered.event;
        let known = self.known(task_id);
        if version <= known {
            match self.memory.recall(&offered.event) {
                Recalled::Published => {
                    self.inferred.insert(id);
                }
                Recalled::Anew => {
                    self.memory.forget(task_id);
                    return self.hold(offered);
                }
                Recalled::Nothing => {}
            }
            if let Some(receipt) = offered.companion.receipt {
                self.promise(task_id, version, receipt);
            }
            return Offer::Duplicate;
        }
        // A first version that comes late may be published, its row removed and its task forgotten.
        let follows = version == known + 1 && (known > 0 || self.memory.reaches(time));
        if !follows && !offered.oldest {
            return self.hold(offered);
        }
        self.enqueue(offered);
        Offer::Queued
    }

    /// What to do now. Every answer but `Idle` wants to be followed by a word of what came of it.
    pub fn next(&mut self, limits: BatchLimits) -> Next {
        let next_offset = match self.tail {
            Tail::Unknown { from } => return Next::Connect { from },
            Tail::Reading { next_offset, .. } => return Next::Read { from: next_offset },
            Tail::Known { next_offset } => next_offset,
        };
        if !self.inferred.is_empty() {
            let ids = (0..INFERRED_ROWS_MAX).map_while(|_| self.inferred.pop_first()).collect();
            return Next::Remove(Published { ids, next_offset });
        }
        if let Some(refused) = &self.refused {
            return Next::Park(refused.clone());
        }
        // What the last gap brought goes first, so that a long backlog is in memory a page at a time.
        if self.queue.len() < limits.events_max
            && let Some(gap) = self.gap()
        {
            return Next::Load(gap);
        }
        self.fill_batch(limits);
        if self.under_way.is_empty() { Next::Idle } else { Next::Publish }
    }

    /// Whether waiting for more events would not make the next batch larger.
    pub fn has_full_batch(&self, limits: BatchLimits) -> bool {
        let fitting = self.fitting(limits);
        fitting == self.events_max(limits) || fitting < self.queue.len()
    }

    /// The batch that is under way, in the order of publication.
    pub fn batch(&self) -> &[Offered] {
        &self.under_way
    }

    /// There is a connection, on which the partition ends at `end`. Whatever may be unknown stands
    /// from `from` on: that it is beyond the end means that the topic was made anew.
    pub fn connected(&mut self, from: i64, end: i64) {
        self.tail = if from == end {
            Tail::Known { next_offset: from }
        } else {
            Tail::Reading { next_offset: from, end }
        };
    }

    /// There is no such offset any more, or not yet: the partition begins at `earliest`.
    pub fn gone(&mut self, earliest: i64) {
        if let Tail::Reading { end, .. } = self.tail {
            self.connected(earliest, end.max(earliest));
        }
    }

    /// Reading has found these events, and goes on at `next_offset`. The end moves while we read.
    pub fn read(&mut self, found: Found, next_offset: i64, end: i64) -> Published {
        let mut ids = found.ids;
        self.seen(&found.newest);
        ids.extend(std::mem::take(&mut self.inferred));
        ids.sort_unstable();
        ids.dedup();
        self.connected(next_offset, end.max(next_offset));
        Published { ids, next_offset }
    }

    /// Takes in what the outbox holds of a gap, all of its rows but those that are parked or wait behind
    /// one that is, oldest first. They are the whole truth: a version that is not among them is not for
    /// the lane to publish.
    pub fn fill(&mut self, gap: Gap, backlog: Vec<Event>) {
        let mut companions = self.release(gap.task_id, gap.up_to);
        for event in backlog {
            if event.version > self.known(gap.task_id) {
                let companion = companions.remove(&event.version).unwrap_or_default();
                self.enqueue(Offered { event, oldest: false, companion });
            }
        }
    }

    /// The broker has acknowledged the batch, an offset for each of its events. Tells who waits.
    pub fn acked(&mut self, offsets: &[i64]) -> Published {
        let batch = std::mem::take(&mut self.under_way);
        self.suspects = self.suspects.saturating_sub(batch.len());
        let mut ids = Vec::with_capacity(batch.len());
        for (offered, offset) in batch.into_iter().zip(offsets.iter().copied()) {
            let Event { id, task_id, version, time, .. } = offered.event;
            ids.push(id);
            if let Some(receipt) = offered.companion.receipt {
                tell(receipt, offset);
            }
            self.memory.learn(task_id, OnTopic { version, offset, time });
            if let Entry::Occupied(newest) = self.queued.entry(task_id)
                && *newest.get() == version
            {
                newest.remove();
            }
        }
        let next_offset = offsets.last().map_or(0, |last| last + 1);
        self.tail = Tail::Known { next_offset };
        Published { ids, next_offset }
    }

    /// The broker has refused the batch, so that nothing of it is on the partition, and would refuse it
    /// again. Ever smaller batches find out which of its events it is about.
    pub fn refused(&mut self, reason: String) {
        if let [offered] = self.under_way.as_slice() {
            let Event { id: event_id, task_id, version, .. } = offered.event;
            self.refused = Some(Refused { event_id, task_id, version, reason });
            self.suspects = 0;
            self.under_way.clear();
        } else {
            self.suspects = self.under_way.len();
            self.requeue();
        }
    }

    /// The refused event is parked. Those of its task that are queued behind it wait with it.
    pub fn parked(&mut self) {
        if let Some(Refused { task_id, .. }) = self.refused.take() {
            self.queue.retain(|offered| offered.event.task_id != task_id);
            self.queued.remove(&task_id);
        }
    }

    /// Something failed, and nobody knows what became of it. The batch is the next one again, but for
    /// what reading back shows of it.
    pub fn failed(&mut self) {
        self.requeue();
        self.tail = match self.tail {
            Tail::Known { next_offset } | Tail::Reading { next_offset, .. } => {
                Tail::Unknown { from: Some(next_offset) }
            }
            unknown @ Tail::Unknown { .. } => unknown,
        };
    }

    /// Nothing to do until something is offered.
    pub fn is_idle(&self) -> bool {
        matches!(self.tail, Tail::Known { .. }) && self.pending() == 0 && self.inferred.is_empty()
    }

    /// Events that are not acknowledged yet.
    pub fn pending(&self) -> usize {
        let held: usize = self.held.values().map(BTreeMap::len).sum();
        self.queue.len() + self.under_way.len() + held + usize::from(self.refused.is_some())
    }

    /// A task whose backlog is to be loaded, if there is one.
    fn gap(&self) -> Option<Gap> {
        let (task_id, held) = self.held.first_key_value()?;
        let (up_to, _) = held.last_key_value()?;
        Some(Gap { task_id: *task_id, after: self.known(*task_id), up_to: *up_to })
    }

    /// Moves the next batch from the queue, at least one event if any is queued.
    fn fill_batch(&mut self, limits: BatchLimits) {
        assert!(self.under_way.is_empty(), "one produce request under way at a time");
        let count = self.fitting(limits).max(1).min(self.queue.len());
        self.under_way.extend(self.queue.drain(..count));
    }

    /// Events at the front of the queue that go into one batch.
    fn fitting(&self, limits: BatchLimits) -> usize {
        let mut bytes = 0;
        let fitting = self.queue.iter().take(self.events_max(limits)).take_while(|offered| {
            bytes += event_bytes(&offered.event);
            bytes <= limits.bytes_max
        });
        fitting.count()
    }

    fn events_max(&self, limits: BatchLimits) -> usize {
        match self.suspects {
            0 => limits.events_max,
            suspects => (suspects / 2).clamp(1, limits.events_max),
        }
    }

    fn requeue(&mut self) {
        for offered in self.under_way.drain(..).rev() {
            self.queue.push_front(offered);
        }
    }

    /// These versions of tasks are on the partition, and so are all older ones, whatever became of the acks.
    fn seen(&mut self, newest: &HashMap<Uuid, OnTopic>) {
        for (task_id, on_topic) in newest {
            self.memory.learn(*task_id, *on_topic);
            if self.queued.get(task_id).is_some_and(|queued| *queued <= on_topic.version) {
                self.queued.remove(task_id);
            }
            self.release(*task_id, on_topic.version);
        }
        let seen = |task_id, version| newest.get(&task_id).filter(|seen| version <= seen.version);
        let inferred = &mut self.inferred;
        self.queue.retain(|Offered { event, .. }| {
            let seen = seen(event.task_id, event.version);
            // Any other row stays, and is offered again: then it shows whether it was made anew.
            if seen.is_some_and(|seen| seen.tells_of(event) == Recalled::Published) {
                inferred.insert(event.id);
            }
            seen.is_none()
        });
        self.refused.take_if(|refused| seen(refused.task_id, refused.version).is_some());
    }

    /// Tells who waits for a version that came by another way already, now or with its ack.
    fn promise(&mut self, task_id: Uuid, version: u64, receipt: oneshot::Sender<i64>) {
        if let Some(newest) = self.memory.newest(task_id)
            && newest.version == version
        {
            return tell(receipt, newest.offset);
        }
        let is_it = |event: &Event| event.task_id == task_id && event.version == version;
        let mut known = self.under_way.iter_mut().chain(&mut self.queue);
        if let Some(offered) = known.find(|offered| is_it(&offered.event)) {
            offered.companion.receipt = Some(receipt);
        }
    }

    /// The newest version of a task that needs no further thought.
    fn known(&self, task_id: Uuid) -> u64 {
        let on_topic = self.memory.newest(task_id).map_or(0, |newest| newest.version);
        self.queued.get(&task_id).copied().unwrap_or(0).max(on_topic)
    }

    fn hold(&mut self, offered: Offered) -> Offer {
        let Event { task_id, version, .. } = offered.event;
        self.held.entry(task_id).or_default().entry(version).or_insert(offered.companion);
        Offer::Held
    }

    fn enqueue(&mut self, mut offered: Offered) {
        let Event { task_id, version, .. } = offered.event;
        // Whoever waits for it waits for it whichever way it came.
        if let Some(held) = self.release(task_id, version).remove(&version)
            && offered.companion.receipt.is_none()
        {
            offered.companion.receipt = held.receipt;
        }
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

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
