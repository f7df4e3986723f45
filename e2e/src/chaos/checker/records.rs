//! Each new record against what is known of its task, and against the write that it tells of.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use xtask::services::TopicRecord;

use super::super::history::{Answer, Kind, Write};
use super::{Checker, Excuses, Occurrence, Violation, data_digest, digest, is_refused};

/// What an event says, wherever it says it.
struct Event {
    id: String,
    event_type: String,
    task: String,
    version: i64,
    data: Value,
}

/// Second occurrences that stand together were written by one request.
#[derive(Default)]
struct Run {
    next_offset: i64,
    length: usize,
    /// All of them had their first occurrence in this round.
    is_recent: bool,
}

impl Checker {
    pub(super) fn take_in(&mut self, mut records: Vec<TopicRecord>, excuses: &Excuses) {
        records.sort_by_key(|record| (record.partition, record.offset));
        let mut again: BTreeMap<i32, Vec<Run>> = BTreeMap::new();
        for record in records {
            self.totals.records += 1;
            let partition = self.partitions.entry(record.partition).or_default();
            let expected = partition.len() as i64;
            partition.push(digest(&record));
            if record.offset != expected {
                self.violation(Violation::Lost, format!("offset {expected} is not there before {record:?}"));
                let to = usize::try_from(record.offset).unwrap_or_default();
                self.partitions.entry(record.partition).or_default().resize(to + 1, digest(&record));
            }
            let event = match event(&record) {
                Ok(event) => event,
                Err(error) => {
                    self.violation(Violation::Phantom, format!("no event: {error:#}: {record:?}"));
                    continue;
                }
            };
            if let Some(first) = self.second_occurrence(&event, &record) {
                let runs = again.entry(record.partition).or_default();
                if runs.last().is_none_or(|run| run.next_offset != record.offset) {
                    runs.push(Run { is_recent: true, ..Run::default() });
                }
                if let Some(run) = runs.last_mut() {
                    run.next_offset = record.offset + 1;
                    run.length += 1;
                    run.is_recent &= first == self.round;
                }
            } else {
                self.first_occurrence(&event, &record, excuses);
            }
        }
        self.judge_duplicates(&again, excuses);
    }

    /// The round of the first one, if there was one.
    fn second_occurrence(&mut self, event: &Event, record: &TopicRecord) -> Option<u32> {
        let first = self.tasks.get(&event.task)?.events.get(&event.version)?;
        let round = first.round;
        if first.id != event.id || first.record_digest != digest(record) {
            self.violation(Violation::Altered, format!("the second occurrence differs: {record:?}"));
        }
        let partition = self.tasks[&event.task].partition;
        if partition != record.partition {
            self.violation(Violation::Disordered, format!("not in partition {partition}: {record:?}"));
        }
        Some(round)
    }

    fn first_occurrence(&mut self, event: &Event, record: &TopicRecord, excuses: &Excuses) {
        let task = self.tasks.entry(event.task.clone()).or_default();
        if task.events.is_empty() {
            task.partition = record.partition;
        }
        let (partition, newest, is_deleted) = (task.partition, task.newest, task.is_deleted);
        let before = task.data.clone();
        let reuses_id = task.events.values().any(|other| other.id == event.id);
        let occurrence = Occurrence {
            id: event.id.clone(),
            record_digest: digest(record),
            data_digest: data_digest(&event.data),
            round: self.round,
        };
        task.events.insert(event.version, occurrence);
        if event.version > newest {
            task.newest = event.version;
            task.data = event.data.clone();
            task.is_deleted = event.event_type == "TASK_DELETED";
        }
        if partition != record.partition {
            self.violation(Violation::Disordered, format!("not in partition {partition}: {record:?}"));
        }
        if event.version != newest + 1 {
            self.violation(Violation::Disordered, format!("comes after version {newest}: {record:?}"));
        }
        if reuses_id {
            self.violation(Violation::Altered, format!("has the id of another version: {record:?}"));
        }
        if is_deleted {
            self.violation(Violation::Phantom, format!("comes after the task's end: {record:?}"));
        }
        self.compare_with_write(event, &before, record, excuses);
    }

    /// The event against the write whose title it carries.
    fn compare_with_write(&mut self, event: &Event, before: &Value, record: &TopicRecord, excuses: &Excuses) {
        if event.event_type == "TASK_DELETED" {
            if !self.deletable.contains(&event.task) {
                self.violation(Violation::Phantom, format!("nobody deleted this task: {record:?}"));
            }
            if event.data != *before {
                self.violation(Violation::Altered, format!("not the last state {before}: {record:?}"));
            }
            return;
        }
        let tag = event.data["title"].as_str().unwrap_or_default();
        let Some(write) = self.open.remove(tag) else {
            let text = format!("nobody wrote this, or it was written twice: {record:?}");
            return self.violation(Violation::Phantom, text);
        };
        if is_refused(&write, excuses) {
            self.violation(Violation::Phantom, format!("{write:?} was refused: {record:?}"));
        }
        if let Err(error) = fits(event, before, &write) {
            self.violation(Violation::Altered, format!("{error:#}: {write:?} and {record:?} after {before}"));
        }
    }

    /// D4: only what a delayed request can account for, and no more requests than were delayed.
    fn judge_duplicates(&mut self, again: &BTreeMap<i32, Vec<Run>>, excuses: &Excuses) {
        for (partition, runs) in again {
            let mut left = excuses.delayed_requests.iter().flat_map(|(why, count)| vec![*why; *count]);
            for Run { next_offset, length, is_recent } in runs {
                match left.next() {
                    Some(reason) if *is_recent => {
                        *self.totals.duplicates.entry(reason).or_default() += length;
                    }
                    _ => {
                        let from = next_offset - *length as i64;
                        let when = if *is_recent { "" } else { ", some of them of events of earlier rounds" };
                        let text =
                            format!("{length} second occurrences in partition {partition} from {from}{when}");
                        self.found.extend((0..*length).map(|_| (Violation::Duplicated, text.clone())));
                    }
                }
            }
        }
    }
}

/// An event in the form that consumers know; everything that is said twice is said alike.
fn event(record: &TopicRecord) -> Result<Event> {
    let header = |name: &str| record.header(name).with_context(|| format!("no header {name}"));
    let value: Value = serde_json::from_str(&record.value)?;
    let (event_type, data) = (&value["event_type"], &value["data"]);
    ensure!(header("ce_type")? == event_type, "types differ");
    ensure!(data["id"] == record.key && header("ce_subject")? == record.key, "ids differ");
    let version: i64 = header("ce_sequence")?.parse().context("no version in ce_sequence")?;
    // A deletion has a version of its own, and the data of the one before.
    let of_data = version - i64::from(event_type == "TASK_DELETED");
    ensure!(data["version"] == of_data, "versions differ");
    Ok(Event {
        id: header("ce_id")?.to_owned(),
        event_type: event_type.as_str().unwrap_or_default().to_owned(),
        task: record.key.clone(),
        version,
        data: data.clone(),
    })
}

/// The event is what the write makes of the state before.
fn fits(event: &Event, before: &Value, write: &Write) -> Result<()> {
    let is_new = write.kind == Kind::Create;
    ensure!(event.event_type == if is_new { "TASK_CREATED" } else { "TASK_UPDATED" }, "another type");
    ensure!(is_new == (event.version == 1), "another version");
    ensure!(is_new || write.task.as_ref() == Some(&event.task), "another task");
    ensure!(write.if_match.is_none_or(|version| event.version == version + 1), "If-Match was not heeded");
    if let Answer::Done(Some(told)) = &write.answer {
        ensure!(*told == event.data, "not what the client was told");
    }
    let defaults = json!({
        "description": null, "status": "todo", "priority": "normal", "due_at": null, "tags": [],
    });
    let unsent = if write.kind == Kind::Patch { before } else { &defaults };
    for field in ["title", "description", "status", "priority", "due_at", "tags"] {
        let expected = write.fields.get(field).unwrap_or(&unsent[field]);
        ensure!(event.data[field] == *expected, "{field} should be {expected}");
    }
    if !is_new {
        ensure!(event.data["created_at"] == before["created_at"], "created_at has changed");
        // In one format, so that text orders as time does.
        ensure!(event.data["updated_at"].as_str() >= before["updated_at"].as_str(), "updated_at went back");
    }
    Ok(())
}
