//! `kafka-sidecar verify`: holds the topic against the database, and says what is missing, doubled, out of order,
//! misplaced or unknown. It changes nothing, and the application may go on meanwhile.
//!
//! The database is looked at first and the topic read after that up to its end: what was published by then is found.
//! What only happened in between is looked up once more before anything is said of it.

mod ledger;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use uuid::Uuid;

use crate::config::Config;
use crate::kafka::{Kafka, Partition, Read};
use crate::outbox::Outbox;
use crate::partition;
use crate::read_back;
use ledger::{Finding, Ledger, Snapshot};

/// Findings of a kind that are printed one by one.
const PRINTED_MAX: usize = 20;

/// A partition that is being read.
struct Reading {
    client: Partition,
    next_offset: i64,
}

/// # Errors
/// When the database or the topic cannot be read. What is found is no error: it is printed, and 1 is the exit code.
pub async fn run(config: Config) -> Result<ExitCode> {
    let outbox = Outbox::new(config.database_url.expose(), config.database_timeout)?;
    let config = Arc::new(config);
    let kafka = Kafka::new(Arc::clone(&config));
    let partitions = kafka.count_partitions().await?;
    let snapshot = look(&outbox, None).await?;
    let mut ledger = Ledger::default();
    let mut readings = Vec::new();
    for index in 0..partitions {
        let client = kafka.partition(index).await?;
        let next_offset = client.earliest().await?;
        ledger.begins(index, next_offset);
        readings.push(Reading { client, next_offset });
    }
    read_to_the_end(&mut readings, &mut ledger).await?;
    let mut findings = ledger.compare(&snapshot);
    let doubtful = ledger.unknown_to(&snapshot);
    if !doubtful.is_empty() {
        let tasks: Vec<Uuid> = doubtful.keys().copied().collect();
        let later = look(&outbox, Some(&tasks)).await?;
        read_to_the_end(&mut readings, &mut ledger).await?;
        findings.extend(ledger.still_unknown(&doubtful, &later));
    }
    println!(
        "{}: {} records of {} tasks in {partitions} partitions, {} of other producers; {} tasks and {} events in the database",
        config.kafka_topic,
        ledger.records,
        ledger.tasks(),
        ledger.foreign,
        snapshot.tasks.len(),
        snapshot.outbox.len(),
    );
    Ok(report(&findings, ledger.unchecked))
}

async fn look(outbox: &Outbox, of: Option<&[Uuid]>) -> Result<Snapshot> {
    let Snapshot { mut tasks, outbox: mut rows } = Snapshot::default();
    let task = |task: crate::outbox::Seen| {
        tasks.insert(task.task_id, task.version);
    };
    let row = |row: crate::outbox::Seen| {
        rows.insert((row.task_id, row.version), row.is_deletion);
    };
    outbox.look(of, task, row).await?;
    Ok(Snapshot { tasks, outbox: rows })
}

/// Reads every partition to where it ends now.
async fn read_to_the_end(readings: &mut [Reading], ledger: &mut Ledger) -> Result<()> {
    let count = readings.len() as u32;
    for (index, Reading { client, next_offset }) in (0..).zip(readings) {
        let end = client.end().await?;
        while *next_offset < end {
            match client.read(*next_offset).await? {
                Read::Gone { earliest } => {
                    ledger.begins(index, earliest);
                    *next_offset = earliest;
                }
                Read::Zstd { .. } => bail!(
                    "partition {index} is compressed with zstd and cannot be read: what is written from now on can, \
                     if the topic gets another compression.type, such as producer or lz4"
                ),
                Read::Skipped { next_offset: next, .. } => {
                    ledger.foreign += (next - *next_offset) as u64;
                    *next_offset = next;
                }
                Read::OpenTransaction { .. } => {
                    bail!("partition {index} has an open transaction at offset {next_offset}")
                }
                Read::Records { records, .. } => {
                    for record in &records {
                        match read_back::event(&record.record) {
                            Some(event) => {
                                let home = partition::of_task(event.task_id, count);
                                ledger.take(&event, index, record.offset, home);
                            }
                            None => ledger.foreign += 1,
                        }
                    }
                    *next_offset = records.last().map_or(*next_offset, |last| last.offset) + 1;
                }
            }
        }
    }
    Ok(())
}

fn report(findings: &[Finding], unchecked: u64) -> ExitCode {
    let mut kinds: BTreeMap<&str, Vec<&Finding>> =
        Finding::KINDS.into_iter().map(|kind| (kind, Vec::new())).collect();
    for finding in findings {
        kinds.entry(finding.kind()).or_default().push(finding);
    }
    for (kind, findings) in kinds {
        println!("{kind:<13} {}", findings.len());
        for finding in findings.iter().take(PRINTED_MAX) {
            println!("    {finding}");
        }
        if findings.len() > PRINTED_MAX {
            println!("    and {} more", findings.len() - PRINTED_MAX);
        }
    }
    if unchecked > 0 {
        println!(
            "not checked   {unchecked} versions, which may have stood where retention has removed records"
        );
    }
    if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
