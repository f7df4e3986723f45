//! What is wrong, counted by kind; of each kind only the first findings are kept, so that many cost
//! nothing.

use std::fmt;
use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::ledger::length;

/// Findings of a kind that are printed one by one.
const SHOWN_MAX: usize = 20;

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Finding {
    /// Committed, and neither on the topic nor in the outbox.
    Missing { task_id: Uuid, versions: RangeInclusive<u64> },
    /// The same event again.
    Doubled { task_id: Uuid, version: u64, partition: u32, offset: i64 },
    /// Another event with a version that the task has had already: on the topic at this partition
    /// and offset, or in the outbox.
    Conflicting { task_id: Uuid, version: u64, place: Option<(u32, i64)> },
    /// Its first occurrence comes after a newer version's.
    OutOfOrder { task_id: Uuid, versions: RangeInclusive<u64> },
    /// Not in the partition of its task, or not under its key.
    Misplaced { task_id: Uuid, version: u64, partition: u32, offset: i64 },
    /// The database does not know of it.
    Unknown { task_id: Uuid, version: u64 },
}

const KINDS: [&str; 6] = ["missing", "doubled", "conflicting", "out of order", "misplaced", "unknown"];

#[derive(Default)]
pub struct Findings {
    counts: [u64; KINDS.len()],
    shown: [Vec<Finding>; KINDS.len()],
}

impl Findings {
    pub fn add(&mut self, finding: Finding) {
        let kind = finding.kind();
        self.counts[kind] = self.counts[kind].saturating_add(finding.versions());
        if self.shown[kind].len() < SHOWN_MAX {
            self.shown[kind].push(finding);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// An object for `verify --json`: of each kind the number, and the first findings.
    pub fn to_json(&self) -> Value {
        let kinds = KINDS.iter().zip(self.counts).zip(&self.shown).map(|((kind, count), shown)| {
            let shown: Vec<Value> = shown.iter().map(Finding::to_json).collect();
            (kind.replace(' ', "_"), json!({ "count": count, "first": shown }))
        });
        Value::Object(kinds.collect::<Map<_, _>>())
    }

    #[cfg(test)]
    pub fn shown(&self) -> Vec<Finding> {
        self.shown.concat()
    }
}

impl Finding {
    fn kind(&self) -> usize {
        match self {
            Finding::Missing { .. } => 0,
            Finding::Doubled { .. } => 1,
            Finding::Conflicting { .. } => 2,
            Finding::OutOfOrder { .. } => 3,
            Finding::Misplaced { .. } => 4,
            Finding::Unknown { .. } => 5,
        }
    }

    /// What it is about: a task, versions of it, and where on the topic.
    fn subject(&self) -> (Uuid, RangeInclusive<u64>, Option<(u32, i64)>) {
        match self {
            Finding::Missing { task_id, versions } | Finding::OutOfOrder { task_id, versions } => {
                (*task_id, versions.clone(), None)
            }
            Finding::Unknown { task_id, version } => (*task_id, *version..=*version, None),
            Finding::Conflicting { task_id, version, place } => (*task_id, *version..=*version, *place),
            Finding::Doubled { task_id, version, partition, offset }
            | Finding::Misplaced { task_id, version, partition, offset } => {
                (*task_id, *version..=*version, Some((*partition, *offset)))
            }
        }
    }

    /// How many it is about.
    fn versions(&self) -> u64 {
        length(&self.subject().1)
    }

    fn to_json(&self) -> Value {
        let (task_id, versions, place) = self.subject();
        let (partition, offset) = place.unzip();
        json!({
            "task_id": task_id, "first_version": versions.start(), "last_version": versions.end(),
            "partition": partition, "offset": offset,
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (task_id, versions, place) = self.subject();
        write!(f, "task {task_id}, version {}", versions.start())?;
        if versions.start() < versions.end() {
            write!(f, " to {}", versions.end())?;
        }
        match place {
            Some((partition, offset)) => write!(f, ", at partition {partition}, offset {offset}"),
            None if matches!(self, Finding::Conflicting { .. }) => f.write_str(", in the outbox"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((kind, count), shown) in KINDS.iter().zip(self.counts).zip(&self.shown) {
            writeln!(f, "{kind:<13} {count}")?;
            for finding in shown {
                writeln!(f, "    {finding}")?;
            }
            let rest = count.saturating_sub(shown.iter().map(Finding::versions).fold(0, u64::saturating_add));
            if rest > 0 {
                writeln!(f, "    and {rest} more")?;
            }
        }
        Ok(())
    }
}
