//! Events that follow each other closely go to the broker together.

use anyhow::{Context as _, Result};
use e2e::{Deployment, LIMIT, Services, answer};
use serde_json::json;

const TASKS: usize = 20;
const PARTITIONS: u64 = 3;

/// Produce requests that the sidecar has sent, by its own count.
async fn batches(deployment: &Deployment) -> Result<u64> {
    let metrics = answer(deployment.sidecar_api()?.get("/metrics")).await?.body;
    let counts =
        metrics.lines().filter(|line| line.starts_with("messaging_client_operation_duration_seconds_count"));
    let counts = counts.map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()));
    counts.sum::<Option<u64>>().context("the metrics have numbers")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_event_goes_at_once_and_what_follows_closely_goes_together() -> Result<()> {
    let mut deployment = Deployment::prepare(&Services::shared()?).await?;
    // Longer than the test waits for anything.
    deployment.start_sidecar(&[("KAFKA_LINGER_MS", "60000")])?;
    deployment.sidecar_is_ready().await?;
    deployment.start_application().await?;
    let topic = deployment.topic_reader().await?;
    for number in 0..TASKS {
        deployment.api.create(&json!({ "title": number.to_string() })).await?;
    }
    topic.wait_for(|records| !records.is_empty(), LIMIT / 2).await?;
    let batches = batches(&deployment).await?;
    assert!((1..=PARTITIONS).contains(&batches), "{batches} batches");

    // Nothing lingers when the sidecar is told to stop; what it had not taken yet is published after the next start.
    let status = deployment.stop_sidecar().await?;
    assert!(status.success(), "{status}");
    deployment.start_sidecar(&[])?;
    deployment.outbox_is_empty().await?;
    let records = topic.wait_for(|records| records.len() >= TASKS, LIMIT).await?;
    assert_eq!(records.len(), TASKS);
    Ok(())
}
