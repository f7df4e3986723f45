//! Compares what clients were told, what the database holds and what is on the topic. Shares no code with the product: what
//! a task is, what a change makes of it, and what an event looks like is written down here once more.
//!
//! Invariant: a round is checked when nothing is under way any more; what it left open, writes of unknown fate, is kept
//! until the topic tells.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};
use std::time::Instant;

use serde_json::Value;
use xtask::services::TopicRecord;

use super::history::{Answer, Kind, Read, Write};

mod records; // what is on the topic
mod reads; // what was read, and when
#[cfg(test)]
mod tests; // each violation is found

/// All there is to know about a round after it.
#[derive(Default)]
pub struct Evidence {
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
    /// What is new on the topic.
    pub records: Vec<TopicRecord>,
    /// Every task that there is, as the API would show it.
    pub tasks: Vec<Value>,
    pub excuses: Excuses,
}

/// What the round's faults account for.
#[derive(Default)]
pub struct Excuses {
    pub cache: Vec<StaleCache>,
    /// A statement whose answer was lost is repeated, and its repetition may come second: a 404 or 412 then says nothing.
    pub repeated_statements: bool,
    pub delayed_requests: Vec<Delayed>,
    pub restored: Option<Restored>,
    /// How often the topic got more partitions.
    pub partition_changes: usize,
    /// In each partition: offsets without a record, where transactions ended.
    pub markers_max: usize,
}

/// Reads that were answered from then on may show what was before writes that were answered from then on.
#[derive(Clone, Copy)]
pub struct StaleCache {
    pub reads_from: Instant,
    pub writes_from: Instant,
}

/// Why events may be in a partition twice (D4).
#[derive(Clone)]
pub struct Delayed {
    pub why: &'static str,
    /// How many produce requests to one partition.
    pub requests_max: usize,
    /// `None`: all of them.
    pub partitions: Option<Vec<i32>>,
}

/// The database lost its last commits. What was answered before `copied` is there, and what was sent after `lost` is new;
/// what happened between them may be gone, and its events may be on the topic.
#[derive(Clone, Copy)]
pub struct Restored {
    pub copied: Instant,
    pub lost: Instant,
}

impl Restored {
    fn may_have_lost(&self, write: &Write) -> bool {
        write.sent < self.lost && (write.told > self.copied || matches!(write.answer, Answer::Unknown(_)))
    }
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, PartialOrd, Ord)]
pub enum Violation {
    /// What a client was told, or the database holds, is not on the topic.
    Lost,
    /// What is on the topic, or in the database, nobody wrote; or it was refused.
    Phantom,
    /// A task's versions are not 1, 2, 3 … or not in one partition, though nobody added partitions.
    Disordered,
    /// Occurrences of one event differ, or an event or task is not what its write makes it.
    Altered,
    /// A second occurrence that nothing accounts for.
    Duplicated,
    /// A read that is older than a write that was over before.
    Stale,
}

/// What was found, and how much there was to find it in.
#[derive(Default)]
pub struct Totals {
    pub acknowledged: usize,
    pub refused: usize,
    pub ambiguous: usize,
    pub reads: usize,
    /// Reads that were not asked to be fresh, since the cache could not be.
    pub reads_excused: usize,
    pub records: usize,
    /// Records of another producer.
    pub foreign: usize,
    /// Acknowledged writes that a restored database had lost before they were published.
    pub lost_by_database: usize,
    /// Second occurrences that a delayed request accounts for, by the reason.
    pub duplicates: BTreeMap<&'static str, usize>,
    pub violations: BTreeMap<Violation, usize>,
}

#[derive(Default)]
pub struct Checker {
    tasks: HashMap<String, Task>,
    /// Writes whose event was not seen yet, by their tags.
    open: HashMap<String, Write>,
    /// Of this round: writes that a restored database may have lost, by their tags.
    losable: HashMap<String, Write>,
    /// Tasks with a deletion among these.
    losable_deletions: HashSet<String>,
    /// Tasks that someone may have deleted, whatever he was told.
    deletable: HashSet<String>,
    /// Per partition, a digest of every record, or none where an offset has no record: its length is the next offset.
    partitions: BTreeMap<i32, Vec<Option<u64>>>,
    round: u32,
    /// Changes of the partition count before this round, and with it.
    partition_changes: (usize, usize),
    pub totals: Totals,
    found: Vec<(Violation, String)>,
}

/// What the topic says of a task.
#[derive(Default)]
struct Task {
    partition: i32,
    /// How often its events went on in another partition, and how often the count had changed before its first one.
    moves: usize,
    partition_changes_before: usize,
    /// The first occurrence of each event, by its id and version.
    events: HashMap<(String, i64), Occurrence>,
    /// As the last round left it, and then what this round's events made of it. There are several histories where a
    /// restored database has lost some.
    states: Vec<State>,
    /// As the last round left it.
    settled: i64,
    was_deleted: bool,
}

/// What an event makes of its task.
#[derive(Clone, Default)]
struct State {
    version: i64,
    data: Value,
    is_deleted: bool,
    /// A restored database may have lost it.
    is_losable: bool,
}

/// The first one of an event.
struct Occurrence {
    record_digest: u64,
    data_digest: u64,
    round: u32,
}

impl Task {
    fn newest(&self) -> Option<&State> {
        self.states.last()
    }

    fn is_deleted(&self) -> bool {
        self.newest().is_some_and(|state| state.is_deleted)
    }
}

impl Checker {
    /// Everything that is wrong with a round, given all rounds before it.
    pub fn check(&mut self, evidence: Evidence) -> Vec<(Violation, String)> {
        self.round += 1;
        let Evidence { writes, reads, records, tasks, excuses } = evidence;
        self.partition_changes.1 += excuses.partition_changes;
        for write in &writes {
            match &write.answer {
                Answer::Done(_) => self.totals.acknowledged += 1,
                Answer::Refused(_) => self.totals.refused += 1,
                Answer::Unknown(_) => self.totals.ambiguous += 1,
            }
            match &write.task {
                Some(task) if write.kind == Kind::Delete && !is_refused(write, &excuses) => {
                    self.deletable.insert(task.clone());
                }
                _ => {}
            }
            if write.kind != Kind::Delete {
                self.open.insert(write.tag.clone(), write.clone());
            }
            if excuses.restored.is_some_and(|restored| restored.may_have_lost(write)) {
                self.losable.insert(write.tag.clone(), write.clone());
                self.losable_deletions.extend(write.task.clone().filter(|_| write.kind == Kind::Delete));
            }
        }
        self.take_in(records, &excuses);
        self.compare_with_answers(&writes, &excuses);
        match excuses.restored {
            None => self.compare_with_database(&tasks),
            Some(_) => self.compare_with_restored_database(&tasks),
        }
        self.compare_with_reads(&writes, &reads, &excuses);
        for task in self.tasks.values_mut() {
            let state = task.states.pop().unwrap_or_default();
            (task.settled, task.was_deleted) = (state.version, state.is_deleted);
            task.states = vec![State { is_losable: false, ..state }];
        }
        self.losable.clear();
        self.losable_deletions.clear();
        self.partition_changes.0 = self.partition_changes.1;
        let found = std::mem::take(&mut self.found);
        for (violation, _) in &found {
            *self.totals.violations.entry(*violation).or_default() += 1;
        }
        found
    }

    /// The topic, read once more as a whole, holds what was seen of it round by round.
    pub fn check_again(&mut self, records: &[TopicRecord]) -> Vec<(Violation, String)> {
        let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
        for record in records {
            *counts.entry(record.partition).or_default() += 1;
            let known = self.partitions.get(&record.partition);
            let offset = usize::try_from(record.offset).unwrap_or(usize::MAX);
            if known.and_then(|known| *known.get(offset)?) != Some(digest(record)) {
                self.violation(Violation::Altered, format!("read again, another record: {record:?}"));
            }
        }
        for (partition, known) in self.partitions.clone() {
            let count = counts.get(&partition).copied().unwrap_or_default();
            let known = known.iter().flatten().count();
            if count < known {
                let text = format!("partition {partition} had {known} records, and has {count}");
                self.violation(Violation::Lost, text);
            }
        }
        let found = std::mem::take(&mut self.found);
        for (violation, _) in &found {
            *self.totals.violations.entry(*violation).or_default() += 1;
        }
        found
    }

    /// What clients were told, against the topic.
    fn compare_with_answers(&mut self, writes: &[Write], excuses: &Excuses) {
        let mut batches: HashMap<u64, (usize, usize)> = HashMap::new();
        for write in writes {
            let is_open = self.open.contains_key(&write.tag);
            let is_losable = self.losable.contains_key(&write.tag);
            if let Some(batch) = write.batch
                && !is_losable
            {
                let (happened, all) = batches.entry(batch).or_default();
                *happened += usize::from(!is_open);
                *all += 1;
            }
            match (&write.answer, write.kind) {
                (Answer::Done(_), kind) if is_losable => {
                    self.totals.lost_by_database += usize::from(is_open && kind != Kind::Delete);
                }
                (Answer::Done(_), Kind::Delete) => {
                    let task = write.task.as_ref().and_then(|task| self.tasks.get(task));
                    if !task.is_some_and(|task| task.states.iter().any(|state| state.is_deleted)) {
                        self.violation(Violation::Lost, format!("no event of {write:?}"));
                    }
                }
                (Answer::Done(_), _) if is_open => {
                    self.violation(Violation::Lost, format!("no event of {write:?}"));
                }
                _ => {}
            }
            if !matches!(write.answer, Answer::Unknown(_)) && (is_refused(write, excuses) || is_done(write)) {
                self.open.remove(&write.tag);
            }
        }
        for (happened, all) in batches.into_values() {
            if happened != 0 && happened != all {
                self.violation(Violation::Lost, format!("{happened} of a batch of {all}"));
            }
        }
    }

    /// What the database holds, against the topic.
    fn compare_with_database(&mut self, tasks: &[Value]) {
        let mut there = HashSet::new();
        for row in tasks {
            let id = row["id"].as_str().unwrap_or_default();
            there.insert(id);
            let version = row["version"].as_i64().unwrap_or_default();
            match self.tasks.get(id).and_then(Task::newest) {
                None => self.violation(Violation::Lost, format!("nothing on the topic of {row}")),
                Some(state) if state.is_deleted => {
                    self.violation(Violation::Phantom, format!("deleted on the topic, but there: {row}"));
                }
                Some(state) if state.version < version => {
                    let text = format!("version {} is the last on the topic of {row}", state.version);
                    self.violation(Violation::Lost, text);
                }
                Some(state) if state.version > version => {
                    let text = format!("the topic has version {} of {row}", state.version);
                    self.violation(Violation::Phantom, text);
                }
                Some(state) if state.data != *row => {
                    let text = format!("in the database {row}, on the topic {}", state.data);
                    self.violation(Violation::Altered, text);
                }
                Some(_) => {}
            }
        }
        let gone = self.tasks.iter().filter(|(id, task)| !task.is_deleted() && !there.contains(id.as_str()));
        let gone: Vec<_> = gone.map(|(id, _)| format!("not in the database: {id}")).collect();
        gone.into_iter().for_each(|text| self.violation(Violation::Phantom, text));
    }

    /// The same where the database has lost its last commits. Of a task's histories on the topic one is the
    /// database's; events that are in no other may only be of writes that it may have lost. After that the
    /// topic says what the database does.
    fn compare_with_restored_database(&mut self, tasks: &[Value]) {
        let rows: HashMap<_, _> =
            tasks.iter().map(|row| (row["id"].as_str().unwrap_or_default(), row)).collect();
        let mut found = Vec::new();
        for (id, row) in &rows {
            if !self.tasks.contains_key(*id) {
                found.push((Violation::Lost, format!("nothing on the topic of {row}")));
            }
        }
        for (id, task) in &mut self.tasks {
            let row = rows.get(id.as_str()).copied();
            found.extend(disagreement(id, &task.states, row));
            let settled = match row {
                Some(row) => State {
                    version: row["version"].as_i64().unwrap_or_default(),
                    data: row.clone(),
                    ..State::default()
                },
                None => {
                    let version = task.newest().map_or(0, |state| state.version);
                    State { version, is_deleted: true, ..State::default() }
                }
            };
            task.states.push(settled);
        }
        self.found.extend(found);
    }

    fn violation(&mut self, violation: Violation, text: String) {
        self.found.push((violation, text));
    }
}

/// What is wrong with a task's states on the topic, if the restored database has this row, or none.
fn disagreement(id: &str, states: &[State], row: Option<&Value>) -> Option<(Violation, String)> {
    let sure = states.iter().rfind(|state| !state.is_losable);
    let Some(row) = row else {
        let is_gone = states
            .iter()
            .any(|state| state.is_deleted && sure.is_none_or(|sure| state.version >= sure.version));
        let is_there = sure.is_some() && !is_gone;
        return is_there.then(|| (Violation::Phantom, format!("not in the database: {id}")));
    };
    let version = row["version"].as_i64().unwrap_or_default();
    if let Some(sure) = sure.filter(|sure| sure.is_deleted || sure.version > version) {
        let text = format!("the topic has version {} (deleted: {}) of {row}", sure.version, sure.is_deleted);
        return Some((Violation::Phantom, text));
    }
    let same: Vec<_> = states.iter().filter(|state| state.version == version && !state.is_deleted).collect();
    if same.is_empty() {
        return Some((Violation::Lost, format!("its last version is not on the topic: {row}")));
    }
    // A statement may have been done twice, before and after, with the same event and at another time.
    let agrees = same.iter().any(|state| state.data == *row) || same.iter().all(|state| state.is_losable);
    (!agrees).then(|| (Violation::Altered, format!("in the database {row}, on the topic something else")))
}

fn is_done(write: &Write) -> bool {
    matches!(write.answer, Answer::Done(_))
}

impl Totals {
    /// Ambiguous writes that the topic shows to have happened: every other event is of an acknowledged one.
    pub fn happened(&self) -> usize {
        let again = self.duplicates.values().sum::<usize>();
        (self.records + self.lost_by_database).saturating_sub(again + self.foreign + self.acknowledged)
    }
}

/// It was refused, and so has no event. 422 and the like are said before the database is asked; what was said of the
/// task's state is said by the statement, and of the last one only if it was repeated.
fn is_refused(write: &Write, excuses: &Excuses) -> bool {
    match write.answer {
        Answer::Refused(404 | 412) => !excuses.repeated_statements,
        Answer::Refused(_) => true,
        Answer::Done(_) | Answer::Unknown(_) => false,
    }
}

/// Of everything that a consumer gets to see, but the time that the producer set.
fn digest(record: &TopicRecord) -> u64 {
    let TopicRecord { timestamp_ms: _, partition: _, offset: _, headers, key, value } = record;
    let mut hasher = DefaultHasher::new();
    (headers, key, value).hash(&mut hasher);
    hasher.finish()
}

fn data_digest(data: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    data.to_string().hash(&mut hasher);
    hasher.finish()
}
