//! What a partition's publisher does next: the decisions, without any effect.
//!
//! A lane publishes nothing while it does not know what the partition holds, never has more than one
//! batch under way, and lets an event go only when every older one of its task is acknowledged, in the
//! same batch before it, or ahead of it in the queue. So the first occurrences of a task's events are on
//! the partition in the order of their versions, and further ones only where nobody could know.
//!
//! With replicas, an appended record cannot be read until every in-sync replica has it. So after a
//! failure of unknown outcome the lane is in *doubt*: it first publishes an event that nobody can have
//! sent before. The acknowledgement proves that every record before that event can be read.

mod doubt; // which events may be appended and not readable
mod memory; // what is published
mod next; // what is to be done

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, Utc};
use contract::Event;
use foldhash::HashSet;
use foldhash::fast::RandomState;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::offered::{Companion, Offered, event_bytes};
use doubt::Doubt;
use memory::{Memory, Unremoved};

pub use memory::OnTopic;
pub use next::{BatchLimits, Gap, Next, Published, Refused};

/// What became of an offered event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Offer {
    /// It will be in one of the next batches.
    Queued,
    /// An older event of its task is missing, or it may itself be published; the lane wants the
    /// task's backlog.
    Held,
    /// It is queued, or published, already.
    Duplicate,
}

/// Events on the partition, with their tasks, in the order of their offsets.
pub type Found = Vec<(Uuid, OnTopic)>;

/// What a lane knows when its term begins.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub now: DateTime<Utc>,
    /// Lanes of the sidecar.
    pub lanes: u32,
    /// The last number that the outbox had given to a row. Nobody can have sent a later row before.
    pub last_seq: i64,
    /// Records may be appended and not readable yet.
    pub is_replicated: bool,
}

/// What is known of the partition's end.
#[derive(Clone, Copy, Debug)]
enum Tail {
    /// From this offset on, or from the stored position, there may be events of ours that the lane
    /// does not know of.
    Unknown { from: Option<i64> },
    /// The same, and the rest of it is being read, up to this end.
    Reading { next_offset: i64, end: i64 },
    /// No readable record of ours comes from this offset on.
    Known { next_offset: i64 },
}

/// A task's last event, queued or on the partition.
#[derive(Clone, Copy)]
struct Last {
    id: Uuid,
    version: u64,
    /// The event has a row in the outbox as it is now.
    has_row: bool,
}

pub struct Lane {
    tail: Tail,
    doubt: Doubt,
    memory: Memory,
    unremoved: Unremoved,
    /// Events in the queue, under way, or refused.
    in_lane: HashSet<Uuid>,
    /// The last event of each task that is queued or under way.
    queued: HashMap<Uuid, Last, RandomState>,
    /// In the order of publication.
    queue: VecDeque<Offered>,
    under_way: Vec<Offered>,
    /// Events at the front of the queue among which there is one that the broker refuses.
    suspects: usize,
    refused: Option<Refused>,
    /// The last load brought nothing but what is queued: the queue goes first.
    is_stalled: bool,
    /// The versions of each task that wait for its backlog. The events themselves come back with it.
    held: BTreeMap<Uuid, BTreeMap<u64, (Uuid, Companion)>>,
}

impl Lane {
    /// A lane that knows nothing of what has been published until now.
    pub fn new(start: Start) -> Lane {
        Lane {
            tail: Tail::Unknown { from: None },
            doubt: Doubt::new(start.last_seq, start.is_replicated),
            memory: Memory::new(start.now, start.lanes),
            unremoved: Unremoved::default(),
            in_lane: HashSet::default(),
            queued: HashMap::default(),
            queue: VecDeque::new(),
            under_way: Vec::new(),
            suspects: 0,
            refused: None,
            is_stalled: false,
            held: BTreeMap::new(),
        }
    }

    /// Takes an event in, whichever way it came.
    ///
    /// It may go without a further look in three cases:
    ///
    /// * It names the task's last event in the lane as its previous one.
    /// * It is the task's first event, and younger than the lane's memory.
    /// * Its row is the task's oldest one in the outbox.
    ///
    /// For any other event the lane loads the task's rows. A version without a row is published, or
    /// waits behind a parked one.
    pub fn offer(&mut self, offered: Offered) -> Offer {
        let Event { id, task_id, version, time, previous_id, .. } = offered.event;
        self.doubt.note_row(id, offered.seq);
        let on_topic = self.memory.last(task_id);
        if self.in_lane.contains(&id)
            || self.unremoved.contains(id)
            || on_topic.is_some_and(|last| last.id == id)
        {
            if let Some(receipt) = offered.companion.receipt {
                self.promise(task_id, id, receipt);
            }
            return Offer::Duplicate;
        }
        let last = self.last(task_id);
        let newest = self.memory.newest(task_id).max(last.map_or(0, |last| last.version));
        let is_behind = version <= newest;
        let follows = match (last, previous_id) {
            _ if is_behind => false,
            (Some(last), Some(previous_id)) => last.id == previous_id,
            (Some(last), None) => version == last.version + 1,
            // A first version that comes late may be published, its row removed, its task forgotten.
            (None, _) => version == 1 && self.memory.reaches(time),
        };
        if follows || (offered.oldest && !is_behind) {
            self.enqueue(offered);
            Offer::Queued
        } else if is_behind && offered.seq.is_none() {
            // A late push. If the event is not published, its row shows it.
            Offer::Duplicate
        } else {
            self.hold(offered)
        }
    }

    /// What to do now. Except after `Idle`, report the result with the matching method.
    pub fn next(&mut self, limits: BatchLimits) -> Next {
        match self.tail {
            Tail::Unknown { from } => return Next::Connect { from },
            Tail::Reading { next_offset, .. } => return Next::Read { from: next_offset },
            Tail::Known { .. } => {}
        }
        if let Some(refused) = &self.refused {
            return Next::Park(refused.clone());
        }
        // The rows of the last gap go first, so that a long backlog is in memory a page at a time.
        let has_room = self.queue.len() < limits.events_max;
        if has_room
            && (!self.is_stalled || self.queue.is_empty())
            && let Some(gap) = self.gap()
        {
            return Next::Load(gap);
        }
        self.fill_batch(limits);
        if !self.under_way.is_empty() {
            Next::Publish
        } else if self.queue.is_empty() {
            Next::Idle
        } else {
            Next::Prove
        }
    }

    /// Whether waiting for more events would not make the next batch larger.
    pub fn has_full_batch(&self, limits: BatchLimits) -> bool {
        let fitting = self.fitting(limits);
        self.doubt.exists() || fitting == self.events_max(limits) || fitting < self.queue.len()
    }

    /// The batch that is under way, in the order of publication.
    pub fn batch(&self) -> &[Offered] {
        &self.under_way
    }

    /// There is a connection, on which the partition ends at `end`. Whatever may be unknown stands
    /// from `from` on: that it is beyond the end means that the topic was made anew.
    pub fn connected(&mut self, from: i64, end: i64) {
        self.tail = if from == end {
            self.doubt.note_read(from);
            Tail::Known { next_offset: from }
        } else {
            Tail::Reading { next_offset: from, end }
        };
    }

    /// There is no such offset any more, or not yet: the partition begins at `earliest`.
    pub fn gone(&mut self, earliest: i64) {
        if let Tail::Reading { end, .. } = self.tail {
            self.doubt.forget_proof();
            self.connected(earliest, end.max(earliest));
        }
    }

    /// Reading has found these events, and goes on at `next_offset`. The end moves while we read.
    pub fn read(&mut self, found: &Found, next_offset: i64, end: i64) -> Published {
        self.seen(found);
        self.connected(next_offset, end.max(next_offset));
        self.published(found.iter().map(|(_, on_topic)| on_topic.id).collect(), next_offset)
    }

    /// Takes in what the outbox holds of a gap, with the rows' numbers, oldest first: all rows except
    /// those that are parked or wait behind one that is. A version that is not among them is not for
    /// the lane to publish.
    pub fn fill(&mut self, gap: Gap, backlog: Vec<(Event, i64)>) {
        let mut waiting = self.release(gap.task_id, gap.up_to);
        self.is_stalled = waiting.is_empty();
        for (event, seq) in backlog {
            let companion = match waiting.remove(&event.version) {
                Some((id, companion)) if id == event.id => companion,
                _ => Companion::default(),
            };
            self.doubt.note_row(event.id, Some(seq));
            if !self.in_lane.contains(&event.id) && !self.unremoved.contains(event.id) {
                self.is_stalled = false;
                self.enqueue(Offered { event, oldest: false, seq: Some(seq), companion });
            }
        }
    }

    /// The broker has acknowledged the batch, an offset for each of its events. Tells who waits.
    pub fn acked(&mut self, offsets: &[i64]) -> Published {
        let batch = std::mem::take(&mut self.under_way);
        self.is_stalled = false;
        self.suspects = self.suspects.saturating_sub(batch.len());
        let mut ids = Vec::with_capacity(batch.len());
        for (offered, offset) in batch.into_iter().zip(offsets.iter().copied()) {
            let Event { id, task_id, version, time, .. } = offered.event;
            ids.push(id);
            if let Some(receipt) = offered.companion.receipt {
                tell(receipt, offset);
            }
            self.memory.learn(task_id, OnTopic { id, version, offset, time });
            self.leaves(task_id, id);
        }
        let end = offsets.last().map_or(0, |last| last + 1);
        let Tail::Known { next_offset: read_to } = self.tail else {
            unreachable!("a lane publishes only when it knows the partition's end")
        };
        if self.doubt.exists() && offsets.first().is_some_and(|first| *first > read_to) {
            // Records came before the batch that could not be read until now.
            self.doubt.prove(end);
            self.tail = Tail::Reading { next_offset: read_to, end };
            return self.published(ids, read_to);
        }
        self.doubt.clear();
        self.tail = Tail::Known { next_offset: end };
        self.published(ids, end)
    }

    /// The wait for a new event is over, and the partition ends at `end`. Events in doubt that cannot
    /// be read by now are sent again.
    pub fn waived(&mut self, end: i64) {
        if let Tail::Known { next_offset } = self.tail {
            self.doubt.prove(end);
            self.connected(next_offset, end.max(next_offset));
        }
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

    /// The broker has taken nothing of the batch, for a reason that the next attempt avoids.
    pub fn not_taken(&mut self) {
        self.requeue();
    }

    /// The refused event is parked. Those of its task that are queued behind it wait with it.
    pub fn parked(&mut self) {
        if let Some(Refused { event_id, task_id, .. }) = self.refused.take() {
            self.in_lane.remove(&event_id);
            let in_lane = &mut self.in_lane;
            self.queue.retain(|Offered { event, .. }| {
                let waits = event.task_id == task_id;
                if waits {
                    in_lane.remove(&event.id);
                }
                !waits
            });
            self.queued.remove(&task_id);
        }
    }

    /// Something failed, and nobody knows what became of it. The batch is the next one again, except
    /// for what reading back shows of it.
    pub fn failed(&mut self) {
        self.doubt.add(self.under_way.iter().map(|offered| offered.event.id));
        self.requeue();
        self.tail = match self.tail {
            Tail::Known { next_offset } | Tail::Reading { next_offset, .. } => {
                Tail::Unknown { from: Some(next_offset) }
            }
            unknown @ Tail::Unknown { .. } => unknown,
        };
    }

    /// The rows of so many `Published` are removed, since the lane began.
    pub fn note_removed(&mut self, removed: u64) {
        self.unremoved.note_removed(removed);
    }

    /// An idle lane's partition ends at `end`. What has come since it was last read is not ours: the
    /// position can be stored, so that it need not be read back.
    pub fn looked(&mut self, end: i64) -> Option<Published> {
        match self.tail {
            Tail::Known { next_offset }
                if next_offset < end
                    && self.is_idle()
                    && self.unremoved.is_empty()
                    && !self.doubt.exists() =>
            {
                self.tail = Tail::Known { next_offset: end };
                Some(self.published(Vec::new(), end))
            }
            _ => None,
        }
    }

    /// Nothing to do until something is offered.
    pub fn is_idle(&self) -> bool {
        matches!(self.tail, Tail::Known { .. }) && self.pending() == 0
    }

    /// Events that are not acknowledged yet.
    pub fn pending(&self) -> usize {
        let held: usize = self.held.values().map(BTreeMap::len).sum();
        self.queue.len() + self.under_way.len() + held + usize::from(self.refused.is_some())
    }

    fn published(&mut self, ids: Vec<Uuid>, next_offset: i64) -> Published {
        self.unremoved.add(ids.clone());
        Published { ids, next_offset }
    }

    /// A task whose backlog is to be loaded, if there is one.
    fn gap(&self) -> Option<Gap> {
        let (task_id, held) = self.held.first_key_value()?;
        let ((first, _), (up_to, _)) = (held.first_key_value()?, held.last_key_value()?);
        // The partition may hold another history of the task, which a restore has ended.
        let queued = self.queued.get(task_id).filter(|last| last.has_row && last.version < *first);
        let after = queued.map_or(0, |last| last.version);
        Some(Gap { task_id: *task_id, after, up_to: *up_to })
    }

    /// Moves the next batch from the queue, at least one event if any may go.
    fn fill_batch(&mut self, limits: BatchLimits) {
        assert!(self.under_way.is_empty(), "one produce request under way at a time");
        if self.doubt.exists() {
            let events_max = self.events_max(limits);
            self.under_way = self.doubt.take_new(&mut self.queue, events_max, limits.bytes_max);
        } else {
            let count = self.fitting(limits).max(1).min(self.queue.len());
            self.under_way.extend(self.queue.drain(..count));
        }
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

    /// These events are on the partition, whatever became of the acks.
    fn seen(&mut self, found: &Found) {
        let mut offsets: HashMap<Uuid, i64, RandomState> = HashMap::default();
        for (task_id, on_topic) in found {
            self.memory.learn(*task_id, *on_topic);
            offsets.insert(on_topic.id, on_topic.offset);
            if let Some(held) = self.held.get_mut(task_id)
                && held.get(&on_topic.version).is_some_and(|(id, _)| *id == on_topic.id)
                && let Some((_, Companion { receipt: Some(receipt), .. })) = held.remove(&on_topic.version)
            {
                tell(receipt, on_topic.offset);
            }
        }
        self.held.retain(|_, held| !held.is_empty());
        if self.in_lane.is_empty() {
            return;
        }
        for mut offered in std::mem::take(&mut self.queue) {
            let Event { id, task_id, .. } = offered.event;
            match offsets.get(&id) {
                Some(offset) => {
                    if let Some(receipt) = offered.companion.receipt.take() {
                        tell(receipt, *offset);
                    }
                    self.leaves(task_id, id);
                }
                None => self.queue.push_back(offered),
            }
        }
        if let Some(refused) = self.refused.take_if(|refused| offsets.contains_key(&refused.event_id)) {
            self.leaves(refused.task_id, refused.event_id);
        }
    }

    /// An event is on the partition, and not in the lane any more.
    fn leaves(&mut self, task_id: Uuid, id: Uuid) {
        self.in_lane.remove(&id);
        if let Entry::Occupied(last) = self.queued.entry(task_id)
            && last.get().id == id
        {
            last.remove();
        }
    }

    /// Tells who waits for an event that came by another way already, now or with its ack.
    fn promise(&mut self, task_id: Uuid, id: Uuid, receipt: oneshot::Sender<i64>) {
        if let Some(last) = self.memory.last(task_id)
            && last.id == id
        {
            return tell(receipt, last.offset);
        }
        let mut known = self.under_way.iter_mut().chain(&mut self.queue);
        if let Some(offered) = known.find(|offered| offered.event.id == id) {
            offered.companion.receipt = Some(receipt);
        }
    }

    /// The last event of a task that needs no further thought.
    fn last(&self, task_id: Uuid) -> Option<Last> {
        let on_topic = || {
            let OnTopic { id, version, .. } = self.memory.last(task_id)?;
            Some(Last { id, version, has_row: false })
        };
        self.queued.get(&task_id).copied().or_else(on_topic)
    }

    fn hold(&mut self, offered: Offered) -> Offer {
        let Event { id, task_id, version, .. } = offered.event;
        self.held.entry(task_id).or_default().entry(version).or_insert((id, offered.companion));
        Offer::Held
    }

    fn enqueue(&mut self, mut offered: Offered) {
        let Event { id, task_id, version, .. } = offered.event;
        // Whoever waits for it waits for it whichever way it came.
        if let Some((held, companion)) = self.release(task_id, version).remove(&version)
            && held == id
            && offered.companion.receipt.is_none()
        {
            offered.companion.receipt = companion.receipt;
        }
        self.in_lane.insert(id);
        self.queued.insert(task_id, Last { id, version, has_row: offered.seq.is_some() });
        self.queue.push_back(offered);
    }

    /// Ends the wait of a task's versions up to `version`.
    fn release(&mut self, task_id: Uuid, version: u64) -> BTreeMap<u64, (Uuid, Companion)> {
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
