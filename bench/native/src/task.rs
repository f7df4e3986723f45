//! A task and its event, field for field as the component makes them.

use chrono::{DateTime, Utc};
use contract::{Event, EventType, timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use uuid::Uuid;

#[derive(Deserialize)]
pub struct NewTask {
    title: String,
    description: Option<String>,
}

#[derive(Deserialize)]
pub struct Changes {
    pub title: Option<String>,
}

#[derive(Serialize)]
pub struct Task {
    pub id: Uuid,
    pub title: String,
    pub description: Option<String>,
    pub status: &'static str,
    priority: &'static str,
    due_at: Option<String>,
    pub tags: Vec<String>,
    version: i64,
    #[serde(with = "timestamp")]
    pub created_at: DateTime<Utc>,
    #[serde(with = "timestamp")]
    updated_at: DateTime<Utc>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    event_type: EventType,
    data: &'a Task,
}

pub fn create(new: NewTask) -> (Task, Event) {
    let now = timestamp::now();
    let task = Task {
        id: Uuid::now_v7(),
        title: new.title,
        description: new.description,
        status: "todo",
        priority: "normal",
        due_at: None,
        tags: Vec::new(),
        version: 1,
        created_at: now,
        updated_at: now,
    };
    let event_type = EventType::TaskCreated;
    let event = Event {
        id: Uuid::now_v7(),
        event_type,
        task_id: task.id,
        version: 1,
        previous_id: None,
        time: now,
        traceparent: None,
        tracestate: None,
        cache_stale: false,
        payload: to_raw_value(&Envelope { event_type, data: &task })
            .expect("a task has only string keys and finite numbers"),
    };
    (task, event)
}
