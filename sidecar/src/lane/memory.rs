//! What a lane remembers of its partition: the last event of each task, of as many tasks as there is
//! room for, and the published events whose rows may still be in the outbox.
//!
//! An event is recognised by its id. Versions only order the events of a task: after a restore of the
//! database a new event can have the version of one that was lost.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use chrono::{DateTime, TimeDelta, Utc};
use foldhash::HashSet;
use lru::LruCache;
use uuid::Uuid;

/// Of all lanes together, about 100 bytes each. A forgotten task costs a query at its next change.
const TASKS_MAX: usize = 65_536;

/// How far the clocks of the component's hosts may differ from each other and from ours. For as long
/// after its start the lane looks each creation up in the outbox.
const CLOCK_SKEW_MAX: TimeDelta = TimeDelta::seconds(2);

/// The last event of a task on the partition, and where it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OnTopic {
    pub id: Uuid,
    pub version: u64,
    pub offset: i64,
    /// When the change happened.
    pub time: DateTime<Utc>,
}

/// What the partition holds of a task.
struct Task {
    last: OnTopic,
    newest: u64,
}

pub struct Memory {
    tasks: LruCache<Uuid, Task>,
    /// Events that are not younger may have been published without our knowledge: by another
    /// sidecar, or so long ago that their task is forgotten.
    unknown_until: DateTime<Utc>,
}

impl Memory {
    /// Knows nothing of what has been published until now. Has room for a share of what all `lanes`
    /// remember.
    pub fn new(now: DateTime<Utc>, lanes: u32) -> Memory {
        let tasks_max = NonZeroUsize::new(TASKS_MAX / lanes.max(1) as usize).unwrap_or(NonZeroUsize::MIN);
        Memory { tasks: LruCache::new(tasks_max), unknown_until: now + CLOCK_SKEW_MAX }
    }

    pub fn last(&self, task_id: Uuid) -> Option<OnTopic> {
        self.tasks.peek(&task_id).map(|task| task.last)
    }

    /// Whether everything that happened at that time is either remembered or not published.
    pub fn reaches(&self, time: DateTime<Utc>) -> bool {
        time > self.unknown_until
    }

    /// The newest version of a task on the partition, or 0. After a restore the last event of the task
    /// can be older.
    pub fn newest(&self, task_id: Uuid) -> u64 {
        self.tasks.peek(&task_id).map_or(0, |task| task.newest)
    }

    /// The partition holds this event of the task, after all others that are known.
    pub fn learn(&mut self, task_id: Uuid, last: OnTopic) {
        let newest = self.newest(task_id).max(last.version);
        if let Some((other, forgotten)) = self.tasks.push(task_id, Task { last, newest })
            && other != task_id
        {
            self.unknown_until = self.unknown_until.max(forgotten.last.time);
        }
    }
}

/// Published events whose rows have not been removed yet, as far as the lane was told.
#[derive(Default)]
pub struct Unremoved {
    ids: HashSet<Uuid>,
    /// In the order in which their removal was asked for.
    batches: VecDeque<Vec<Uuid>>,
    /// Batches that are removed.
    removed: u64,
}

impl Unremoved {
    pub fn contains(&self, id: Uuid) -> bool {
        self.ids.contains(&id)
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub fn add(&mut self, batch: Vec<Uuid>) {
        self.ids.extend(&batch);
        self.batches.push_back(batch);
    }

    /// So many batches are removed since the lane began.
    pub fn note_removed(&mut self, removed: u64) {
        while self.removed < removed
            && let Some(batch) = self.batches.pop_front()
        {
            self.removed += 1;
            for id in batch {
                self.ids.remove(&id);
            }
        }
    }
}
