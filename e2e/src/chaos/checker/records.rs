//! Each new record against what is known of its task, and against the write that it tells of.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use xtask::services::TopicRecord;

use super::super::history::{Answer, Kind, Write};
use super::{Checker, Excuses, Occurrence, State, Violation, data_digest, digest, is_refused};

/// The key of what another producer writes here.
const FOREIGN: &str = "foreign";

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
        let mut events = Vec::new();
        let mut markers: BTreeMap<i32, usize> = BTreeMap::new();
        for record in records {
            self.totals.records += 1;
            let partition = self.partitions.entry(record.partition).or_default();
            let expected = partition.len();
            let offset = usize::try_from(record.offset).unwrap_or_default();
            partition.resize(offset.max(expected), None);
            partition.push(Some(digest(&record)));
            let marker = markers.entry(record.partition).or_default();
            *marker += offset.saturating_sub(expected);
            if offset != expected && (offset < expected || *marker > excuses.markers_max) {
                self.violation(Violation::Lost, format!("offset {expected} is not there before {record:?}"));
            }
            if record.key == FOREIGN {
                self.totals.foreign += 1;
                continue;
            }
            match event(&record) {
                Ok(event) => events.push((event, record)),
                Err(error) => {
                    self.violation(Violation::Phantom, format!("no event: {error:#}: {record:?}"));
                }
            }
        }
        self.put_in_order(&mut events);
        let mut again: BTreeMap<(i32, i64), u32> = BTreeMap::new();
        for (event, record) in events {
            match self.second_occurrence(&event, &record) {
                Some(first) => drop(again.insert((record.partition, record.offset), first)),
                None => self.first_occurrence(&event, &record, excuses),
            }
        }
        let mut runs: BTreeMap<i32, Vec<Run>> = BTreeMap::new();
        for ((partition, offset), first) in again {
            let runs = runs.entry(partition).or_default();
            if runs.last().is_none_or(|run| run.next_offset != offset) {
                runs.push(Run { is_recent: true, ..Run::default() });
            }
            if let Some(run) = runs.last_mut() {
                run.next_offset = offset + 1;
                run.length += 1;
                run.is_recent &= first == self.round;
            }
        }
        self.judge_duplicates(&runs, excuses);
    }

    /// Each task's events as they are in their partition. Of a task that moved: first those in the partition where it was,
    /// then those in the partition of which the first version is the lowest.
    fn put_in_order(&self, events: &mut [(Event, TopicRecord)]) {
        let mut lowest: HashMap<(String, i32), i64> = HashMap::new();
        for (event, record) in &*events {
            let was_here = self.tasks.get(&event.task).is_some_and(|task| task.partition == record.partition);
            let version = if was_here { 0 } else { event.version };
            let lowest = lowest.entry((event.task.clone(), record.partition)).or_insert(version);
            *lowest = version.min(*lowest);
        }
        events.sort_by_cached_key(|(event, record)| {
            let first = lowest.get(&(event.task.clone(), record.partition)).copied();
            (event.task.clone(), first, record.partition, record.offset)
        });
    }

    /// The round of the first one, if there was one.
    fn second_occurrence(&mut self, event: &Event, record: &TopicRecord) -> Option<u32> {
        let task = self.tasks.get(&event.task)?;
        let first = task.events.get(&(event.id.clone(), event.version))?;
        let (round, is_same) = (first.round, first.record_digest == digest(record));
        let (partition, may_move) =
            (task.partition, self.partition_changes.1 > task.partition_changes_before);
        if !is_same && self.is_losable(event) {
            return None; // the statement was done twice, before and after
        }
        if !is_same {
            self.violation(Violation::Altered, format!("the second occurrence differs: {record:?}"));
        }
        if partition != record.partition && !may_move {
            self.violation(Violation::Disordered, format!("not in partition {partition}: {record:?}"));
        }
        Some(round)
    }

    fn first_occurrence(&mut self, event: &Event, record: &TopicRecord, excuses: &Excuses) {
        let is_losable = self.is_losable(event);
        let changes = self.partition_changes;
        let task = self.tasks.entry(event.task.clone()).or_default();
        if task.events.is_empty() {
            (task.partition, task.partition_changes_before) = (record.partition, changes.0);
        }
        let partition = task.partition;
        let has_moved = partition != record.partition;
        if has_moved {
            task.partition = record.partition;
            task.moves += 1;
        }
        let may_move = task.moves <= changes.1 - task.partition_changes_before;
        let reuses_id = !is_losable && task.events.keys().any(|(id, _)| *id == event.id);
        let states = task.states.clone();
        let occurrence = Occurrence {
            record_digest: digest(record),
            data_digest: data_digest(&event.data),
            round: self.round,
        };
        task.events.insert((event.id.clone(), event.version), occurrence);
        let newest = task.newest().map_or(0, |state| state.version);
        if event.version > newest || excuses.restored.is_some() {
            task.states.push(State {
                version: event.version,
                data: event.data.clone(),
                is_deleted: event.event_type == "TASK_DELETED",
                is_losable,
            });
        }
        if has_moved && !may_move {
            self.violation(Violation::Disordered, format!("not in partition {partition}: {record:?}"));
        }
        if reuses_id {
            self.violation(Violation::Altered, format!("has the id of another version: {record:?}"));
        }
        match excuses.restored {
            None => {
                let before = states.last().cloned().unwrap_or_default();
                self.follows(event, &before, record);
                self.compare_with_write(event, &[before], record, excuses);
            }
            Some(_) => {
                let before = self.one_that_it_follows(event, &states, is_losable, record);
                self.compare_with_write(event, &before, record, excuses);
            }
        }
    }

    fn follows(&mut self, event: &Event, before: &State, record: &TopicRecord) {
        if event.version != before.version + 1 {
            let text = format!("comes after version {}: {record:?}", before.version);
            self.violation(Violation::Disordered, text);
        }
        if before.is_deleted {
            self.violation(Violation::Phantom, format!("comes after the task's end: {record:?}"));
        }
    }

    /// Where the database lost some of its history, an event that it has follows one of its version's predecessors, and no
    /// later event that it has. What it may have lost follows anything.
    fn one_that_it_follows(
        &mut self,
        event: &Event,
        states: &[State],
        is_losable: bool,
        record: &TopicRecord,
    ) -> Vec<State> {
        let is_before = |state: &&State| state.version + 1 == event.version && !state.is_deleted;
        let mut before: Vec<_> = states.iter().filter(is_before).cloned().collect();
        if event.version == 1 {
            before.push(State::default());
        }
        if is_losable {
            return before;
        }
        if before.is_empty() {
            self.violation(Violation::Disordered, format!("what comes before it is missing: {record:?}"));
        }
        if let Some(later) = states.iter().find(|state| !state.is_losable && state.version >= event.version) {
            let text = format!("comes after version {}: {record:?}", later.version);
            self.violation(Violation::Disordered, text);
        }
        before
    }

    /// A restored database may have lost the write of this event.
    fn is_losable(&self, event: &Event) -> bool {
        match event.event_type == "TASK_DELETED" {
            true => self.losable_deletions.contains(&event.task),
            false => self.losable.contains_key(event.data["title"].as_str().unwrap_or_default()),
        }
    }

    /// The event against the write whose title it carries, after one of these states.
    fn compare_with_write(
        &mut self,
        event: &Event,
        before: &[State],
        record: &TopicRecord,
        excuses: &Excuses,
    ) {
        let is_orphan = before.is_empty(); // which was said already, or is excused
        let states: Vec<_> = before.iter().map(|state| &state.data).collect();
        if event.event_type == "TASK_DELETED" {
            if !self.deletable.contains(&event.task) {
                self.violation(Violation::Phantom, format!("nobody deleted this task: {record:?}"));
            }
            if !is_orphan && !states.contains(&&event.data) && !self.is_losable(event) {
                self.violation(Violation::Altered, format!("not the last state {states:?}: {record:?}"));
            }
            return;
        }
        let tag = event.data["title"].as_str().unwrap_or_default();
        // What was lost may have been written a second time, by who repeats a request or a statement.
        let write = self.open.remove(tag).or_else(|| self.losable.get(tag).cloned());
        let Some(write) = write else {
            let text = format!("nobody wrote this, or it was written twice: {record:?}");
            return self.violation(Violation::Phantom, text);
        };
        if is_refused(&write, excuses) {
            self.violation(Violation::Phantom, format!("{write:?} was refused: {record:?}"));
        }
        if is_orphan || self.is_losable(event) {
            return;
        }
        let fitting: Vec<_> = states.iter().map(|before| fits(event, before, &write)).collect();
        if let Some(Err(error)) = fitting.iter().find(|fit| fit.is_err())
            && fitting.iter().all(Result::is_err)
        {
            let text = format!("{error:#}: {write:?} and {record:?} after {states:?}");
            self.violation(Violation::Altered, text);
        }
    }

    /// D4: only what a delayed request can account for, and no more requests than were delayed.
    fn judge_duplicates(&mut self, again: &BTreeMap<i32, Vec<Run>>, excuses: &Excuses) {
        for (partition, runs) in again {
            let here = excuses.delayed_requests.iter().filter(|delayed| {
                delayed.partitions.as_ref().is_none_or(|partitions| partitions.contains(partition))
            });
            let mut left = here.flat_map(|delayed| vec![delayed.why; delayed.requests_max]);
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
