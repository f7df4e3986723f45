//! What every client remembers: what it sent, what it was told, and when. Plain data, so that the checker can be fed
//! histories that never happened.
//!
//! Invariant: `sent` is before the first byte went out, `told` after the last byte came in; so one request was over before
//! another began if its `told` is before the other's `sent`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::Value;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Create,
    Put,
    Patch,
    Delete,
}

#[derive(Clone, Debug)]
pub struct Write {
    /// The title that it gives the task, which no other write does: by it an event is known to be this write's. Of a
    /// deletion, a name only.
    pub tag: String,
    pub kind: Kind,
    /// `None` for a creation.
    pub task: Option<String>,
    /// The body as it was sent.
    pub fields: Value,
    /// The version in If-Match.
    pub if_match: Option<i64>,
    /// Creations of one request have the same number.
    pub batch: Option<u64>,
    pub sent: Instant,
    pub told: Instant,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// 2xx with the task as it is now; `None` for a deletion.
    Done(Option<Value>),
    /// 4xx.
    Refused(u16),
    /// No answer, or 5xx: it may have happened, and may happen yet.
    Unknown(String),
}

#[derive(Clone, Debug)]
pub struct Read {
    pub sent: Instant,
    pub told: Instant,
    pub found: Found,
}

#[derive(Clone, Debug)]
pub enum Found {
    Task(Value),
    /// 404.
    Missing(String),
    /// A list; `is_newest_first` without any filter, so that it can be told what should be on it.
    List {
        tasks: Vec<Value>,
        limit: usize,
        is_newest_first: bool,
    },
}

/// What the clients of a round have seen so far.
#[derive(Clone, Default)]
pub struct History {
    seen: Arc<Mutex<(Vec<Write>, Vec<Read>)>>,
}

impl History {
    pub fn write(&self, write: Write) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).0.push(write);
    }

    pub fn read(&self, read: Read) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).1.push(read);
    }

    pub fn take(&self) -> (Vec<Write>, Vec<Read>) {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
