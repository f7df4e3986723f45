//! What others write to the topic, and what the broker makes of our own records.

use std::collections::HashSet;

use anyhow::Result;
use e2e::{Deployment, LIMIT, Told, TopicRecord};
use serde_json::json;

const TASKS: usize = 12; // on every partition, as good as surely

fn ours(records: &[TopicRecord]) -> Vec<TopicRecord> {
    records.iter().filter(|record| record.header("ce_id").is_some()).cloned().collect()
}

async fn create(deployment: &Deployment, told: &mut Told) -> Result<()> {
    for number in 0..TASKS {
        told.note(&deployment.api.create(&json!({ "title": format!("task {number}") })).await?)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_others_and_compressed_ones_of_ours_are_no_obstacle_to_reading_back() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let mut told = Told::default();
    create(&deployment, &mut told).await?;
    deployment.outbox_is_empty().await?;
    deployment.stop_sidecar().await?;
    // Between where reading back begins and what is to be found.
    deployment.produce_foreign().await?;
    deployment.set_topic_config("compression.type", "lz4").await?;

    create(&deployment, &mut told).await?;
    deployment.publish_without_removing(&topic, |records| ours(records).len() >= told.events()).await?;
    deployment.produce_foreign().await?;

    deployment.start_sidecar(&[])?;
    deployment.outbox_is_empty().await?;
    create(&deployment, &mut told).await?;
    deployment.outbox_is_empty().await?;
    let records = topic.wait_for(|records| ours(records).len() >= told.events(), LIMIT).await?;
    told.are_once_and_in_order(&ours(&records))?;
    let verified = deployment.operate(&["verify"]).await?;
    assert!(verified.status.success(), "{}", String::from_utf8(verified.stdout)?);
    Ok(())
}

/// Kafka 3 gives nothing of such a topic to a client that knows no zstd (Kafka protocol, Fetch, before version 10); Kafka 4
/// sends it all the same, and it cannot be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_cannot_be_read_back_does_not_stop_what_is_new() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let mut told = Told::default();
    deployment.stop_sidecar().await?;
    deployment.set_topic_config("compression.type", "zstd").await?;
    create(&deployment, &mut told).await?;
    deployment.publish_without_removing(&topic, |records| records.len() >= told.events()).await?;

    deployment.start_sidecar(&[])?;
    deployment.outbox_is_empty().await?;
    create(&deployment, &mut told).await?;
    deployment.outbox_is_empty().await?;
    // The first ones are there again: nobody could know.
    let mut records = topic.wait_for(|records| records.len() >= told.events() + TASKS, LIMIT).await?;
    let mut seen = HashSet::new();
    records.retain(|record| seen.insert(record.header("ce_id").map(str::to_owned)));
    told.are_once_and_in_order(&records)?;
    Ok(())
}
