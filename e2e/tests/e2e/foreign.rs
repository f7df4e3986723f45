//! What others write to the topic, and what the broker makes of our own records.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use e2e::{Deployment, LIMIT, PARTITIONS, Told, kafka_version};
use xtask::services::KafkaVersion;

/// Milliseconds since 1970 that no calendar of the sidecar's has: long ago, as Kafka 4 takes it, and
/// nanoseconds, as Kafka 3 takes them too.
fn odd_timestamp_ms() -> Result<i64> {
    Ok(match kafka_version()? {
        KafkaVersion::V4_4 => -9_000_000_000_000_000,
        KafkaVersion::V3_0 => 1_700_000_000_000_000_000,
    })
}

/// A sidecar that reads back says how it goes a few times for each partition, whatever it reads.
fn logs_little(deployment: &Deployment) -> Result<()> {
    const LINES_MAX: usize = 30;
    let log = deployment.sidecar()?.output()?;
    let (lines, last) = (log.lines().count(), log.lines().last());
    ensure!(lines < LINES_MAX, "{lines} lines of log, the last of them {last:?}");
    Ok(())
}

async fn verify_finds_nothing(deployment: &Deployment) -> Result<()> {
    let (code, report) = deployment.verify().await?;
    ensure!(code == Some(0), "{report}");
    // Those that cannot be decoded are offsets without a record.
    let has_foreign = !report.contains(" 0 of other producers");
    ensure!(has_foreign || report.contains("offsets without a record"), "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_and_compressed_records_do_not_hinder_reading_back() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let mut told = Told::default();
    deployment.create_tasks(&mut told).await?;
    deployment.outbox_is_empty().await?;
    deployment.stop_sidecar().await?;
    // Between where reading back begins and what is to be found.
    deployment.produce_foreign().await?;
    deployment.set_topic_config("compression.type", "lz4").await?;

    deployment.create_tasks(&mut told).await?;
    deployment.publish_without_removing(&topic, |records| told.is_covered_by(records)).await?;
    deployment.produce_foreign().await?;

    deployment.start_sidecar(&[])?;
    deployment.all_are_published_once(&topic, &mut told).await?;
    verify_finds_nothing(&deployment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_records_with_odd_timestamps_are_passed_over() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let mut told = Told::default();
    deployment.create_tasks(&mut told).await?;
    deployment.outbox_is_empty().await?;
    deployment.stop_sidecar().await?;
    deployment.produce_odd_timestamps(odd_timestamp_ms()?, 1).await?;
    deployment.create_tasks(&mut told).await?;
    deployment.publish_without_removing(&topic, |records| told.is_covered_by(records)).await?;
    deployment.produce_odd_timestamps(odd_timestamp_ms()?, 1).await?;

    for _ in 0..2 {
        deployment.create_tasks(&mut told).await?;
        deployment.start_sidecar(&[])?;
        deployment.outbox_is_empty().await?;
        deployment.kill_sidecar().await?;
    }
    deployment.start_sidecar(&[])?;
    deployment.all_are_published_once(&topic, &mut told).await?;
    verify_finds_nothing(&deployment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn long_stretches_of_undecodable_records_are_crossed() -> Result<()> {
    const BATCHES: u32 = 1_000;
    let mut told = Told::default();
    let mut deployment = Deployment::start_at_rest(&mut told).await?;
    let topic = deployment.topic_reader().await?;
    let held = deployment.hold_removals().await?;
    deployment.create_tasks_and_see(&topic, &mut told).await?;
    deployment.produce_odd_timestamps(odd_timestamp_ms()?, BATCHES).await?;
    let mut between = HashSet::new();
    for task in deployment.create_tasks(&mut told).await? {
        between.extend(task["id"].as_str().map(str::to_owned));
    }
    topic.wait_for(|records| told.is_covered_by(records), LIMIT).await?;
    deployment.produce_odd_timestamps(odd_timestamp_ms()?, BATCHES).await?;
    deployment.create_tasks_and_see(&topic, &mut told).await?;
    deployment.kill_before_removals(held).await?;

    deployment.start_sidecar(&[])?;
    let mut events = deployment.events_to_the_end(&topic, &mut told).await?;
    // Who crosses both stretches in one step may miss what stands between them, and repeats it.
    let mut seen = HashSet::new();
    events.retain(|event| !between.contains(&event.key) || seen.insert(event.key.clone()));
    told.are_once_and_in_order(&events)?;
    logs_little(&deployment)?;
    verify_finds_nothing(&deployment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_foreign_zstd_records_are_read() -> Result<()> {
    const RECORDS: u32 = 1_700; // on each partition
    let mut told = Told::default();
    let mut deployment = Deployment::start_at_rest(&mut told).await?;
    let topic = deployment.topic_reader().await?;
    let held = deployment.hold_removals().await?;
    deployment.produce_compressed("zstd", RECORDS).await?;
    deployment.create_tasks_and_see(&topic, &mut told).await?;
    deployment.kill_before_removals(held).await?;

    deployment.start_sidecar(&[])?;
    deployment.all_are_published_once(&topic, &mut told).await?;
    logs_little(&deployment)?;
    verify_finds_nothing(&deployment).await
}

/// Kafka 3 gives nothing of such a topic to a client that speaks an older version of Fetch than 10.
/// Kafka 4 does, and the sidecar reads it.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_compressed_with_zstd_stops_nothing() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let mut told = Told::default();
    deployment.stop_sidecar().await?;
    deployment.set_topic_config("compression.type", "zstd").await?;
    deployment.create_tasks(&mut told).await?;
    deployment.publish_without_removing(&topic, |records| told.is_covered_by(records)).await?;

    deployment.start_sidecar(&[])?;
    let mut events = deployment.events_to_the_end(&topic, &mut told).await?;
    logs_little(&deployment)?;
    if kafka_version()? == KafkaVersion::V3_0 {
        let log = deployment.sidecar()?.output()?;
        let told_of = log.lines().filter(|line| line.contains("zstd")).count();
        ensure!((1..=PARTITIONS as usize).contains(&told_of), "once for each partition: {log}");
        // The first ones are there again: nobody could know.
        let mut seen = HashSet::new();
        events.retain(|event| seen.insert(event.header("ce_id").map(str::to_owned)));
    }
    told.are_once_and_in_order(&events)
}
