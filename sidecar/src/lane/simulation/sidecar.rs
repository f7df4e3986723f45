//! One sidecar of the simulation: a lane, what it waits for, and the removal behind it.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};

use crate::lane::{Gap, Lane, Next, Published};

use super::world::{Id, LIMITS, Row, id};

/// Something that the publisher waits for.
#[derive(Debug)]
pub enum Effect {
    Connect {
        from: Option<i64>,
    },
    Read {
        from: i64,
    },
    /// With what the outbox answered, however old that is when it arrives.
    Load {
        gap: Gap,
        rows: Vec<Id>,
    },
    Produce {
        number: u64,
        batch: Vec<Id>,
    },
    Park {
        id: Id,
    },
}

/// A sidecar that has the lock, or believes so.
pub struct Term {
    pub lane: Lane,
    pub effect: Option<Effect>,
    pub removals: VecDeque<Published>,
    /// As it was stored when the term began.
    pub position: Option<i64>,
    /// The rest of a page that the sweep has read.
    pub page: VecDeque<Row>,
    /// Requests that are not waited for, when nothing forbids to have several under way.
    pub behind: Vec<(u64, Vec<Id>)>,
}

impl Term {
    pub fn new(start: DateTime<Utc>, position: Option<i64>) -> Term {
        Term {
            lane: Lane::new(start, 1),
            effect: None,
            removals: VecDeque::new(),
            position,
            page: VecDeque::new(),
            behind: Vec::new(),
        }
    }

    pub fn is_idle(&self) -> bool {
        self.effect.is_none()
            && self.removals.is_empty()
            && self.behind.is_empty()
            && self.lane.pending() == 0
    }

    /// The events of the batch that the lane wants to be published.
    pub fn batch(&self) -> Vec<Id> {
        self.lane.batch().iter().map(|offered| id(&offered.event)).collect()
    }

    pub fn next(&mut self) -> Next {
        self.lane.next(LIMITS)
    }
}
