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
    /// From then on what is cached may be stale.
    pub cache_from: Option<Instant>,
    /// A statement whose answer was lost is repeated, and its repetition may come second: a 404 or 412 then says nothing.
    pub repeated_statements: bool,
    /// Why produce requests may have taken effect after they were given up, and how many to one partition.
    pub delayed_requests: Vec<(&'static str, usize)>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, PartialOrd, Ord)]
pub enum Violation {
    /// What a client was told, or the database holds, is not on the topic.
    Lost,
    /// What is on the topic, or in the database, nobody wrote; or it was refused.
    Phantom,
    /// A task's versions are not 1, 2, 3 … or not in one partition.
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
    /// Second occurrences that a delayed request accounts for, by the reason.
    pub duplicates: BTreeMap<&'static str, usize>,
    pub violations: BTreeMap<Violation, usize>,
}

#[derive(Default)]
pub struct Checker {
    tasks: HashMap<String, Task>,
    /// Writes whose event was not seen yet, by their tags.
    open: HashMap<String, Write>,
    /// Tasks that someone may have deleted, whatever he was told.
    deletable: HashSet<String>,
    /// Per partition, a digest of every record: its length is the next offset.
    partitions: BTreeMap<i32, Vec<u64>>,
    round: u32,
    pub totals: Totals,
    found: Vec<(Violation, String)>,
}

/// What the topic says of a task.
#[derive(Default)]
struct Task {
    partition: i32,
    /// By version.
    events: BTreeMap<i64, Occurrence>,
    newest: i64,
    data: Value,
    is_deleted: bool,
    /// As the last round left it.
    settled: i64,
    was_deleted: bool,
}

/// The first one of an event.
struct Occurrence {
    id: String,
    record_digest: u64,
    data_digest: u64,
    round: u32,
}

impl Checker {
    /// Everything that is wrong with a round, given all rounds before it.
    pub fn check(&mut self, evidence: Evidence) -> Vec<(Violation, String)> {
        self.round += 1;
        let Evidence { writes, reads, records, tasks, excuses } = evidence;
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
        }
        self.take_in(records, &excuses);
        self.compare_with_answers(&writes, &excuses);
        self.compare_with_database(&tasks);
        self.compare_with_reads(&writes, &reads, &excuses);
        for task in self.tasks.values_mut() {
            (task.settled, task.was_deleted) = (task.newest, task.is_deleted);
        }
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
            if known.and_then(|known| known.get(offset)) != Some(&digest(record)) {
                self.violation(Violation::Altered, format!("read again, another record: {record:?}"));
            }
        }
        for (partition, known) in self.partitions.clone() {
            let count = counts.get(&partition).copied().unwrap_or_default();
            if count < known.len() {
                let text = format!("partition {partition} had {} records, and has {count}", known.len());
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
            if let Some(batch) = write.batch {
                let (happened, all) = batches.entry(batch).or_default();
                *happened += usize::from(!is_open);
                *all += 1;
            }
            match (&write.answer, write.kind) {
                (Answer::Done(_), Kind::Delete) => {
                    let task = write.task.as_ref().and_then(|task| self.tasks.get(task));
                    if !task.is_some_and(|task| task.is_deleted) {
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
            match self.tasks.get(id) {
                None => self.violation(Violation::Lost, format!("nothing on the topic of {row}")),
                Some(task) if task.is_deleted => {
                    self.violation(Violation::Phantom, format!("deleted on the topic, but there: {row}"));
                }
                Some(task) if task.newest < version => {
                    let text = format!("version {} is the last on the topic of {row}", task.newest);
                    self.violation(Violation::Lost, text);
                }
                Some(task) if task.newest > version => {
                    let text = format!("the topic has version {} of {row}", task.newest);
                    self.violation(Violation::Phantom, text);
                }
                Some(task) if task.data != *row => {
                    let text = format!("in the database {row}, on the topic {}", task.data);
                    self.violation(Violation::Altered, text);
                }
                Some(_) => {}
            }
        }
        let gone = self.tasks.iter().filter(|(id, task)| !task.is_deleted && !there.contains(id.as_str()));
        let gone: Vec<_> = gone.map(|(id, _)| format!("not in the database: {id}")).collect();
        gone.into_iter().for_each(|text| self.violation(Violation::Phantom, text));
    }

    fn violation(&mut self, violation: Violation, text: String) {
        self.found.push((violation, text));
    }
}

fn is_done(write: &Write) -> bool {
    matches!(write.answer, Answer::Done(_))
}

impl Totals {
    /// Ambiguous writes that the topic shows to have happened: every other event is of an acknowledged one.
    pub fn happened(&self) -> usize {
        let again = self.duplicates.values().sum::<usize>();
        self.records.saturating_sub(again + self.acknowledged)
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
