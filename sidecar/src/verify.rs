//! `kafka-sidecar verify`: holds the topic against the database, and says what is missing, doubled,
//! conflicting, out of order, misplaced or unknown, and what of the topic it could not check. It
//! changes nothing, and the application may go on meanwhile. Its memory grows with the number of
//! tasks, whatever records claim.
//!
//! The database is looked at first and the topic read after that up to its end: what was published by then is found.
//! What only happened in between is looked up once more before anything is said of it.

mod ledger;
mod findings; // of the ledger, counted

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use rskafka::record::{Record, RecordAndOffset};
use serde_json::json;
use uuid::Uuid;

use crate::config::Config;
use crate::kafka::{Kafka, Partition, Read};
use crate::layout::Layouts;
use crate::outbox::{Outbox, Seen, WrongTopic};
use crate::read_back::{self, OnRecord};
use ledger::{Ledger, Row, Snapshot};

/// A partition that is being read.
struct Reading {
    client: Partition,
    next_offset: i64,
    is_stopped: bool,
}

/// What stands at an offset.
enum Stretch {
    Records(Vec<RecordAndOffset>),
    /// Markers of transactions, or records that cannot be decoded, up to this offset.
    Skipped {
        next_offset: i64,
    },
    /// Everything before this offset is gone.
    Gone {
        earliest: i64,
    },
    /// Nothing can be read from here on, and why.
    Unread(&'static str),
}

/// What a record is.
enum Kind {
    Ours(OnRecord),
    /// It says that it is ours, and has another key than its task's.
    Misplaced(OnRecord),
    Foreign,
}

/// # Errors
/// When the database or the topic cannot be read. What is found is no error: it is printed, and 1 is the exit code.
pub async fn run(config: Config, json: bool) -> Result<ExitCode> {
    let outbox = Outbox::new(config.database_url.expose(), config.database_timeout)?;
    if let Some(registered) = outbox.topic().await? {
        WrongTopic::check(&config.kafka_topic, &registered)?;
    }
    let config = Arc::new(config);
    let kafka = Kafka::new(Arc::clone(&config));
    let partitions = kafka.count_partitions().await?;
    let snapshot = look(&outbox, None).await?;
    let sources = outbox.sources().await?;
    let layouts = Layouts::new(outbox.layouts(&config.kafka_topic).await?, partitions);
    let mut ledger = Ledger::new(layouts.clone());
    let mut readings = Vec::new();
    for index in 0..partitions {
        let client = kafka.partition(index).await?;
        let next_offset = client.earliest().await?;
        ledger.begins(index, next_offset);
        readings.push(Reading { client, next_offset, is_stopped: false });
    }
    // What an older layout placed was there before: a task's records are taken in the order of time.
    for next in layouts.changes() {
        let until = |partition| Some(next.begin_offset(partition));
        read_on(&mut readings, &mut ledger, &layouts, &sources, until).await?;
    }
    read_on(&mut readings, &mut ledger, &layouts, &sources, |_| None).await?;
    ledger.compare(&snapshot);
    let doubtful = ledger.unknown_to(&snapshot);
    if !doubtful.is_empty() {
        let tasks: Vec<Uuid> = doubtful.keys().copied().collect();
        let later = look(&outbox, Some(&tasks)).await?;
        read_on(&mut readings, &mut ledger, &layouts, &sources, |_| None).await?;
        ledger.compare_again(&doubtful, &later);
    }
    let is_well = ledger.findings.is_empty() && ledger.is_read();
    if json {
        let report = json!({
            "ok": is_well,
            "topic": config.kafka_topic,
            "records": ledger.records,
            "tasks": ledger.tasks(),
            "foreign_records": ledger.foreign,
            "database": { "tasks": snapshot.tasks.len(), "outbox_events": snapshot.outbox.len() },
            "findings": ledger.findings.to_json(),
            "versions_not_checked": ledger.unchecked,
            "partitions": ledger.partitions_to_json(),
        });
        println!("{report}");
    } else {
        println!(
            "{}: {} records of {} tasks in {partitions} partitions, {} of other producers; \
             {} tasks and {} events in the database",
            config.kafka_topic,
            ledger.records,
            ledger.tasks(),
            ledger.foreign,
            snapshot.tasks.len(),
            snapshot.outbox.len(),
        );
        print!("{}{ledger}", ledger.findings);
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn look(outbox: &Outbox, of: Option<&[Uuid]>) -> Result<Snapshot> {
    let Snapshot { mut tasks, outbox: mut rows } = Snapshot::default();
    let task = |Seen { task_id, version, .. }| {
        tasks.insert(task_id, version);
    };
    let row = |Seen { task_id, version, event_id, is_deletion }| {
        rows.insert((task_id, version), Row { event_id, is_deletion });
    };
    outbox.look(of, task, row).await?;
    Ok(Snapshot { tasks, outbox: rows })
}

/// Reads every partition to where it ends now, but not beyond `until`.
async fn read_on(
    readings: &mut [Reading],
    ledger: &mut Ledger,
    layouts: &Layouts,
    sources: &[String],
    until: impl Fn(u32) -> Option<i64>,
) -> Result<()> {
    for (index, Reading { client, next_offset, is_stopped }) in (0..).zip(readings) {
        let end = client.end().await?;
        let end = until(index).map_or(end, |until| until.min(end));
        while *next_offset < end && !*is_stopped {
            match read(client, *next_offset).await? {
                Stretch::Gone { earliest } => {
                    ledger.begins(index, earliest);
                    *next_offset = earliest;
                }
                Stretch::Skipped { next_offset: next } => {
                    ledger.skipped(index, u64::try_from(next - *next_offset).unwrap_or(0));
                    *next_offset = next;
                }
                Stretch::Unread(reason) => {
                    ledger.unread(index, *next_offset, reason.to_owned());
                    *is_stopped = true;
                }
                Stretch::Records(records) => {
                    for RecordAndOffset { record, offset } in
                        records.iter().filter(|record| record.offset < end)
                    {
                        ledger.void(index, u64::try_from(offset - *next_offset).unwrap_or(0));
                        *next_offset = offset + 1;
                        match kind(record, sources) {
                            Kind::Ours(event) => {
                                let home = layouts.home_at(event.task_id, index, *offset);
                                ledger.take(&event, index, *offset, home);
                            }
                            Kind::Misplaced(event) => {
                                ledger.misplaced(event.task_id, event.version, index, *offset);
                            }
                            Kind::Foreign => ledger.foreign += 1,
                        }
                    }
                    if records.last().is_none_or(|last| last.offset >= end) {
                        ledger.void(index, u64::try_from(end - *next_offset).unwrap_or(0));
                        *next_offset = end;
                    }
                }
            }
        }
    }
    Ok(())
}

async fn read(client: &Partition, offset: i64) -> Result<Stretch> {
    Ok(match client.read(offset).await? {
        Read::Records { records, .. } => Stretch::Records(records),
        Read::Skipped { next_offset, .. } => Stretch::Skipped { next_offset },
        Read::Gone { earliest } => Stretch::Gone { earliest },
        Read::OpenTransaction { .. } => {
            Stretch::Unread("another producer's transaction is open: wait for its end")
        }
        Read::Zstd { .. } => Stretch::Unread(
            "it is compressed with zstd: what is written from now on can be read if the topic gets another \
             compression.type, such as producer or lz4",
        ),
    })
}

/// Headers like ours may be anybody's: source and key tell.
fn kind(record: &Record, sources: &[String]) -> Kind {
    let Some(event) = read_back::event(record) else { return Kind::Foreign };
    let source = record.headers.get("ce_source");
    if !source.is_some_and(|source| sources.iter().any(|ours| ours.as_bytes() == source)) {
        return Kind::Foreign;
    }
    let key = record.key.as_deref().and_then(|key| Uuid::try_parse_ascii(key).ok());
    if key == Some(event.task_id) { Kind::Ours(event) } else { Kind::Misplaced(event) }
}
