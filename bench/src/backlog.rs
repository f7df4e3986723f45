//! Draining a backlog: events that were committed while no sidecar ran. Beside it, in the same rounds, a
//! plain loop of the same Kafka client with the same records, one request under way for each partition,
//! which is what keeps order without an idempotent producer; it reads from memory and removes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, Utc};
use rskafka::client::partition::{Compression, PartitionClient};
use rskafka::record::Record;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep;
use xtask::progress::say;

use crate::Options;
use crate::contender::{Contender, Kind, Setup};
use crate::platform::{Platform, connect};
use crate::stats::Spread;
use crate::topic;
use crate::usage;

const EVENTS: i32 = 1_000_000;
const EVENTS_QUICK: i32 = 200_000;
const ROUNDS_MAX: u32 = 5;
/// The sidecar's default for one produce request.
const BATCH_EVENTS: i64 = 1_000;
const DRAIN_LIMIT: Duration = Duration::from_secs(900);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Tasks that were made and deleted again while nothing was published would leave such rows.
const FILL: &str = r#"
    insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time)
    select uuidv7(), 'task', id, 'TASK_CREATED',
           '{"event_type":"TASK_CREATED","data":{"id":"' || id || '","title":"Write the report","description":"A weekly matter, described at some length, as people do it","status":"todo","priority":"normal","due_at":null,"tags":[],"version":1,"created_at":"2026-01-01T00:00:00.000000Z","updated_at":"2026-01-01T00:00:00.000000Z"}}',
           1, now()
    from (select uuidv7() as id from generate_series(1, $1::int4)) as task"#;

#[derive(Serialize)]
pub struct Figure {
    pub events: i32,
    pub partitions: i32,
    pub sidecar_per_s: Spread,
    pub plain_per_s: Spread,
    pub sidecar_peak_mib: f64,
    /// Microseconds of processor time for each event.
    pub cpu_us: BTreeMap<String, f64>,
}

pub async fn measure(platform: &mut Platform, options: &Options) -> Result<Vec<Figure>> {
    let events = if options.quick { EVENTS_QUICK } else { EVENTS };
    Ok(vec![compare(platform, events, 3, options.rounds().min(ROUNDS_MAX)).await?])
}

pub async fn compare(platform: &mut Platform, events: i32, partitions: i32, rounds: u32) -> Result<Figure> {
    let (mut plain, mut sidecar, mut peak_mib, mut cpu_us) = (Vec::new(), Vec::new(), 0.0, BTreeMap::new());
    for round in 1..=rounds {
        say("Measuring", format_args!("a backlog of {events} events, round {round} of {rounds}"));
        plain.push(plain_loop(platform, events, partitions).await?);
        let drained = drain(platform, events, partitions).await?;
        sidecar.push(drained.per_s);
        peak_mib = f64::max(peak_mib, drained.peak_mib);
        cpu_us = drained.cpu_us;
        say("", format_args!("{:.0} events/s; plain loop {:.0}/s", drained.per_s, plain[plain.len() - 1]));
    }
    Ok(Figure {
        events,
        partitions,
        sidecar_per_s: Spread::of(sidecar),
        plain_per_s: Spread::of(plain),
        sidecar_peak_mib: peak_mib,
        cpu_us,
    })
}

struct Drained {
    per_s: f64,
    peak_mib: f64,
    cpu_us: BTreeMap<String, f64>,
}

/// From the start of the sidecar's process until the outbox is empty.
async fn drain(platform: &mut Platform, events: i32, partitions: i32) -> Result<Drained> {
    let setup = Setup { tasks: 1_000, partitions };
    let mut contender = Contender::prepare(platform, Kind::System, setup).await?;
    let client = connect(&contender.database_url).await?;
    client.execute(FILL, &[&events]).await.context("filling the outbox")?;
    // Two statements that do not go into one transaction.
    client.batch_execute("vacuum (analyze) outbox").await?;
    client.batch_execute("checkpoint").await?;
    platform.create_topic(&contender.topic, partitions).await?;
    let topic = partitions_of(platform, &contender.topic, partitions).await?;

    let before = usage::times(platform.processes());
    let started = Instant::now();
    contender.start_sidecar(platform).await?;
    let deadline = started + DRAIN_LIMIT;
    let check = |what| {
        ensure!(Instant::now() < deadline, "{what} after {DRAIN_LIMIT:?}\n{}", contender.log_tail());
        Ok(())
    };
    while topic::records(&topic).await? < i64::from(events) {
        check("not every event is on the topic")?;
        sleep(POLL_INTERVAL).await;
    }
    while client.query_opt("select 1 from outbox limit 1", &[]).await?.is_some() {
        check("the outbox is not empty")?;
        sleep(POLL_INTERVAL).await;
    }
    let elapsed_s = started.elapsed().as_secs_f64();
    let mut times = usage::between(&before, &usage::times(platform.processes()));
    times.extend(usage::times(contender.processes()));
    let records = topic::records(&topic).await?;
    ensure!(records == i64::from(events), "{records} records of {events} events\n{}", contender.log_tail());
    let peak_mib = contender.processes().iter().map(|(_, process)| usage::peak_mib(process)).sum();
    drop(client);
    contender.stop(platform).await?;
    let cpu_us = times.into_iter().map(|(name, s)| (name.to_owned(), s * 1e6 / f64::from(events)));
    Ok(Drained { per_s: f64::from(events) / elapsed_s, peak_mib, cpu_us: cpu_us.collect() })
}

/// So many records in batches of the sidecar's size, a request under way for each partition; records/s.
pub async fn plain_loop(platform: &mut Platform, events: i32, partitions: i32) -> Result<f64> {
    let name = platform.name("plain");
    platform.create_topic(&name, partitions).await?;
    let batch: Arc<Vec<Record>> = Arc::new((0..BATCH_EVENTS).map(|_| record()).collect());
    let clients = partitions_of(platform, &name, partitions).await?;
    let started = Instant::now();
    let mut lanes = JoinSet::new();
    for (index, client) in clients.into_iter().enumerate() {
        let share = i64::from(events) / i64::from(partitions)
            + i64::from((index as i64) < i64::from(events % partitions));
        lanes.spawn(produce(client, Arc::clone(&batch), share));
    }
    for done in lanes.join_all().await {
        done?;
    }
    Ok(f64::from(events) / started.elapsed().as_secs_f64())
}

async fn produce(client: PartitionClient, batch: Arc<Vec<Record>>, share: i64) -> Result<()> {
    let mut left = share;
    while left > 0 {
        let count = left.min(BATCH_EVENTS);
        let records = batch[..usize::try_from(count)?].to_vec();
        client.produce(records, Compression::NoCompression).await?;
        left -= count;
    }
    Ok(())
}

async fn partitions_of(platform: &Platform, topic: &str, partitions: i32) -> Result<Vec<PartitionClient>> {
    let mut clients = Vec::new();
    for partition in 0..partitions {
        clients.push(topic::partition(&platform.kafka.bootstrap(), topic, partition).await?);
    }
    Ok(clients)
}

/// As `sidecar/src/record.rs` makes one of such an event.
fn record() -> Record {
    let (id, event) = (uuid::Uuid::now_v7().to_string(), uuid::Uuid::now_v7().to_string());
    let time = "2026-01-01T00:00:00.000000Z";
    let value = format!(
        r#"{{"event_type":"TASK_CREATED","data":{{"id":"{id}","title":"Write the report","description":"A weekly matter, described at some length, as people do it","status":"todo","priority":"normal","due_at":null,"tags":[],"version":1,"created_at":"{time}","updated_at":"{time}"}}}}"#
    );
    let headers = [
        ("content-type", "application/json"),
        ("ce_specversion", "1.0"),
        ("ce_id", &event),
        ("ce_type", "TASK_CREATED"),
        ("ce_source", contract::SOURCE),
        ("ce_subject", &id),
        ("ce_time", time),
        ("ce_sequence", "0000000001"),
        ("ce_partitionkey", &id),
    ];
    Record {
        key: Some(id.clone().into_bytes()),
        value: Some(value.into_bytes()),
        headers: headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into(),
        timestamp: DateTime::<Utc>::UNIX_EPOCH,
    }
}
