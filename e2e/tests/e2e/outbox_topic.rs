//! The events of one database go to one topic.

use anyhow::{Result, ensure};
use e2e::{Deployment, LIMIT};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_with_another_topic_is_refused_by_name() -> Result<()> {
    let mut first = Deployment::start().await?;
    let old = first.topic_reader().await?;
    let mut second = first.beside().await?;
    second.topic = format!("{}_moved", first.topic);
    second.start_sidecar(&[])?;
    second.sidecar_is_not_ready(&format!("kafka-sidecar topic set {}", second.topic)).await?;
    for number in 0..6 {
        first.api.create(&json!({ "title": format!("task {number}") })).await?;
    }
    first.outbox_is_empty().await?;
    old.wait_for(|records| records.len() >= 6, LIMIT).await?;
    let topics = first.kafka().await?.list_topics().await?;
    ensure!(!topics.iter().any(|topic| topic.name == second.topic), "the other topic was created");

    let (code, error) = second.verify().await?;
    ensure!(code != Some(0) && error.contains("topic set"), "{error}");

    // Moving is possible when nobody publishes, and the sidecar that was refused goes on.
    let too_soon = second.operate(&["topic", "set", &second.topic]).await?;
    let error = String::from_utf8(too_soon.stderr)?;
    ensure!(!too_soon.status.success() && error.contains("stop every sidecar"), "{error}");
    first.stop_sidecar().await?;
    let moved = second.operate(&["topic", "set", &second.topic]).await?;
    ensure!(moved.status.success(), "{}", String::from_utf8(moved.stderr)?);
    let shown = second.operate(&["topic", "show"]).await?;
    ensure!(String::from_utf8(shown.stdout)?.trim() == second.topic);
    second.sidecar_is_ready().await?;
    first.api.create(&json!({ "title": "on the new topic" })).await?;
    let records = second.topic_reader().await?.wait_for(|records| !records.is_empty(), LIMIT).await?;
    ensure!(records.len() == 1, "{records:?}");
    // The first one has the old topic.
    first.start_sidecar(&[])?;
    first.sidecar_is_not_ready(&format!("set KAFKA_TOPIC={}", second.topic)).await
}
