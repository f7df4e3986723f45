//! What a lane wants done, one thing at a time.

use uuid::Uuid;

/// What a lane wants done.
#[derive(Debug, Eq, PartialEq)]
pub enum Next {
    /// Connect to the partition. Reading it back begins at this offset, or, if none, at the stored position.
    Connect { from: Option<i64> },
    /// Read on at this offset.
    Read { from: i64 },
    /// Load a part of the outbox.
    Load(Gap),
    /// Publish the batch that is now under way.
    Publish,
    /// Park this event: it stays in the outbox, and its task's later ones behind it.
    Park(Refused),
    /// Wait until something new is offered, and ask for the partition's end when that takes too long:
    /// the queued events may be appended although they cannot be read.
    Prove,
    /// Wait until something is offered.
    Idle,
}

/// The part of the outbox that a lane needs: a task's rows after a version, up to another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gap {
    pub task_id: Uuid,
    /// The last version that is queued, or 0.
    pub after: u64,
    /// The newest version that is held.
    pub up_to: u64,
}

/// An event that the broker has refused for good, alone in its batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    pub event_id: Uuid,
    pub task_id: Uuid,
    pub version: u64,
    pub reason: String,
}

/// Events that are on the partition: their rows can go, and with them the position can be stored up to
/// which there are no others of ours.
#[derive(Debug, Eq, PartialEq)]
pub struct Published {
    pub ids: Vec<Uuid>,
    pub next_offset: i64,
}

/// How much goes into one produce request.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    pub events_max: usize,
    pub bytes_max: usize,
}
