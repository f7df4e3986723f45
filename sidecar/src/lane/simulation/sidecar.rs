//! One sidecar of the simulation: a lane, what it waits for, and the removal behind it.

use std::collections::VecDeque;

use crate::lane::{Gap, Lane, Next, Published, Start};

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
        rows: Vec<(Id, i64)>,
    },
    Produce {
        number: u64,
        batch: Vec<Id>,
    },
    Prove,
    Park {
        id: Id,
    },
}

/// A sidecar that has the lock, or believes so.
pub struct Term {
    pub lane: Lane,
    pub effect: Option<Effect>,
    pub removals: VecDeque<Published>,
    /// Removals that are done, as far as the sidecar knows.
    pub removed: u64,
    /// As it was stored when the term began.
    pub position: Option<i64>,
    /// The rest of a page that the sweep has read.
    pub page: VecDeque<Row>,
    /// Requests that are not waited for, when nothing forbids to have several under way.
    pub behind: Vec<(u64, Vec<Id>)>,
}

impl Term {
    pub fn new(start: Start, position: Option<i64>) -> Term {
        Term {
            lane: Lane::new(start),
            effect: None,
            removals: VecDeque::new(),
            removed: 0,
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
        self.lane.note_removed(self.removed);
        self.lane.next(LIMITS)
    }
}
