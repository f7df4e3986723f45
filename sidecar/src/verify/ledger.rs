//! What the topic says about each task, and how that compares with the database. Pure: fed with records and
//! snapshots.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use contract::EventType;
use uuid::Uuid;

use crate::read_back::OnRecord;

/// The database at one moment.
#[derive(Default)]
pub struct Snapshot {
    /// The version of each task.
    pub tasks: HashMap<Uuid, u64>,
    /// Each row of the outbox, and whether it is of a deletion.
    pub outbox: BTreeMap<(Uuid, u64), bool>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Finding {
    /// Committed, and neither on the topic nor in the outbox.
    Missing {
        task_id: Uuid,
        version: u64,
    },
    Doubled {
        task_id: Uuid,
        version: u64,
        partition: u32,
        offset: i64,
    },
    /// Its first occurrence comes after a newer version's.
    OutOfOrder {
        task_id: Uuid,
        version: u64,
    },
    /// Not in the partition of its task.
    Misplaced {
        task_id: Uuid,
        version: u64,
        partition: u32,
        offset: i64,
    },
    /// The database does not know of it.
    Unknown {
        task_id: Uuid,
        version: u64,
    },
}

/// What the topic says of a task.
struct Told {
    first: u64,
    newest: u64,
    newest_is_deletion: bool,
}

#[derive(Default)]
pub struct Ledger {
    pub records: u64,
    /// Records of other producers.
    pub foreign: u64,
    /// Versions of which nobody can say whether they ever were on the topic.
    pub unchecked: u64,
    told: HashMap<Uuid, Told>,
    /// Versions that were passed over, so far.
    holes: BTreeSet<(Uuid, u64)>,
    /// Partitions that have lost records to retention.
    cut: BTreeSet<u32>,
    found: Vec<Finding>,
    partitions: u32,
}

impl Ledger {
    /// The partition's first record is at this offset.
    pub fn begins(&mut self, partition: u32, earliest: i64) {
        self.partitions = self.partitions.max(partition + 1);
        if earliest > 0 {
            self.cut.insert(partition);
        }
    }

    pub fn tasks(&self) -> usize {
        self.told.len()
    }

    /// Takes in a record; `home` is the partition where it should be.
    pub fn take(&mut self, event: &OnRecord, partition: u32, offset: i64, home: u32) {
        self.records += 1;
        let OnRecord { task_id, version, event_type, .. } = *event;
        if partition != home {
            self.found.push(Finding::Misplaced { task_id, version, partition, offset });
        }
        let is_deletion = event_type == EventType::TaskDeleted;
        let is_cut = self.cut.contains(&home);
        let told = self.told.entry(task_id).or_insert_with(|| {
            // What retention has removed is not missing.
            let before = if is_cut { version } else { 1 };
            Told { first: before, newest: before - 1, newest_is_deletion: false }
        });
        if version > told.newest {
            self.holes.extend((told.newest + 1..version).map(|hole| (task_id, hole)));
            told.newest = version;
            told.newest_is_deletion = is_deletion;
        } else if self.holes.remove(&(task_id, version)) {
            self.found.push(Finding::OutOfOrder { task_id, version });
        } else if version >= told.first {
            self.found.push(Finding::Doubled { task_id, version, partition, offset });
        } else {
            self.found.push(Finding::OutOfOrder { task_id, version });
        }
    }

    /// What is wrong with the topic, the snapshot being older than its end.
    pub fn compare(&mut self, snapshot: &Snapshot) -> Vec<Finding> {
        let mut findings = std::mem::take(&mut self.found);
        for (task_id, version) in std::mem::take(&mut self.holes) {
            findings.push(match snapshot.outbox.contains_key(&(task_id, version)) {
                // Newer versions were published before it.
                true => Finding::OutOfOrder { task_id, version },
                false => Finding::Missing { task_id, version },
            });
        }
        // A deleted task is gone, but what is waiting of it says how far it went.
        let mut committed = snapshot.tasks.clone();
        for (task_id, version) in snapshot.outbox.keys() {
            committed
                .entry(*task_id)
                .and_modify(|newest| *newest = (*newest).max(*version))
                .or_insert(*version);
        }
        for (task_id, newest) in &committed {
            let is_cut = self.cut.contains(&crate::partition::of_task(*task_id, self.partitions));
            let (on_topic, is_silent) = match self.told.get(task_id) {
                Some(told) => (told.newest, false),
                None => (0, true),
            };
            for version in on_topic + 1..=*newest {
                let is_waiting = snapshot.outbox.contains_key(&(*task_id, version));
                match (is_waiting, is_silent && is_cut) {
                    (true, _) => {}
                    (false, true) => self.unchecked += 1,
                    (false, false) => findings.push(Finding::Missing { task_id: *task_id, version }),
                }
            }
        }
        findings
    }

    /// Tasks of which the topic tells more than the database did at that moment, and how much.
    pub fn unknown_to(&self, snapshot: &Snapshot) -> BTreeMap<Uuid, u64> {
        let is_unknown = |(task_id, told): &(&Uuid, &Told)| {
            let known = snapshot.tasks.get(*task_id).copied();
            if told.newest_is_deletion {
                known.is_some()
            } else {
                known.is_none_or(|known| told.newest > known)
            }
        };
        self.told.iter().filter(is_unknown).map(|(task_id, told)| (*task_id, told.newest)).collect()
    }

    /// Those of them that the database still does not know of, at a later moment that the topic has been read beyond.
    pub fn still_unknown(&self, doubtful: &BTreeMap<Uuid, u64>, later: &Snapshot) -> Vec<Finding> {
        let is_unknown = |(task_id, newest): &(&Uuid, &u64)| {
            let is_deleted = self.told.get(task_id).is_some_and(|told| told.newest_is_deletion);
            match later.tasks.get(*task_id) {
                Some(version) => *version < **newest,
                None => {
                    !is_deleted
                        && !later
                            .outbox
                            .range((**task_id, 0)..=(**task_id, u64::MAX))
                            .any(|(_, is_deletion)| *is_deletion)
                }
            }
        };
        let unknown = doubtful.iter().filter(is_unknown);
        unknown.map(|(task_id, version)| Finding::Unknown { task_id: *task_id, version: *version }).collect()
    }
}

impl Finding {
    pub const KINDS: [&str; 5] = ["missing", "doubled", "out of order", "misplaced", "unknown"];

    pub fn kind(&self) -> &'static str {
        let [missing, doubled, out_of_order, misplaced, unknown] = Finding::KINDS;
        match self {
            Finding::Missing { .. } => missing,
            Finding::Doubled { .. } => doubled,
            Finding::OutOfOrder { .. } => out_of_order,
            Finding::Misplaced { .. } => misplaced,
            Finding::Unknown { .. } => unknown,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Missing { task_id, version }
            | Finding::OutOfOrder { task_id, version }
            | Finding::Unknown { task_id, version } => write!(f, "task {task_id}, version {version}"),
            Finding::Doubled { task_id, version, partition, offset }
            | Finding::Misplaced { task_id, version, partition, offset } => {
                write!(f, "task {task_id}, version {version}, at partition {partition}, offset {offset}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds versions of tasks, the last of them a deletion if it is negative, in a topic of one partition.
    fn ledger(records: &[(u128, i64)]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.begins(0, 0);
        for (offset, (task, version)) in (0..).zip(records) {
            ledger.take(&record(*task, *version), 0, offset, 0);
        }
        ledger
    }

    fn record(task: u128, version: i64) -> OnRecord {
        let event_type = if version < 0 { EventType::TaskDeleted } else { EventType::TaskUpdated };
        OnRecord {
            task_id: Uuid::from_u128(task),
            version: version.unsigned_abs(),
            id: Uuid::nil(),
            event_type,
        }
    }

    fn snapshot(tasks: &[(u128, u64)], outbox: &[(u128, u64)]) -> Snapshot {
        Snapshot {
            tasks: tasks.iter().map(|(task, version)| (Uuid::from_u128(*task), *version)).collect(),
            outbox: outbox
                .iter()
                .map(|(task, version)| ((Uuid::from_u128(*task), *version), false))
                .collect(),
        }
    }

    fn findings(
        records: &[(u128, i64)],
        tasks: &[(u128, u64)],
        outbox: &[(u128, u64)],
    ) -> Vec<(&'static str, u64)> {
        let mut ledger = ledger(records);
        let snapshot = snapshot(tasks, outbox);
        let mut findings = ledger.compare(&snapshot);
        findings.extend(ledger.still_unknown(&ledger.unknown_to(&snapshot), &snapshot));
        let version = |finding: &Finding| match finding {
            Finding::Missing { version, .. }
            | Finding::OutOfOrder { version, .. }
            | Finding::Unknown { version, .. }
            | Finding::Doubled { version, .. }
            | Finding::Misplaced { version, .. } => *version,
        };
        findings.iter().map(|finding| (finding.kind(), version(finding))).collect()
    }

    #[test]
    fn nothing_is_wrong_with_what_is_published_or_waits() {
        assert_eq!(findings(&[(1, 1), (2, 1), (1, 2), (2, -2)], &[(1, 3), (3, 1)], &[(1, 3), (3, 1)]), []);
    }

    #[test]
    fn what_is_wrong_is_found() {
        assert_eq!(findings(&[(1, 1), (1, 3)], &[(1, 3)], &[]), [("missing", 2)]);
        assert_eq!(findings(&[(1, 2)], &[(1, 2)], &[]), [("missing", 1)]);
        assert_eq!(findings(&[], &[(1, 1)], &[]), [("missing", 1)]);
        assert_eq!(findings(&[(1, 1)], &[(1, 2)], &[]), [("missing", 2)]);
        assert_eq!(findings(&[(1, 1), (1, 2), (1, 1)], &[(1, 2)], &[]), [("doubled", 1)]);
        assert_eq!(findings(&[(1, 1), (1, 3), (1, 2)], &[(1, 3)], &[]), [("out of order", 2)]);
        assert_eq!(findings(&[(1, 1), (1, 3)], &[(1, 3)], &[(1, 2)]), [("out of order", 2)]);
        assert_eq!(findings(&[(1, 1)], &[], &[(1, 3)]), [("missing", 2), ("unknown", 1)]);
        assert_eq!(findings(&[(1, 1), (1, 2)], &[(1, 1)], &[]), [("unknown", 2)]);
        assert_eq!(findings(&[(1, 1)], &[], &[]), [("unknown", 1)]);
    }

    #[test]
    fn a_record_in_the_wrong_partition_is_misplaced() {
        let mut ledger = Ledger::default();
        ledger.begins(1, 0);
        ledger.take(&record(1, 1), 1, 7, 0);
        let misplaced =
            Finding::Misplaced { task_id: Uuid::from_u128(1), version: 1, partition: 1, offset: 7 };
        assert_eq!(ledger.compare(&snapshot(&[(1, 1)], &[])), [misplaced]);
    }

    #[test]
    fn what_retention_removed_is_not_missing() {
        let mut ledger = Ledger::default();
        ledger.begins(0, 10);
        for (offset, version) in [(10, 4), (11, 6)] {
            ledger.take(&record(1, version), 0, offset, 0);
        }
        let found = ledger.compare(&snapshot(&[(1, 6), (2, 3)], &[]));
        assert_eq!(found, [Finding::Missing { task_id: Uuid::from_u128(1), version: 5 }]);
        assert_eq!(ledger.unchecked, 3);
    }

    #[test]
    fn what_happened_after_the_first_look_is_known_to_the_second() {
        let mut ledger = ledger(&[(1, 1), (2, 1), (3, 1)]);
        let doubtful = ledger.unknown_to(&snapshot(&[], &[]));
        assert_eq!(doubtful.len(), 3);
        let mut later = snapshot(&[(1, 1)], &[]);
        later.outbox.insert((Uuid::from_u128(2), 2), true);
        ledger.take(&record(3, -2), 0, 3, 0);
        assert_eq!(ledger.still_unknown(&doubtful, &later), []);
    }
}
