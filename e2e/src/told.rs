use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::services::TopicRecord;

/// What clients were told: each task, and the newest version that a write of it was answered with.
#[derive(Clone, Debug, Default)]
pub struct Told(BTreeMap<String, u64>);

impl Told {
    /// Notes a task as a write's answer shows it.
    pub fn note(&mut self, task: &Value) -> Result<()> {
        let id = task["id"].as_str().context("a task has an id")?;
        let version = task["version"].as_u64().context("a task has a version")?;
        let newest = self.0.entry(id.to_owned()).or_default();
        *newest = version.max(*newest);
        Ok(())
    }

    pub fn extend(&mut self, other: Told) {
        for (id, version) in other.0 {
            let newest = self.0.entry(id).or_default();
            *newest = version.max(*newest);
        }
    }

    /// How many events that makes: versions count from 1 without a gap.
    pub fn events(&self) -> usize {
        self.0.values().sum::<u64>() as usize
    }

    /// Whether the newest version of each task is among these records.
    pub fn is_covered_by(&self, records: &[TopicRecord]) -> bool {
        let mut missing = self.0.clone();
        for record in records {
            let version = record.header("ce_sequence").and_then(|version| version.parse().ok());
            if version.is_some() && missing.get(&record.key) == version.as_ref() {
                missing.remove(&record.key);
            }
        }
        missing.is_empty()
    }

    /// Checks that these records are all of it, each event once, and each task's in the order of its versions
    /// on one partition.
    pub fn are_once_and_in_order(&self, records: &[TopicRecord]) -> Result<()> {
        let mut on_topic: BTreeMap<&str, (i32, u64)> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for record in records {
            let id = record.header("ce_id").context("an event has an id")?;
            ensure!(ids.insert(id), "event {id} is on the topic twice: {record:?}");
            let version: u64 = record.header("ce_sequence").context("and a version")?.parse()?;
            let (partition, last) = on_topic.entry(&record.key).or_insert((record.partition, 0));
            ensure!(*partition == record.partition, "of another partition: {record:?}");
            ensure!(version == *last + 1, "follows version {last}: {record:?}");
            *last = version;
        }
        self.are_all(on_topic)
    }

    /// The same of a topic to which partitions were added: of each task, what is in one partition is older than all that is
    /// in the next one.
    pub fn are_once_and_in_order_of_time(&self, records: &[TopicRecord]) -> Result<()> {
        let mut by_partition: BTreeMap<&str, BTreeMap<i32, Vec<u64>>> = BTreeMap::new();
        for record in records {
            let version = record.header("ce_sequence").context("an event has a version")?.parse()?;
            by_partition.entry(&record.key).or_default().entry(record.partition).or_default().push(version);
        }
        let mut on_topic: BTreeMap<&str, (i32, u64)> = BTreeMap::new();
        for (id, partitions) in by_partition {
            let mut partitions: Vec<_> = partitions.into_iter().collect();
            partitions.sort_by_key(|(_, versions)| versions.first().copied());
            let versions: Vec<u64> = partitions.iter().flat_map(|(_, versions)| versions).copied().collect();
            let expected: Vec<u64> = (1..=versions.len() as u64).collect();
            ensure!(versions == expected, "task {id} by partition: {partitions:?}");
            on_topic.insert(id, (0, versions.len() as u64));
        }
        self.are_all(on_topic)
    }

    /// Checks that the topic holds the newest acknowledged version of each task.
    fn are_all(&self, mut on_topic: BTreeMap<&str, (i32, u64)>) -> Result<()> {
        for (id, version) in &self.0 {
            let newest = on_topic.remove(id.as_str()).map_or(0, |(_, newest)| newest);
            ensure!(newest == *version, "task {id}: version {version} was told, {newest} is on the topic");
        }
        ensure!(on_topic.is_empty(), "nobody was told of {on_topic:?}");
        Ok(())
    }
}
