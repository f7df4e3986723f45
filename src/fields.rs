//! The body of a request, valid or refused: parsed once, every bad field at a time. Past this point
//! there are only valid values.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike as _, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::task::{Priority, Status};

/// Characters (Unicode scalar values); a title's are counted after trimming.
pub const TITLE_CHARS_MAX: usize = 200;
pub const DESCRIPTION_CHARS_MAX: usize = 10_000;
pub const TAGS_MAX: usize = 20;
pub const TAG_CHARS_MAX: usize = 50;
/// Tasks of one batch.
pub const BATCH_TASKS_MAX: usize = 500;
/// Errors that one answer lists; it has the number of the others.
pub const ERRORS_LISTED_MAX: usize = 50;
/// Of a client's name in an error.
const NAME_CHARS_MAX: usize = 100;

/// What a client asked to create.
#[derive(Debug, ToSchema)]
#[schema(description = "A task to be: what is absent is as the defaults say.")]
pub struct NewTask {
    /// Blanks at both ends are cut and not counted.
    #[schema(examples("buy milk"))]
    pub title: String,
    pub description: Option<String>,
    #[schema(required = false)]
    pub status: Status,
    #[schema(required = false)]
    pub priority: Priority,
    /// With its offset; kept to the microsecond, and shown in UTC.
    #[schema(examples("2026-12-24T18:00:00Z"))]
    pub due_at: Option<DateTime<Utc>>,
    #[schema(required = false)]
    pub tags: Vec<String>,
}

/// What a client asked to change: a field is set if there is something in it.
#[derive(Debug, Default, ToSchema)]
#[schema(
    as = TaskPatch,
    description = "A JSON Merge Patch (RFC 7396): what is absent stays as it is, and null removes."
)]
pub struct Changes {
    /// Blanks at both ends are cut and not counted.
    #[schema(nullable = false)]
    pub title: Option<String>,
    pub description: Option<Option<String>>,
    #[schema(nullable = false)]
    pub status: Option<Status>,
    #[schema(nullable = false)]
    pub priority: Option<Priority>,
    pub due_at: Option<Option<DateTime<Utc>>>,
    #[schema(nullable = false)]
    pub tags: Option<Vec<String>>,
}

/// What a PUT's body says of the fields that only the API sets: a GET's body can be sent back with
/// PUT, as long as they fit the task.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Shown {
    pub id: Option<Uuid>,
    pub version: Option<i64>,
    pub created_at: Option<DateTime<Utc>>,
    pub updated_at: Option<DateTime<Utc>>,
}

/// One thing that is wrong with a request, in the words of its sender.
#[derive(Debug, Eq, PartialEq, Serialize, ToSchema)]
#[schema(description = "One thing that is wrong with a request, and where.")]
pub struct Invalid {
    #[serde(flatten)]
    pub place: Place,
    /// For people.
    pub detail: String,
    /// For programs: `required`, `type`, `length`, `value`, `unknown`.
    pub code: &'static str,
}

#[derive(Debug, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A JSON Pointer (RFC 6901) into the body.
    Pointer(String),
    /// The name of a parameter in path or query.
    Parameter(String),
    /// The name of a header.
    Header(String),
}

/// Everything that is wrong with a request: the first [`ERRORS_LISTED_MAX`], and how many others
/// there are.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Errors {
    listed: Vec<Invalid>,
    omitted: usize,
}

impl Errors {
    /// Past the limit an error is only counted, and not made.
    pub fn push(&mut self, invalid: impl FnOnce() -> Invalid) {
        if self.listed.len() < ERRORS_LISTED_MAX {
            self.listed.push(invalid());
        } else {
            self.omitted += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    pub fn listed(&self) -> &[Invalid] {
        &self.listed
    }

    pub fn omitted(&self) -> usize {
        self.omitted
    }
}

impl From<Invalid> for Errors {
    fn from(invalid: Invalid) -> Self {
        Errors { listed: vec![invalid], omitted: 0 }
    }
}

impl Invalid {
    /// The name is the client's if the parameter is unknown, so its length is bounded here.
    pub fn parameter(name: &str, code: &'static str, detail: impl Into<String>) -> Self {
        let name = name.chars().take(NAME_CHARS_MAX).collect();
        Invalid { place: Place::Parameter(name), detail: detail.into(), code }
    }

    pub fn header(name: &str, code: &'static str, detail: impl Into<String>) -> Self {
        Invalid { place: Place::Header(name.to_owned()), detail: detail.into(), code }
    }

    pub fn at(pointer: String, code: &'static str, detail: impl Into<String>) -> Self {
        Invalid { place: Place::Pointer(pointer), detail: detail.into(), code }
    }
}

impl NewTask {
    /// Parses the body of a POST.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the fields above, unknown ones last.
    pub fn parse(body: Value) -> Result<NewTask, Errors> {
        let mut parser = Parser::default();
        let new = parser.new_task(body, "");
        parser.finish(new)
    }

    /// Parses the body of a PUT: as full as a POST's, or what a GET shows.
    ///
    /// # Errors
    /// As for a POST.
    pub fn parse_put(mut body: Value) -> Result<(NewTask, Shown), Errors> {
        let mut parser = Parser::default();
        let shown = body.as_object_mut().map(|fields| parser.shown(fields)).unwrap_or_default();
        let new = parser.new_task(body, "");
        parser.finish(new.map(|new| (new, shown)))
    }

    /// Parses the body of a batch: an array of new tasks.
    ///
    /// # Errors
    /// As for one task; the pointers begin with a task's place in the array.
    pub fn parse_batch(body: Value) -> Result<Vec<NewTask>, Errors> {
        let refuse = |code, detail| Err(Invalid::at(String::new(), code, detail).into());
        let Value::Array(items) = body else {
            return refuse("type", "the body must be a JSON array of tasks");
        };
        if !(1..=BATCH_TASKS_MAX).contains(&items.len()) {
            return refuse("length", "a batch has 1 to 500 tasks");
        }
        let mut parser = Parser::default();
        let tasks: Vec<_> = items
            .into_iter()
            .enumerate()
            .filter_map(|(place, item)| parser.new_task(item, &format!("/{place}")))
            .collect();
        parser.finish(Some(tasks))
    }
}

impl Changes {
    /// What a PUT sets: every field, those that are absent to what a new task has.
    pub fn all(new: NewTask) -> Changes {
        Changes {
            title: Some(new.title),
            description: Some(new.description),
            status: Some(new.status),
            priority: Some(new.priority),
            due_at: Some(new.due_at),
            tags: Some(new.tags),
        }
    }

    /// Parses a JSON Merge Patch (RFC 7396): absent leaves a field as it is, null removes it, which a
    /// task can do without for description and due_at only.
    ///
    /// # Errors
    /// As for a new task.
    pub fn parse_patch(body: Value) -> Result<Changes, Errors> {
        let mut parser = Parser::default();
        let changes = parser.changes(body, "");
        parser.finish(changes)
    }
}

/// Collects what is wrong on the way.
#[derive(Default)]
struct Parser {
    errors: Errors,
}

impl Parser {
    fn finish<T>(self, parsed: Option<T>) -> Result<T, Errors> {
        match parsed {
            Some(parsed) if self.errors.is_empty() => Ok(parsed),
            _ => Err(self.errors),
        }
    }

    /// Takes these fields out of a body.
    fn shown(&mut self, fields: &mut Map<String, Value>) -> Shown {
        let mut take = |name, detail| fields.remove(name).map(|value| (name, value, detail));
        let id = take("id", "must be the task's id, a UUID");
        let version = take("version", "must be the task's version, a whole number from 1 on");
        let created_at = take("created_at", TIME);
        let updated_at = take("updated_at", TIME);
        let uuid = |value: &Value| Uuid::try_parse(value.as_str()?).ok();
        let time = |value: &Value| parse_time(value.as_str()?);
        Shown {
            id: self.shown_field(id, uuid),
            version: self.shown_field(version, |value| value.as_i64().filter(|version| *version > 0)),
            created_at: self.shown_field(created_at, time),
            updated_at: self.shown_field(updated_at, time),
        }
    }

    fn shown_field<T>(
        &mut self,
        field: Option<(&str, Value, &str)>,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let (name, value, detail) = field?;
        parse(&value).or_else(|| self.refuse("", name, "value", detail))
    }

    fn new_task(&mut self, body: Value, at: &str) -> Option<NewTask> {
        let lacks_title = body.as_object().is_some_and(|fields| !fields.contains_key("title"));
        if lacks_title {
            self.refuse::<()>(at, "title", "required", "is required");
        }
        let changes = self.changes(body, at)?;
        Some(NewTask {
            title: changes.title?,
            description: changes.description.flatten(),
            status: changes.status.unwrap_or_default(),
            priority: changes.priority.unwrap_or_default(),
            due_at: changes.due_at.flatten(),
            tags: changes.tags.unwrap_or_default(),
        })
    }

    fn changes(&mut self, body: Value, at: &str) -> Option<Changes> {
        let Value::Object(mut fields) = body else {
            self.errors.push(|| Invalid::at(at.to_owned(), "type", "must be a JSON object: a task"));
            return None;
        };
        let mut take = |name| Map::remove(&mut fields, name);
        let changes = Changes {
            title: take("title").and_then(|value| self.title(value, at)),
            description: take("description").and_then(|value| self.description(value, at)),
            status: take("status").and_then(|value| {
                self.choice(value, at, "status", "must be one of todo, in_progress, done", Status::parse)
            }),
            priority: take("priority").and_then(|value| {
                self.choice(value, at, "priority", "must be one of low, normal, high", Priority::parse)
            }),
            due_at: take("due_at").and_then(|value| self.due_at(value, at)),
            tags: take("tags").and_then(|value| self.tags(value, at)),
        };
        for name in fields.keys() {
            if name.chars().count() > NAME_CHARS_MAX {
                let detail = "has an unknown field, whose name is too long to be told";
                self.errors.push(|| Invalid::at(at.to_owned(), "unknown", detail));
            } else {
                let detail =
                    "unknown field; a task has title, description, status, priority, due_at and tags";
                self.refuse::<()>(at, name, "unknown", detail);
            }
        }
        Some(changes)
    }

    fn title(&mut self, value: Value, at: &str) -> Option<String> {
        let Value::String(text) = value else {
            return self.refuse(at, "title", "type", "must be a string");
        };
        let title = text.trim();
        if !(1..=TITLE_CHARS_MAX).contains(&title.chars().count()) {
            let detail = "must have 1 to 200 characters, blanks at both ends not counted";
            return self.refuse(at, "title", "length", detail);
        }
        self.storable(title, at, "title")?;
        Some(title.to_owned())
    }

    fn description(&mut self, value: Value, at: &str) -> Option<Option<String>> {
        let text = match value {
            Value::Null => return Some(None),
            Value::String(text) => text,
            _ => return self.refuse(at, "description", "type", "must be a string or null"),
        };
        if text.chars().count() > DESCRIPTION_CHARS_MAX {
            return self.refuse(at, "description", "length", "must have at most 10,000 characters");
        }
        self.storable(&text, at, "description")?;
        Some(Some(text))
    }

    fn choice<T>(
        &mut self,
        value: Value,
        at: &str,
        name: &str,
        choices: &str,
        parse: fn(&str) -> Option<T>,
    ) -> Option<T> {
        match value {
            Value::String(text) => match parse(&text) {
                Some(choice) => Some(choice),
                None => self.refuse(at, name, "value", choices),
            },
            _ => self.refuse(at, name, "type", choices),
        }
    }

    fn due_at(&mut self, value: Value, at: &str) -> Option<Option<DateTime<Utc>>> {
        match value {
            Value::Null => Some(None),
            Value::String(text) => match parse_time(&text) {
                Some(time) => Some(Some(time)),
                None => self.refuse(at, "due_at", "value", TIME),
            },
            _ => self.refuse(at, "due_at", "type", "must be a string or null"),
        }
    }

    fn tags(&mut self, value: Value, at: &str) -> Option<Vec<String>> {
        let Value::Array(items) = value else {
            return self.refuse(at, "tags", "type", "must be an array of strings");
        };
        if items.len() > TAGS_MAX {
            return self.refuse(at, "tags", "length", "must be at most 20 tags");
        }
        let mut tags = Vec::new();
        let mut seen = BTreeSet::new();
        for (place, item) in items.into_iter().enumerate() {
            let name = format!("tags/{place}");
            let problem = match &item {
                Value::String(tag) if !(1..=TAG_CHARS_MAX).contains(&tag.chars().count()) => {
                    ("length", "must have 1 to 50 characters")
                }
                Value::String(tag) if tag.contains('\0') => ("value", NO_NUL),
                Value::String(tag) if !seen.insert(tag.clone()) => ("value", "stands among the tags already"),
                Value::String(tag) => {
                    tags.push(tag.clone());
                    continue;
                }
                _ => ("type", "must be a string"),
            };
            // The slash is a pointer's own here, and not a part of the name.
            self.errors.push(|| Invalid::at(format!("{at}/{name}"), problem.0, problem.1));
        }
        Some(tags)
    }

    fn storable(&mut self, text: &str, at: &str, name: &str) -> Option<()> {
        if text.contains('\0') { self.refuse(at, name, "value", NO_NUL) } else { Some(()) }
    }

    fn refuse<T>(&mut self, at: &str, name: &str, code: &'static str, detail: &str) -> Option<T> {
        self.errors.push(|| {
            // RFC 6901, section 3: these two characters are escaped in a pointer.
            let name = name.replace('~', "~0").replace('/', "~1");
            Invalid::at(format!("{at}/{name}"), code, detail)
        });
        None
    }
}

/// PostgreSQL's text holds every character but this one (PostgreSQL documentation, section 8.3).
pub const NO_NUL: &str = "must not contain the character U+0000";

pub const TIME: &str = "must be a time with its offset as in RFC 3339, such as 2026-12-24T18:00:00Z, \
                        in a year from 0001 to 9999";

/// RFC 3339, cut to the microseconds that PostgreSQL keeps. A leap second is the beginning of the next one, as it is to
/// PostgreSQL.
pub fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::from_timestamp_micros(DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros())?;
    (1..=9999).contains(&time.year()).then_some(time)
}

#[cfg(test)]
mod tests;
