//! A task, valid or refused. Requests are parsed here once, every bad field at a time; past this
//! point there are only valid values.

use chrono::{DateTime, Utc};
use contract::{Event, EventType, timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

/// Characters (Unicode scalar values) after trimming.
const TITLE_CHARS_MAX: usize = 200;
const DESCRIPTION_CHARS_MAX: usize = 10_000;

/// A task as the API shows it and as its events carry it.
#[derive(Clone, Debug, Serialize)]
pub struct Task {
    pub id: Uuid,
    pub title: String,
    pub description: Option<String>,
    pub status: Status,
    pub version: u64,
    #[serde(with = "timestamp")]
    pub created_at: DateTime<Utc>,
    #[serde(with = "timestamp")]
    pub updated_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Todo,
    InProgress,
    Done,
}

impl Status {
    const ALL: [Status; 3] = [Status::Todo, Status::InProgress, Status::Done];

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Todo => "todo",
            Status::InProgress => "in_progress",
            Status::Done => "done",
        }
    }
}

/// What a client asked to create.
#[derive(Debug)]
pub struct NewTask {
    title: String,
    description: Option<String>,
    status: Status,
}

/// One thing that is wrong with a request, in the words of its sender.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub struct Invalid {
    /// Where: a JSON Pointer (RFC 6901) into the body, or a parameter's name.
    #[serde(flatten)]
    pub place: Place,
    /// For people.
    pub detail: String,
    /// For programs: `required`, `type`, `length`, `value`, `unknown`.
    pub code: &'static str,
}

#[derive(Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    Pointer(String),
    Parameter(String),
}

impl Invalid {
    pub fn parameter(name: &str, code: &'static str, detail: impl Into<String>) -> Self {
        Invalid { place: Place::Parameter(name.to_owned()), detail: detail.into(), code }
    }

    fn field(name: &str, code: &'static str, detail: impl Into<String>) -> Self {
        // RFC 6901, section 3: these two characters are escaped in a pointer.
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        Invalid { place: Place::Pointer(pointer), detail: detail.into(), code }
    }
}

impl NewTask {
    /// Parses the body of a POST.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the fields below, unknown ones last.
    pub fn parse(body: Value) -> Result<NewTask, Vec<Invalid>> {
        let Value::Object(mut fields) = body else {
            let place = Place::Pointer(String::new());
            return Err(vec![Invalid {
                place,
                detail: "the body must be a JSON object".into(),
                code: "type",
            }]);
        };
        let mut invalid = Vec::new();
        let title = keep(title(&mut fields), &mut invalid);
        let description = keep(description(&mut fields), &mut invalid);
        let status = keep(status(&mut fields), &mut invalid);
        for name in fields.keys() {
            let detail = "unknown field; a new task has title, description and status";
            invalid.push(Invalid::field(name, "unknown", detail));
        }
        match (title, description, status) {
            (Some(title), Some(description), Some(status)) if invalid.is_empty() => {
                Ok(NewTask { title, description, status })
            }
            _ => Err(invalid),
        }
    }

    /// The task's first version, and the event that tells of it.
    pub fn create(self, traceparent: Option<String>) -> (Task, Event) {
        let now = timestamp::now();
        let task = Task {
            id: Uuid::now_v7(),
            title: self.title,
            description: self.description,
            status: self.status,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let event = event(EventType::TaskCreated, &task, traceparent);
        (task, event)
    }
}

/// The event of a change that led to `task`.
fn event(event_type: EventType, task: &Task, traceparent: Option<String>) -> Event {
    #[derive(Serialize)]
    struct Envelope<'a> {
        event_type: EventType,
        data: &'a Task,
    }
    let envelope = Envelope { event_type, data: task };
    Event {
        id: Uuid::now_v7(),
        event_type,
        task_id: task.id,
        version: task.version,
        time: task.updated_at,
        traceparent,
        cache_stale: false,
        payload: to_raw(&envelope),
    }
}

fn to_raw(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("a task has only string keys and finite numbers")
}

fn keep<T>(parsed: Result<T, Invalid>, invalid: &mut Vec<Invalid>) -> Option<T> {
    parsed.map_err(|error| invalid.push(error)).ok()
}

fn title(fields: &mut Map<String, Value>) -> Result<String, Invalid> {
    let refuse = |code, detail: &str| Err(Invalid::field("title", code, detail));
    let text = match fields.remove("title") {
        Some(Value::String(text)) => text,
        Some(_) => return refuse("type", "must be a string"),
        None => return refuse("required", "is required"),
    };
    let title = text.trim();
    if !(1..=TITLE_CHARS_MAX).contains(&title.chars().count()) {
        return refuse("length", "must have 1 to 200 characters, blanks at both ends not counted");
    }
    storable("title", title)?;
    Ok(title.to_owned())
}

fn description(fields: &mut Map<String, Value>) -> Result<Option<String>, Invalid> {
    let refuse = |code, detail: &str| Err(Invalid::field("description", code, detail));
    let text = match fields.remove("description") {
        Some(Value::String(text)) => text,
        Some(Value::Null) | None => return Ok(None),
        Some(_) => return refuse("type", "must be a string or null"),
    };
    if text.chars().count() > DESCRIPTION_CHARS_MAX {
        return refuse("length", "must have at most 10,000 characters");
    }
    storable("description", &text)?;
    Ok(Some(text))
}

fn status(fields: &mut Map<String, Value>) -> Result<Status, Invalid> {
    let refuse = |code, detail: &str| Err(Invalid::field("status", code, detail));
    match fields.remove("status") {
        None => Ok(Status::default()),
        Some(Value::String(text)) => match Status::ALL.into_iter().find(|status| status.as_str() == text) {
            Some(status) => Ok(status),
            None => refuse("value", "must be one of todo, in_progress, done"),
        },
        Some(_) => refuse("type", "must be a string: one of todo, in_progress, done"),
    }
}

/// PostgreSQL's text holds every character but U+0000 (PostgreSQL documentation, section 8.3).
fn storable(name: &str, text: &str) -> Result<(), Invalid> {
    if text.contains('\0') {
        return Err(Invalid::field(name, "value", "must not contain the character U+0000"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(body: Value) -> Vec<(String, &'static str)> {
        NewTask::parse(body)
            .expect_err("refused")
            .into_iter()
            .map(|invalid| match invalid.place {
                Place::Pointer(place) | Place::Parameter(place) => (place, invalid.code),
            })
            .collect()
    }

    #[test]
    fn a_title_is_enough() {
        let task = NewTask::parse(json!({ "title": "  buy milk " })).unwrap();
        assert_eq!((task.title.as_str(), task.description, task.status), ("buy milk", None, Status::Todo));
    }

    #[test]
    fn lengths_are_counted_in_characters_and_up_to_the_limit() {
        let at_the_limit = json!({ "title": "ä".repeat(200), "description": "😀".repeat(10_000) });
        NewTask::parse(at_the_limit).unwrap();
        let above = json!({ "title": "ä".repeat(201), "description": "😀".repeat(10_001) });
        assert_eq!(refused(above), [("/title".into(), "length"), ("/description".into(), "length")]);
    }

    #[test]
    fn every_bad_field_is_named_at_once() {
        let body = json!({ "title": " ", "description": 7, "status": "eaten", "prio/rity": 1 });
        assert_eq!(
            refused(body),
            [
                ("/title".into(), "length"),
                ("/description".into(), "type"),
                ("/status".into(), "value"),
                ("/prio~1rity".into(), "unknown"),
            ]
        );
    }

    #[test]
    fn what_is_not_a_task_is_refused() {
        assert_eq!(refused(json!([])), [(String::new(), "type")]);
        assert_eq!(refused(json!({})), [("/title".into(), "required")]);
        assert_eq!(refused(json!({ "title": null })), [("/title".into(), "type")]);
        assert_eq!(refused(json!({ "title": "a\0b" })), [("/title".into(), "value")]);
        assert_eq!(refused(json!({ "title": "a", "status": null })), [("/status".into(), "type")]);
    }

    #[test]
    fn the_event_carries_the_task_in_the_envelope_that_consumers_know() {
        let (task, event) = NewTask::parse(json!({ "title": "a" })).unwrap().create(None);
        let payload: Value = serde_json::from_str(event.payload.get()).unwrap();
        assert_eq!(payload, json!({ "event_type": "TASK_CREATED", "data": task }));
        assert_eq!((event.task_id, event.version, event.time), (task.id, 1, task.created_at));
    }
}
