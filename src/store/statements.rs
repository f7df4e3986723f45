//! The use cases: each is one statement, with what it asks and what it answers.

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use contract::{Event, EventType, timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use spin_sdk::pg::{Decode, Error as PgError, ParameterValue, Row};
use uuid::Uuid;

use super::{Store, StoreError, rows};
use crate::entity_tags::Conditions;
use crate::fields::{Changes, Shown};
use crate::headers::TraceContext;
use crate::query::{Cursor, Query, SortKey};
use crate::task::Task;

const INSERT_TASK: &str = include_str!("insert_task.sql");
const INSERT_TASK_ONCE: &str = include_str!("insert_task_once.sql");
const INSERT_TASKS: &str = include_str!("insert_tasks.sql");
const INSERT_TASKS_ONCE: &str = include_str!("insert_tasks_once.sql");
const REPLACE_TASK: &str = include_str!("replace_task.sql");
const CHANGE_TASK: &str = include_str!("change_task.sql");
const DELETE_TASK: &str = include_str!("delete_task.sql");
const READ_TASK: &str = include_str!("read_task.sql");
const SELECT_EVENTS: &str = include_str!("select_events.sql");
const LIST_TASKS: &str = include_str!("list_tasks.sql");

/// A task as the API shows it.
pub struct Found {
    pub document: String,
    pub version: i64,
}

/// A request that has an effect once, however often it comes.
pub struct Once {
    pub key: String,
    /// Of its body.
    pub fingerprint: String,
}

/// What became of an insertion with an idempotency key.
pub enum Inserted {
    Made,
    /// The key was used for the same request before; this is what was answered.
    Before {
        /// Of a batch there is none.
        task_id: Option<String>,
        response: String,
    },
    /// The key was used for another request.
    Other,
    /// The first request with the key is not done yet.
    InWork,
}

pub enum Changed {
    Done(Found, Event),
    /// There was nothing to change; no new version, no event.
    Same(Found),
    /// A precondition does not hold.
    Refused,
    /// These fields of the request, which only the API sets, are not the task's.
    Mismatched(Vec<&'static str>),
    Missing,
}

pub enum Deleted {
    Done(Event),
    Refused,
    Missing,
}

pub struct Page {
    /// A JSON array.
    pub list: String,
    /// The last task of the page, if others come after it.
    pub last: Option<Cursor>,
}

impl Store {
    /// Whether PostgreSQL answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.run(async |connection| rows(connection, "select 1", Vec::new()).await.map(drop)).await
    }

    /// Commits a new task and its event. Safe to repeat: the second time it does nothing.
    pub async fn insert_task(&self, task: &Task, event: &Event) -> Result<(), StoreError> {
        let mut parameters = new_task(task, event);
        parameters.push(optional(event.tracestate.as_deref()));
        self.run(async |connection| {
            connection.execute(INSERT_TASK, parameters.clone()).await?;
            Ok(())
        })
        .await
    }

    /// The same for a request with an idempotency key, whose first answer is `response`.
    pub async fn insert_task_once(
        &self,
        task: &Task,
        event: &Event,
        request: &Once,
        response: &str,
    ) -> Result<Inserted, StoreError> {
        let mut parameters = new_task(task, event);
        parameters.extend([text(&request.key), text(&request.fingerprint), text(response)]);
        parameters.push(optional(event.tracestate.as_deref()));
        inserted(&self.one_row(INSERT_TASK_ONCE, parameters).await?, request)
    }

    /// Commits many new tasks and their events, all or none. Safe to repeat.
    pub async fn insert_tasks(
        &self,
        tasks: impl IntoIterator<Item = &(Task, Event)>,
    ) -> Result<(), StoreError> {
        let parameters = vec![new_tasks(tasks)];
        self.run(async |connection| {
            connection.execute(INSERT_TASKS, parameters.clone()).await?;
            Ok(())
        })
        .await
    }

    /// The same for a request with an idempotency key, whose first answer is `response`.
    pub async fn insert_tasks_once(
        &self,
        tasks: &[(Task, Event)],
        request: &Once,
        response: &str,
    ) -> Result<Inserted, StoreError> {
        let now = time(&timestamp::now());
        let parameters =
            vec![new_tasks(tasks), text(&request.key), text(&request.fingerprint), text(response), now];
        inserted(&self.one_row(INSERT_TASKS_ONCE, parameters).await?, request)
    }

    /// Commits a change and its event, if the task is as `shown`. Safe to repeat: a statement knows
    /// its own event.
    pub async fn change_task(
        &self,
        id: Uuid,
        changes: &Changes,
        shown: &Shown,
        conditions: &Conditions,
        trace: TraceContext,
    ) -> Result<Changed, StoreError> {
        let event_id = Uuid::now_v7();
        let mut parameters = written(id, event_id, &trace, conditions);
        let mut set = |is_set: bool, value: Option<ParameterValue>| {
            parameters.push(ParameterValue::Boolean(is_set));
            parameters.push(value.unwrap_or(ParameterValue::DbNull));
        };
        set(changes.title.is_some(), changes.title.as_deref().map(text));
        set(
            changes.description.is_some(),
            changes.description.iter().flatten().next().map(|value| text(value)),
        );
        set(changes.status.is_some(), changes.status.map(|status| text(status.as_str())));
        set(
            changes.priority.is_some(),
            changes.priority.map(|priority| ParameterValue::Int16(priority.rank())),
        );
        set(changes.due_at.is_some(), changes.due_at.flatten().as_ref().map(time));
        set(changes.tags.is_some(), changes.tags.as_deref().map(texts));

        let is_shown = *shown != Shown::default();
        if is_shown {
            parameters.extend([
                shown.version.map_or(ParameterValue::DbNull, ParameterValue::Int64),
                shown.created_at.as_ref().map_or(ParameterValue::DbNull, time),
                shown.updated_at.as_ref().map_or(ParameterValue::DbNull, time),
            ]);
        }
        parameters.push(optional(trace.tracestate.as_deref()));
        let statement = if is_shown { REPLACE_TASK } else { CHANGE_TASK };
        let Some(row) = self.rows(statement, parameters).await?.pop() else {
            return Ok(Changed::Missing);
        };
        if !get::<bool>(&row, "allowed")? {
            return if is_shown { refused(&row) } else { Ok(Changed::Refused) };
        }
        let (Some(document), Some(version)) = (get(&row, "document")?, get(&row, "version")?) else {
            return Err(StoreError::Unavailable(anyhow!(
                "the answer to a change was lost, and before it could be repeated others changed the task"
            )));
        };
        let found = Found { document, version };
        match written_event(&row, event_id, EventType::TaskUpdated, id, found.version, trace)? {
            Some(event) => Ok(Changed::Done(found, event)),
            None => Ok(Changed::Same(found)),
        }
    }

    /// Commits a deletion and its event. When it is repeated because an answer was lost and finds no
    /// task, it cannot be known whether the first one deleted it.
    pub async fn delete_task(
        &self,
        id: Uuid,
        conditions: &Conditions,
        trace: TraceContext,
    ) -> Result<Deleted, StoreError> {
        let event_id = Uuid::now_v7();
        let mut parameters = written(id, event_id, &trace, conditions);
        parameters.push(optional(trace.tracestate.as_deref()));
        let Some(row) = self.rows(DELETE_TASK, parameters).await?.pop() else {
            return Ok(Deleted::Missing);
        };
        let version: Option<i64> = get(&row, "version")?;
        let Some(version) = version else {
            return Ok(Deleted::Refused);
        };
        let event = written_event(&row, event_id, EventType::TaskDeleted, id, version, trace)?;
        event.map(Deleted::Done).ok_or_else(|| StoreError::Refused(anyhow!("a deletion without an event")))
    }

    pub async fn read_task(&self, id: Uuid) -> Result<Option<Found>, StoreError> {
        let row = self.rows(READ_TASK, vec![uuid(id)]).await?.pop();
        row.map(|row| Ok(Found { document: get(&row, "document")?, version: get(&row, "version")? }))
            .transpose()
    }

    /// A task's unpublished events as a JSON array. Nothing if there is neither task nor event.
    pub async fn select_events(&self, id: Uuid) -> Result<Option<String>, StoreError> {
        let row = self.one_row(SELECT_EVENTS, vec![uuid(id)]).await?;
        let (found, events): (bool, String) = (get(&row, "found")?, get(&row, "events")?);
        Ok((found || events != "[]").then_some(events))
    }

    pub async fn list_tasks(&self, query: &Query) -> Result<Page, StoreError> {
        let (last_key, last_id) = match &query.after {
            Some(cursor) => (text(&cursor.key), uuid(cursor.id)),
            None => (ParameterValue::DbNull, ParameterValue::DbNull),
        };
        let parameters = vec![
            optional(query.status.map(crate::task::Status::as_str)),
            query.priority.map_or(ParameterValue::DbNull, |priority| ParameterValue::Int16(priority.rank())),
            if query.tags.is_empty() { ParameterValue::DbNull } else { texts(&query.tags) },
            optional(query.due_before.as_deref()),
            optional(query.words.as_deref()),
            last_key,
            last_id,
            ParameterValue::Int64(query.limit.into()),
            ParameterValue::Int64(query.offset.into()),
        ];
        let row = self.one_row(&list_statement(query), parameters).await?;
        let (key, id): (Option<String>, Option<String>) = (get(&row, "last_key")?, get(&row, "last_id")?);
        let id = id.and_then(|id| Uuid::try_parse(&id).ok());
        let last = key.zip(id).map(|(key, id)| Cursor::new(query.sort, key, id));
        Ok(Page { list: get(&row, "list")?, last })
    }

    async fn rows(&self, statement: &str, parameters: Vec<ParameterValue>) -> Result<Vec<Row>, StoreError> {
        self.run(async |connection| rows(connection, statement, parameters.clone()).await).await
    }

    async fn one_row(&self, statement: &str, parameters: Vec<ParameterValue>) -> Result<Row, StoreError> {
        let row = self.rows(statement, parameters).await?.pop();
        row.ok_or_else(|| StoreError::Refused(anyhow!("a statement that has one row gave none")))
    }
}

/// The statement of a list in its order. `e2e` prepares each of them.
fn list_statement(query: &Query) -> String {
    const TIME: &str = r#"to_char({key} at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#;
    let (key, key_text, key_type) = match query.sort.key {
        SortKey::CreatedAt => ("created_at", TIME, "timestamptz"),
        SortKey::UpdatedAt => ("updated_at", TIME, "timestamptz"),
        SortKey::DueAt => (
            "coalesce(due_at, 'infinity')",
            "case when due_at is null then 'infinity' else {time} end",
            "timestamptz",
        ),
        SortKey::Priority => ("priority", "priority::text", "int2"),
    };
    let (direction, after) = if query.sort.ascending { ("asc", ">") } else { ("desc", "<") };
    LIST_TASKS
        .replace("{key_text}", key_text)
        .replace("{time}", &TIME.replace("{key}", "due_at"))
        .replace("{key}", key)
        .replace("{type}", key_type)
        .replace("{direction}", direction)
        .replace("{after}", after)
}

fn new_task(task: &Task, event: &Event) -> Vec<ParameterValue> {
    vec![
        uuid(task.id),
        text(&task.title),
        optional(task.description.as_deref()),
        text(task.status.as_str()),
        ParameterValue::Int16(task.priority.rank()),
        task.due_at.as_ref().map_or(ParameterValue::DbNull, time),
        texts(&task.tags),
        time(&task.created_at),
        uuid(event.id),
        text(event.event_type.as_str()),
        text(event.payload.get()),
        optional(event.traceparent.as_deref()),
    ]
}

fn new_tasks<'a>(tasks: impl IntoIterator<Item = &'a (Task, Event)>) -> ParameterValue {
    /// A row of the statement's input; the ranks of priorities are the database's own.
    #[derive(Serialize)]
    struct Input<'a> {
        #[serde(flatten)]
        task: &'a Task,
        rank: i16,
        event_id: Uuid,
        r#type: EventType,
        payload: &'a str,
        traceparent: Option<&'a str>,
        tracestate: Option<&'a str>,
    }
    let input = tasks.into_iter().map(|(task, event)| Input {
        task,
        rank: task.priority.rank(),
        event_id: event.id,
        r#type: event.event_type,
        payload: event.payload.get(),
        traceparent: event.traceparent.as_deref(),
        tracestate: event.tracestate.as_deref(),
    });
    let input = serde_json::to_string(&input.collect::<Vec<_>>()).expect("a task has only string keys");
    ParameterValue::Str(input)
}

/// What became of an insertion with an idempotency key.
fn inserted(row: &Row, request: &Once) -> Result<Inserted, StoreError> {
    if get(row, "made")? {
        return Ok(Inserted::Made);
    }
    let first: Option<String> = get(row, "fingerprint")?;
    match first {
        None => Ok(Inserted::InWork),
        Some(first) if first == request.fingerprint => {
            Ok(Inserted::Before { task_id: get(row, "task_id")?, response: get(row, "response")? })
        }
        Some(_) => Ok(Inserted::Other),
    }
}

/// Why a task was not replaced. If nothing in the row says so, others changed the task while it was
/// compared.
fn refused(row: &Row) -> Result<Changed, StoreError> {
    if !get::<bool>(row, "preconditions_hold")? {
        return Ok(Changed::Refused);
    }
    let mut mismatched = Vec::new();
    for name in ["version", "created_at", "updated_at"] {
        if !get::<bool>(row, &format!("{name}_fits"))? {
            mismatched.push(name);
        }
    }
    Ok(if mismatched.is_empty() { Changed::Refused } else { Changed::Mismatched(mismatched) })
}

/// What a change and a deletion have in common.
fn written(id: Uuid, event_id: Uuid, trace: &TraceContext, conditions: &Conditions) -> Vec<ParameterValue> {
    let versions = |versions: Option<Vec<i64>>| match versions {
        Some(versions) => ParameterValue::ArrayInt64(versions.into_iter().map(Some).collect()),
        None => ParameterValue::DbNull,
    };
    vec![
        uuid(id),
        uuid(event_id),
        time(&timestamp::now()),
        optional(trace.traceparent.as_deref()),
        versions(conditions.one_of()),
        versions(conditions.none_of()),
    ]
}

/// The event that a statement wrote, if it wrote one: its payload comes back as it was committed.
fn written_event(
    row: &Row,
    id: Uuid,
    event_type: EventType,
    task_id: Uuid,
    version: i64,
    trace: TraceContext,
) -> Result<Option<Event>, StoreError> {
    let payload: Option<String> = get(row, "payload")?;
    let Some(payload) = payload else {
        return Ok(None);
    };
    let time: String = get(row, "time")?;
    let previous_id: Option<String> = get(row, "previous_id")?;
    let broken =
        |error: &dyn std::fmt::Display| StoreError::Refused(anyhow!("an event that cannot be read: {error}"));
    Ok(Some(Event {
        id,
        event_type,
        task_id,
        version: u64::try_from(version).map_err(|error| broken(&error))?,
        previous_id: previous_id.and_then(|id| Uuid::try_parse(&id).ok()),
        time: time.parse::<DateTime<Utc>>().map_err(|error| broken(&error))?,
        traceparent: trace.traceparent,
        tracestate: trace.tracestate,
        cache_stale: false,
        payload: RawValue::from_string(payload).map_err(|error| broken(&error))?,
    }))
}

fn get<T: Decode>(row: &Row, column: &str) -> Result<T, StoreError> {
    row.get(column).ok_or_else(|| {
        let error = PgError::Decode(format!("column {column} is not there, or not of its type"));
        StoreError::Refused(error.into())
    })
}

fn uuid(id: Uuid) -> ParameterValue {
    ParameterValue::Uuid(id.to_string())
}

fn text(text: &str) -> ParameterValue {
    ParameterValue::Str(text.to_owned())
}

fn optional(value: Option<&str>) -> ParameterValue {
    value.map_or(ParameterValue::DbNull, text)
}

fn texts(texts: &[String]) -> ParameterValue {
    ParameterValue::ArrayStr(texts.iter().cloned().map(Some).collect())
}

fn time(time: &DateTime<Utc>) -> ParameterValue {
    text(&timestamp::to_text(time))
}
