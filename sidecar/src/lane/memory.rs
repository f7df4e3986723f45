//! What a lane remembers of what is on its partition: the newest version of each task, of as many tasks
//! as there is room for.
//!
//! Versions are published in order, so that where one is, all older ones of the task are, whether or not
//! anybody has seen them there.

use std::num::NonZeroUsize;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use contract::Event;
use lru::LruCache;
use uuid::Uuid;

/// Of all lanes together, about 100 bytes each. A task that is forgotten costs a query at its next change.
const TASKS_MAX: usize = 65_536;

/// How far the clocks of the component's machines may be apart from each other and from ours. For as long after
/// its start the lane looks each creation up in the outbox.
const CLOCK_SKEW_MAX: TimeDelta = TimeDelta::seconds(2);

/// A task's newest version on the partition, and where it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OnTopic {
    pub version: u64,
    pub offset: i64,
    /// When the change happened.
    pub time: DateTime<Utc>,
}

impl OnTopic {
    /// What follows from a task's newest version for another event of the task.
    pub fn tells_of(&self, event: &Event) -> Recalled {
        if event.version > self.version {
            Recalled::Nothing
        } else if event.time.trunc_subsecs(3) <= self.time.trunc_subsecs(3) {
            // A record has its time in milliseconds.
            Recalled::Published
        } else if event.time > self.time + CLOCK_SKEW_MAX {
            Recalled::Anew
        } else {
            Recalled::Nothing
        }
    }
}

/// What is remembered about an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Recalled {
    /// Nothing that decides.
    Nothing,
    /// It is on the partition.
    Published,
    /// It is younger than a newer version of its task: the database has been restored to an older state, and this is
    /// another change than the one on the partition.
    Anew,
}

pub struct Memory {
    newest: LruCache<Uuid, OnTopic>,
    /// What is not younger may have been published without our knowledge: by another sidecar, or so long ago
    /// that it is forgotten.
    unknown_until: DateTime<Utc>,
}

impl Memory {
    /// Knows nothing of what has been published until now. Has room for a share of what all `lanes` remember.
    pub fn new(now: DateTime<Utc>, lanes: u32) -> Memory {
        let tasks_max = NonZeroUsize::new(TASKS_MAX / lanes.max(1) as usize).unwrap_or(NonZeroUsize::MIN);
        Memory { newest: LruCache::new(tasks_max), unknown_until: now + CLOCK_SKEW_MAX }
    }

    pub fn newest(&self, task_id: Uuid) -> Option<OnTopic> {
        self.newest.peek(&task_id).copied()
    }

    pub fn recall(&self, event: &Event) -> Recalled {
        self.newest(event.task_id).map_or(Recalled::Nothing, |newest| newest.tells_of(event))
    }

    /// Whether all that happened at that time is either remembered or not published.
    pub fn reaches(&self, time: DateTime<Utc>) -> bool {
        time > self.unknown_until
    }

    /// The partition holds this version of the task.
    pub fn learn(&mut self, task_id: Uuid, on_topic: OnTopic) {
        if self.newest(task_id).is_some_and(|newest| newest.version >= on_topic.version) {
            return;
        }
        if let Some((other, forgotten)) = self.newest.push(task_id, on_topic)
            && other != task_id
        {
            self.unknown_until = self.unknown_until.max(forgotten.time);
        }
    }

    pub fn forget(&mut self, task_id: Uuid) {
        self.newest.pop(&task_id);
    }
}
