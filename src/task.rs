//! A task, and what becomes of it: created, changed, deleted, each with the event that tells of it.

use chrono::{DateTime, Utc};
use contract::{Event, EventType, timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::fields::NewTask;
use crate::headers::TraceContext;

/// A task as the API shows it and as its events carry it. The function `task_document` of the
/// migrations writes the same JSON, field for field.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(description = "A task.")]
pub struct Task {
    /// A UUIDv7.
    pub id: Uuid,
    #[schema(examples("buy milk"))]
    pub title: String,
    #[schema(required = true)]
    pub description: Option<String>,
    pub status: Status,
    pub priority: Priority,
    #[serde(with = "timestamp::option")]
    #[schema(required = true)]
    pub due_at: Option<DateTime<Utc>>,
    pub tags: Vec<String>,
    /// Counts the changes, from 1 on; the entity tag is made of it.
    #[schema(minimum = 1)]
    pub version: u64,
    #[serde(with = "timestamp")]
    pub created_at: DateTime<Utc>,
    #[serde(with = "timestamp")]
    pub updated_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Todo,
    InProgress,
    Done,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Todo => "todo",
            Status::InProgress => "in_progress",
            Status::Done => "done",
        }
    }

    pub fn parse(text: &str) -> Option<Status> {
        [Status::Todo, Status::InProgress, Status::Done].into_iter().find(|known| known.as_str() == text)
    }
}

impl Priority {
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
        }
    }

    pub fn parse(text: &str) -> Option<Priority> {
        [Priority::Low, Priority::Normal, Priority::High].into_iter().find(|known| known.as_str() == text)
    }

    /// As the database stores it, so that it sorts.
    pub fn rank(self) -> i16 {
        match self {
            Priority::Low => 0,
            Priority::Normal => 1,
            Priority::High => 2,
        }
    }
}

/// The first version of a task, and its event.
pub fn create(new: NewTask, trace: TraceContext) -> (Task, Event) {
    let now = timestamp::now();
    let task = Task {
        id: Uuid::now_v7(),
        title: new.title,
        description: new.description,
        status: new.status,
        priority: new.priority,
        due_at: new.due_at,
        tags: new.tags,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    let event = Event {
        id: Uuid::now_v7(),
        event_type: EventType::TaskCreated,
        task_id: task.id,
        version: task.version,
        previous_id: None,
        time: now,
        traceparent: trace.traceparent,
        tracestate: trace.tracestate,
        cache_stale: false,
        payload: envelope(EventType::TaskCreated, &task),
    };
    (task, event)
}

/// What existing consumers of the topic read.
fn envelope(event_type: EventType, data: &Task) -> Box<RawValue> {
    #[derive(Serialize)]
    struct Envelope<'a> {
        event_type: EventType,
        data: &'a Task,
    }
    serde_json::value::to_raw_value(&Envelope { event_type, data })
        .expect("a task has only string keys and finite numbers")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_event_carries_the_task_in_the_envelope_that_consumers_know() {
        let (task, event) = create(NewTask::parse(json!({ "title": "a" })).unwrap(), TraceContext::default());
        let payload: Value = serde_json::from_str(event.payload.get()).unwrap();
        assert_eq!(payload, json!({ "event_type": "TASK_CREATED", "data": task }));
        assert_eq!((event.task_id, event.version, event.time), (task.id, 1, task.created_at));
    }
}
