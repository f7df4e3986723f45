//! What the topic says about each task, and how that compares with the database. Pure: fed with
//! records and snapshots. What a record claims costs no memory: versions are kept as ranges,
//! findings are counted, and a task has a limit on all that is kept of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::RangeInclusive;

use contract::EventType;
use serde_json::{Value, json};
use uuid::Uuid;

use super::findings::{Finding, Findings};
use crate::layout::Layouts;
use crate::read_back::OnRecord;

/// The newest versions of a task of which the ids are kept, to tell a repetition from another
/// event.
const IDS_MAX: usize = 4;

/// Ranges of versions of one task that were passed over. Past it the oldest is not checked.
const HOLES_MAX: usize = 64;

/// The database at one moment.
#[derive(Default)]
pub struct Snapshot {
    /// The version of each task.
    pub tasks: HashMap<Uuid, u64>,
    pub outbox: BTreeMap<(Uuid, u64), Row>,
}

/// A row of the outbox.
#[derive(Clone, Copy)]
pub struct Row {
    pub event_id: Uuid,
    pub is_deletion: bool,
}

impl Snapshot {
    /// The newest version of a task that is known to be committed. A deleted task is gone, but what
    /// is waiting of it says how far it went.
    fn committed(&self, task_id: Uuid) -> Option<u64> {
        let waiting = self.of_task(task_id, 0..=u64::MAX).next_back().map(|(version, _)| version);
        waiting.max(self.tasks.get(&task_id).copied())
    }

    fn of_task(
        &self,
        task_id: Uuid,
        versions: RangeInclusive<u64>,
    ) -> impl DoubleEndedIterator<Item = (u64, Row)> {
        let rows = self.outbox.range((task_id, *versions.start())..=(task_id, *versions.end()));
        rows.map(|((_, version), row)| (*version, *row))
    }
}

/// What the topic says of a task.
struct Told {
    first: u64,
    newest: u64,
    newest_is_deletion: bool,
    /// Where the newest was found, and how many offsets before it had no record, or none that could
    /// be read.
    partition: u32,
    void: u64,
    skipped: u64,
    /// Of the newest versions, the newest first, by their parts that are random; 0 if not known.
    ids: [u64; IDS_MAX],
}

/// Versions that were passed over, so far.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Hole {
    versions: RangeInclusive<u64>,
    /// Of the records around it. One that fills it from another partition is older than a change of
    /// their number.
    partition: u32,
    /// Compaction, or retention, may have removed them: there are offsets without records between
    /// those two.
    may_be_removed: bool,
}

#[derive(Clone, Default)]
struct Partition {
    /// It has lost records to retention.
    is_cut: bool,
    /// Offsets without a record that can be read: compaction and transactions leave such.
    void: u64,
    /// Those of them that may have one that cannot be decoded.
    skipped: u64,
    /// From where on, and why, nothing of it could be read.
    unread: Option<(i64, String)>,
}

#[derive(Default)]
pub struct Ledger {
    pub records: u64,
    /// Records of other producers.
    pub foreign: u64,
    /// Versions of which nobody can say whether they ever were on the topic.
    pub unchecked: u64,
    pub findings: Findings,
    told: HashMap<Uuid, Told>,
    /// Of the tasks that have any.
    holes: HashMap<Uuid, Vec<Hole>>,
    partitions: BTreeMap<u32, Partition>,
    layouts: Layouts,
}

impl Ledger {
    /// Of a topic with these layouts.
    pub fn new(layouts: Layouts) -> Ledger {
        Ledger { layouts, ..Ledger::default() }
    }

    /// The partition's first record is at this offset.
    pub fn begins(&mut self, partition: u32, earliest: i64) {
        self.partitions.entry(partition).or_default().is_cut |= earliest > 0;
    }

    /// So many offsets of a partition have no record.
    pub fn void(&mut self, partition: u32, offsets: u64) {
        self.partitions.entry(partition).or_default().void += offsets;
    }

    /// So many offsets of a partition have a transaction's marker, or a record that cannot be
    /// decoded.
    pub fn skipped(&mut self, partition: u32, offsets: u64) {
        self.void(partition, offsets);
        self.partitions.entry(partition).or_default().skipped += offsets;
    }

    /// Nothing of a partition can be read from this offset on.
    pub fn unread(&mut self, partition: u32, from: i64, reason: String) {
        self.partitions.entry(partition).or_default().unread = Some((from, reason));
    }

    /// A list for `verify --json`.
    pub fn partitions_to_json(&self) -> Value {
        let partitions = self.partitions.iter().map(|(partition, Partition { void, unread, .. })| {
            let unread =
                unread.as_ref().map(|(from, reason)| json!({ "from_offset": from, "reason": reason }));
            json!({ "partition": partition, "offsets_without_record": void, "unread": unread })
        });
        partitions.collect()
    }

    pub fn is_read(&self) -> bool {
        self.partitions.values().all(|partition| partition.unread.is_none())
    }

    pub fn tasks(&self) -> usize {
        self.told.len()
    }

    /// Takes in a record; `home` is the partition where it should be.
    pub fn take(&mut self, event: &OnRecord, partition: u32, offset: i64, home: u32) {
        self.records += 1;
        let OnRecord { task_id, version, event_type, id } = *event;
        if partition != home {
            self.misplaced(task_id, version, partition, offset);
        }
        let is_deletion = event_type == EventType::TaskDeleted;
        let is_cut = self.homes(task_id).is_cut;
        let Partition { void, skipped, .. } = *self.partitions.entry(partition).or_default();
        let id = fingerprint(id);
        let told = self.told.entry(task_id).or_insert_with(|| {
            // What retention has removed is not missing.
            let first = if is_cut { version } else { 1 };
            let before = first - 1;
            Told {
                first,
                newest: before,
                newest_is_deletion: false,
                partition,
                void: 0,
                skipped: 0,
                ids: [0; IDS_MAX],
            }
        });
        if version > told.newest {
            let passed_over = version - told.newest - 1;
            if passed_over > 0 {
                // In another partition the offsets say nothing of these.
                let may_be_removed = partition == told.partition && void - told.void >= passed_over;
                let holes = self.holes.entry(task_id).or_default();
                holes.push(Hole { versions: told.newest + 1..=version - 1, partition, may_be_removed });
                if holes.len() > HOLES_MAX {
                    self.unchecked = self.unchecked.saturating_add(length(&holes.remove(0).versions));
                }
            }
            *told = Told {
                newest: version,
                newest_is_deletion: is_deletion,
                partition,
                void,
                skipped,
                ids: shifted(told.ids, passed_over, id),
                ..*told
            };
            return;
        }
        let (first, newest_in) = (told.first, told.partition);
        let passed_over_in = self.fill(task_id, version);
        let known = self.told.get_mut(&task_id).and_then(|told| told.id_mut(version));
        let out_of_order = Finding::OutOfOrder { task_id, versions: version..=version };
        match (passed_over_in, known) {
            (Some(passed_over_in), known) => {
                if let Some(known) = known {
                    *known = id;
                }
                if passed_over_in == partition {
                    self.findings.add(out_of_order);
                }
            }
            (None, Some(known)) if version >= first && *known != 0 && *known != id => {
                self.findings.add(Finding::Conflicting {
                    task_id,
                    version,
                    place: Some((partition, offset)),
                });
            }
            (None, _) if version >= first => {
                self.findings.add(Finding::Doubled { task_id, version, partition, offset });
            }
            (None, _) if newest_in == partition => self.findings.add(out_of_order),
            (None, _) => {}
        }
    }

    /// What is known of the partitions where records of a task may be, of all of them together.
    fn homes(&self, task_id: Uuid) -> Partition {
        let mut all = Partition::default();
        let homes = self.layouts.homes(task_id).filter_map(|home| self.partitions.get(&home));
        for Partition { is_cut, skipped, unread, .. } in homes {
            all.is_cut |= is_cut;
            // The versions after the newest are in the last one.
            all.skipped = *skipped;
            all.unread = unread.clone().or(all.unread);
        }
        all
    }

    /// A record that is not where its task's should be, or not under its key.
    pub fn misplaced(&mut self, task_id: Uuid, version: u64, partition: u32, offset: i64) {
        self.findings.add(Finding::Misplaced { task_id, version, partition, offset });
    }

    /// Takes a version out of the holes, if it is in one. Gives back the partition where it was
    /// passed over.
    fn fill(&mut self, task_id: Uuid, version: u64) -> Option<u32> {
        let holes = self.holes.get_mut(&task_id)?;
        let index = holes.iter().position(|hole| hole.versions.contains(&version))?;
        let hole = holes.remove(index);
        let (first, last) = (*hole.versions.start(), *hole.versions.end());
        let rest = [(first, version - 1), (version + 1, last)];
        let rest = rest.into_iter().filter(|(first, last)| first <= last);
        holes.splice(index..index, rest.map(|(first, last)| Hole { versions: first..=last, ..hole.clone() }));
        if holes.is_empty() {
            self.holes.remove(&task_id);
        }
        Some(hole.partition)
    }

    /// Finds what is wrong with the topic, the snapshot being older than its end.
    pub fn compare(&mut self, snapshot: &Snapshot) {
        let tasks: Vec<Uuid> = self.holes.keys().copied().collect();
        for task_id in tasks {
            let committed = snapshot.committed(task_id);
            self.close_holes(task_id, committed, snapshot);
        }
        let waiting = snapshot.outbox.keys().map(|(task_id, _)| *task_id);
        let known: BTreeSet<Uuid> = snapshot.tasks.keys().copied().chain(waiting).collect();
        for task_id in known {
            let newest = snapshot.committed(task_id).unwrap_or(0);
            let told = self.told.get(&task_id);
            let (on_topic, skipped) = told.map_or((0, 0), |told| (told.newest, told.skipped));
            let is_silent = told.is_none();
            if on_topic < newest {
                let lost = on_topic + 1..=newest;
                let home = self.homes(task_id);
                // Compaction keeps the newest record of each key, so this is not its doing.
                let is_checked = home.unread.is_none()
                    && !(is_silent && home.is_cut)
                    && home.skipped.saturating_sub(skipped) < length(&lost);
                self.lost(task_id, &lost, snapshot, is_checked, false);
            }
        }
        self.compare_ids(snapshot);
    }

    /// What waits in the outbox under a version that another event has on the topic.
    fn compare_ids(&mut self, snapshot: &Snapshot) {
        for ((task_id, version), row) in &snapshot.outbox {
            let known = self.told.get_mut(task_id).and_then(|told| told.id_mut(*version));
            if known.is_some_and(|known| *known != 0 && *known != fingerprint(row.event_id)) {
                let (task_id, version) = (*task_id, *version);
                self.findings.add(Finding::Conflicting { task_id, version, place: None });
            }
        }
    }

    /// Says what became of the versions that were passed over, up to what is committed: beyond it
    /// there is nothing but a record's own claim.
    fn close_holes(&mut self, task_id: Uuid, committed: Option<u64>, snapshot: &Snapshot) {
        let told = self.told.get(&task_id);
        let deleted_at = told.filter(|told| told.newest_is_deletion).map(|told| told.newest);
        let Some(committed) = committed.max(deleted_at) else { return };
        let Some(holes) = self.holes.get_mut(&task_id) else { return };
        let mut closed = Vec::new();
        holes.retain_mut(|hole| {
            let (first, last) = (*hole.versions.start(), *hole.versions.end());
            if first <= committed {
                closed.push(Hole { versions: first..=last.min(committed), ..hole.clone() });
                hole.versions = committed.saturating_add(1)..=last;
            }
            last > committed
        });
        for hole in closed {
            let is_read = self.partitions.get(&hole.partition).is_none_or(|home| home.unread.is_none());
            self.lost(task_id, &hole.versions, snapshot, is_read && !hole.may_be_removed, true);
        }
    }

    /// Versions that are committed and not on the topic: those that wait in the outbox are out of
    /// order if newer ones are published, the others are missing, or nobody can tell.
    fn lost(
        &mut self,
        task_id: Uuid,
        versions: &RangeInclusive<u64>,
        snapshot: &Snapshot,
        is_checked: bool,
        is_overtaken: bool,
    ) {
        let mut next = *versions.start();
        let waiting = snapshot.of_task(task_id, versions.clone()).map(|(version, _)| Some(version));
        for version in waiting.chain([None]) {
            let before = version.map_or(*versions.end(), |version| version - 1);
            if next <= before {
                match is_checked {
                    true => self.findings.add(Finding::Missing { task_id, versions: next..=before }),
                    false => self.unchecked = self.unchecked.saturating_add(length(&(next..=before))),
                }
            }
            if let Some(version) = version {
                if is_overtaken {
                    self.findings.add(Finding::OutOfOrder { task_id, versions: version..=version });
                }
                next = version.saturating_add(1);
            }
        }
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

    /// Finds those of them that the database still does not know of, at a later moment that the
    /// topic has been read beyond; and what was passed over of the others.
    pub fn compare_again(&mut self, doubtful: &BTreeMap<Uuid, u64>, later: &Snapshot) {
        for (task_id, newest) in doubtful {
            let (task_id, newest) = (*task_id, *newest);
            let is_deleted = self.told.get(&task_id).is_some_and(|told| told.newest_is_deletion);
            let is_unknown = match later.tasks.get(&task_id) {
                Some(version) => *version < newest,
                None => !is_deleted && !later.of_task(task_id, 0..=u64::MAX).any(|(_, row)| row.is_deletion),
            };
            if is_unknown {
                self.findings.add(Finding::Unknown { task_id, version: newest });
            }
            self.close_holes(task_id, later.committed(task_id), later);
        }
    }
}

impl Told {
    /// The id of one of the newest versions.
    fn id_mut(&mut self, version: u64) -> Option<&mut u64> {
        let age = self.newest.checked_sub(version)?;
        self.ids.get_mut(usize::try_from(age).ok()?)
    }
}

/// The ids after one more version, which comes after so many that were passed over.
fn shifted(ids: [u64; IDS_MAX], passed_over: u64, newest: u64) -> [u64; IDS_MAX] {
    let mut shifted = [0; IDS_MAX];
    shifted[0] = newest;
    let by = usize::try_from(passed_over).map_or(IDS_MAX, |count| count.saturating_add(1));
    for (to, from) in shifted.iter_mut().skip(by).zip(ids) {
        *to = from;
    }
    shifted
}

/// The half of an id that is random in UUIDv7; never 0.
fn fingerprint(id: Uuid) -> u64 {
    id.as_u64_pair().1.max(1)
}

pub fn length(versions: &RangeInclusive<u64>) -> u64 {
    (versions.end() - versions.start()).saturating_add(1)
}

impl fmt::Display for Ledger {
    /// What was not checked, and why; a line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Partition { void, unread, .. }) in &self.partitions {
            if *void > 0 {
                writeln!(
                    f,
                    "partition {index} has {void} offsets without a record, as compaction and transactions leave them"
                )?;
            }
            if let Some((from, reason)) = unread {
                writeln!(f, "not checked   partition {index} from offset {from} on: {reason}")?;
            }
        }
        if self.unchecked > 0 {
            writeln!(
                f,
                "not checked   {} versions, which may have stood where records are removed or cannot be read",
                self.unchecked
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds versions of tasks, the last of them a deletion if it is negative, in a topic of one partition.
    fn ledger(records: &[(u128, i64)]) -> Ledger {
        let mut ledger = Ledger::new(Layouts::new(Vec::new(), 1));
        ledger.begins(0, 0);
        for (offset, (task, version)) in (0..).zip(records) {
            ledger.take(&record(*task, *version), 0, offset, 0);
        }
        ledger
    }

    /// Each event of a task and a version has the same id.
    fn event_id(task: u128, version: u64) -> Uuid {
        Uuid::from_u128(task << 64 | u128::from(version))
    }

    fn record(task: u128, version: i64) -> OnRecord {
        let event_type = if version < 0 { EventType::TaskDeleted } else { EventType::TaskUpdated };
        let version = version.unsigned_abs();
        OnRecord { task_id: Uuid::from_u128(task), version, id: event_id(task, version), event_type }
    }

    fn snapshot(tasks: &[(u128, u64)], outbox: &[(u128, u64)]) -> Snapshot {
        let row = |task, version| Row { event_id: event_id(task, version), is_deletion: false };
        Snapshot {
            tasks: tasks.iter().map(|(task, version)| (Uuid::from_u128(*task), *version)).collect(),
            outbox: outbox
                .iter()
                .map(|(task, version)| ((Uuid::from_u128(*task), *version), row(*task, *version)))
                .collect(),
        }
    }

    /// What is found, without the tasks' names.
    fn found(ledger: &mut Ledger, snapshot: &Snapshot) -> Vec<String> {
        ledger.compare(snapshot);
        ledger.compare_again(&ledger.unknown_to(snapshot), snapshot);
        said(ledger)
    }

    fn said(ledger: &Ledger) -> Vec<String> {
        let mut said = Vec::new();
        let mut kind = "";
        let text = ledger.findings.to_string();
        for line in text.lines() {
            match line.trim().split_once(", version ") {
                Some((_, version)) => said.push(format!("{kind} {version}")),
                None => kind = line.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' '),
            }
        }
        said
    }

    fn findings(records: &[(u128, i64)], tasks: &[(u128, u64)], outbox: &[(u128, u64)]) -> Vec<String> {
        found(&mut ledger(records), &snapshot(tasks, outbox))
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn nothing_is_wrong_with_what_is_published_or_waits() {
        let records = [(1, 1), (2, 1), (1, 2), (2, -2)];
        assert_eq!(findings(&records, &[(1, 3), (3, 1)], &[(1, 3), (3, 1)]), NOTHING);
        // Published, and its row not removed yet.
        assert_eq!(findings(&[(1, 1)], &[(1, 1)], &[(1, 1)]), NOTHING);
    }

    #[test]
    fn what_is_wrong_is_found() {
        assert_eq!(findings(&[(1, 1), (1, 3)], &[(1, 3)], &[]), ["missing 2"]);
        assert_eq!(findings(&[(1, 2)], &[(1, 2)], &[]), ["missing 1"]);
        assert_eq!(findings(&[], &[(1, 1)], &[]), ["missing 1"]);
        assert_eq!(findings(&[(1, 1)], &[(1, 2)], &[]), ["missing 2"]);
        assert_eq!(findings(&[(1, 1)], &[(1, 5)], &[(1, 3)]), ["missing 2", "missing 4 to 5"]);
        let doubled = "doubled 1, at partition 0, offset 2";
        assert_eq!(findings(&[(1, 1), (1, 2), (1, 1)], &[(1, 2)], &[]), [doubled]);
        assert_eq!(findings(&[(1, 1), (1, 3), (1, 2)], &[(1, 3)], &[]), ["out of order 2"]);
        assert_eq!(findings(&[(1, 1), (1, 3)], &[(1, 3)], &[(1, 2)]), ["out of order 2"]);
        assert_eq!(findings(&[(1, 1), (1, -3)], &[], &[]), ["missing 2"]);
        assert_eq!(findings(&[(1, 1)], &[], &[(1, 3)]), ["missing 2", "unknown 1"]);
        assert_eq!(findings(&[(1, 1), (1, 2)], &[(1, 1)], &[]), ["unknown 2"]);
        assert_eq!(findings(&[(1, 1)], &[], &[]), ["unknown 1"]);
    }

    #[test]
    fn what_a_record_claims_costs_nothing() {
        let claims = [(1, 1), (1, 5_000_000), (1, 4_000_000), (2, i64::MAX), (2, 7)];
        let mut ledger = ledger(&claims);
        let most = OnRecord { version: u64::MAX, ..record(3, 1) };
        ledger.take(&most, 0, 5, 0);
        ledger.take(&most, 0, 6, 0);
        assert!(ledger.holes.values().map(Vec::len).sum::<usize>() <= claims.len());
        let snapshot = snapshot(&[(1, 3), (3, 1)], &[]);
        let most = u64::MAX;
        let expected = [
            "missing 2 to 3".to_owned(),
            "missing 1".to_owned(),
            format!("doubled {most}, at partition 0, offset 6"),
            "out of order 4000000".to_owned(),
            "out of order 7".to_owned(),
            "unknown 5000000".to_owned(),
            format!("unknown {}", i64::MAX),
            format!("unknown {most}"),
        ];
        let mut found = found(&mut ledger, &snapshot);
        found.sort();
        let mut expected = expected.to_vec();
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_task_has_a_limit_on_its_holes() {
        let odd: Vec<_> = (0..2 * HOLES_MAX as i64).map(|number| (1, 2 * number + 1)).collect();
        let mut ledger = ledger(&odd);
        assert_eq!(ledger.holes[&Uuid::from_u128(1)].len(), HOLES_MAX);
        assert_eq!(ledger.unchecked, HOLES_MAX as u64 - 1);
        ledger.compare(&snapshot(&[(1, odd.last().unwrap().1 as u64)], &[]));
        assert_eq!(ledger.findings.to_string().lines().next(), Some("missing       64"));
    }

    #[test]
    fn another_event_with_the_same_version_is_conflicting() {
        let mut ledger = ledger(&[(1, 1), (1, 2), (1, 3)]);
        let other = OnRecord { id: Uuid::from_u128(77), ..record(1, 2) };
        ledger.take(&other, 0, 3, 0);
        let mut snapshot = snapshot(&[(1, 3)], &[]);
        let waiting = Row { event_id: Uuid::from_u128(78), is_deletion: false };
        snapshot.outbox.insert((Uuid::from_u128(1), 3), waiting);
        let expected = ["conflicting 2, at partition 0, offset 3", "conflicting 3, in the outbox"];
        assert_eq!(found(&mut ledger, &snapshot), expected);
    }

    #[test]
    fn a_record_in_the_wrong_partition_is_misplaced() {
        let mut ledger = Ledger::new(Layouts::new(Vec::new(), 2));
        ledger.begins(1, 0);
        ledger.take(&record(1, 1), 1, 7, 0);
        let misplaced =
            Finding::Misplaced { task_id: Uuid::from_u128(1), version: 1, partition: 1, offset: 7 };
        ledger.compare(&snapshot(&[(1, 1)], &[]));
        assert_eq!(ledger.findings.shown(), [misplaced]);
    }

    #[test]
    fn records_of_two_partitions_have_no_order_among_them() {
        let mut ledger = Ledger::new(Layouts::new(Vec::new(), 2));
        for (partition, versions) in [(0, [3, 4]), (1, [1, 2])] {
            ledger.begins(partition, 0);
            for (offset, version) in (0..).zip(versions) {
                ledger.take(&record(1, version), partition, offset, partition);
            }
        }
        assert_eq!(found(&mut ledger, &snapshot(&[(1, 4)], &[])), NOTHING);
    }

    #[test]
    fn what_retention_removed_is_not_missing() {
        let mut ledger = Ledger::new(Layouts::new(Vec::new(), 1));
        ledger.begins(0, 10);
        for (offset, version) in [(10, 4), (11, 6)] {
            ledger.take(&record(1, version), 0, offset, 0);
        }
        assert_eq!(found(&mut ledger, &snapshot(&[(1, 6), (2, 3)], &[])), ["missing 5"]);
        assert_eq!(ledger.unchecked, 3);
    }

    #[test]
    fn what_compaction_removed_is_not_missing_but_the_newest_is() {
        let mut ledger = Ledger::new(Layouts::new(Vec::new(), 1));
        ledger.begins(0, 0);
        ledger.void(0, 2);
        ledger.take(&record(1, 3), 0, 2, 0);
        // No offset is free between these two.
        ledger.take(&record(1, 5), 0, 3, 0);
        assert_eq!(
            found(&mut ledger, &snapshot(&[(1, 6), (2, 1)], &[])),
            ["missing 4", "missing 6", "missing 1"]
        );
        assert_eq!(ledger.unchecked, 2);
        assert!(ledger.to_string().starts_with("partition 0 has 2 offsets without a record"), "{ledger}");
    }

    #[test]
    fn what_cannot_be_decoded_is_not_missing() {
        let mut ledger = ledger(&[(1, 1)]);
        ledger.skipped(0, 1);
        assert_eq!(found(&mut ledger, &snapshot(&[(1, 2), (2, 1), (3, 2)], &[])), ["missing 1 to 2"]);
        assert_eq!(ledger.unchecked, 2);
    }

    #[test]
    fn what_cannot_be_read_is_said_and_not_missing() {
        let mut ledger = Ledger::new(Layouts::new(Vec::new(), 1));
        ledger.begins(0, 0);
        ledger.take(&record(1, 1), 0, 0, 0);
        ledger.unread(0, 1, "no light".to_owned());
        assert_eq!(found(&mut ledger, &snapshot(&[(1, 3), (2, 1)], &[])), NOTHING);
        assert_eq!((ledger.unchecked, ledger.is_read()), (3, false));
        let said = ledger.to_string();
        assert!(said.starts_with("not checked   partition 0 from offset 1 on: no light"), "{said}");
    }

    #[test]
    fn what_happened_after_the_first_look_is_known_to_the_second() {
        let mut ledger = ledger(&[(1, 1), (2, 1), (3, 1), (4, 3)]);
        let first = snapshot(&[], &[]);
        ledger.compare(&first);
        let doubtful = ledger.unknown_to(&first);
        assert_eq!(doubtful.len(), 4);
        let mut later = snapshot(&[(1, 1), (4, 3)], &[]);
        later.outbox.insert((Uuid::from_u128(2), 2), Row { event_id: Uuid::nil(), is_deletion: true });
        ledger.take(&record(3, -2), 0, 4, 0);
        ledger.take(&record(4, 2), 0, 5, 0);
        ledger.compare_again(&doubtful, &later);
        assert_eq!(said(&ledger), ["missing 1", "out of order 2"]);
    }
}
