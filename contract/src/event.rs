use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::wire::{InvalidEvent, Wire};

/// One committed change of a task.
///
/// Its JSON form is a CloudEvents 1.0 event in the structured JSON format
/// (CloudEvents JSON Event Format, section 3); a list of them is a batch (section 4).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Event {
    /// Id of the event, a UUIDv7, the same at every occurrence of the event.
    pub id: Uuid,
    pub event_type: EventType,
    pub task_id: Uuid,
    /// The task's version after the change; 1 is its creation.
    pub version: u64,
    /// The event of the task before this one. None for the first, and where it is not known.
    pub previous_id: Option<Uuid>,
    /// When the change happened, to the microsecond.
    pub time: DateTime<Utc>,
    /// W3C Trace Context of the request that made the change.
    pub traceparent: Option<String>,
    /// What goes with `traceparent`, if anything does.
    pub tracestate: Option<String>,
    /// The component could not take the change's old state out of the cache, so the sidecar has to.
    pub cache_stale: bool,
    /// The record's value: `{"event_type": …, "data": …}`, JSON.
    pub payload: Box<RawValue>,
}

/// What happened to the task.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EventType {
    TaskCreated,
    TaskUpdated,
    TaskDeleted,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::TaskCreated => "TASK_CREATED",
            EventType::TaskUpdated => "TASK_UPDATED",
            EventType::TaskDeleted => "TASK_DELETED",
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventType {
    type Err = InvalidEvent;

    fn from_str(text: &str) -> Result<Self, InvalidEvent> {
        [EventType::TaskCreated, EventType::TaskUpdated, EventType::TaskDeleted]
            .into_iter()
            .find(|known| known.as_str() == text)
            .ok_or_else(|| InvalidEvent::Type(text.to_owned()))
    }
}
