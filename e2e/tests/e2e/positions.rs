use anyhow::{Context as _, Result, ensure};
use e2e::{Deployment, LIMIT, Told, eventually};
use rskafka::client::partition::{OffsetAt, UnknownTopicHandling};
use serde_json::json;

pub(crate) const DELETE_TIMEOUT_MS: i32 = 30_000;

/// What retention does, at once: nothing that is on the topic now can be read any more. Gives the number of
/// records that went.
async fn delete_records(deployment: &Deployment) -> Result<i64> {
    let kafka = deployment.kafka().await?;
    let mut deleted = 0;
    for partition in 0..3 {
        let client =
            kafka.partition_client(&deployment.topic, partition, UnknownTopicHandling::Error).await?;
        let end = client.get_offset(OffsetAt::Latest).await?;
        deleted += end - client.get_offset(OffsetAt::Earliest).await?;
        client.delete_records(end, DELETE_TIMEOUT_MS).await?;
        assert_eq!(client.get_offset(OffsetAt::Earliest).await?, end);
    }
    Ok(deleted)
}

/// Waits until the broker has forgotten the topic, which may take a moment.
pub(crate) async fn delete_topic(deployment: &Deployment) -> Result<()> {
    let kafka = deployment.kafka().await?;
    kafka.controller_client()?.delete_topic(&deployment.topic, DELETE_TIMEOUT_MS).await?;
    eventually("the topic is gone", async || {
        let topics = kafka.list_topics().await?;
        Ok((!topics.iter().any(|topic| topic.name == deployment.topic)).then_some(()))
    })
    .await
}

/// Three versions of a new task, nobody there to publish them.
pub(crate) async fn change(deployment: &Deployment, told: &mut Told) -> Result<()> {
    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    told.note(&task)?;
    let id = task["id"].as_str().context("an id")?;
    for title in ["b", "c"] {
        told.note(&deployment.api.patch(id, &json!({ "title": title })).await?.json()?)?;
    }
    Ok(())
}

/// What stands on the topic that is there now, read from its beginning.
pub(crate) async fn are_on_the_topic(deployment: &Deployment, told: &Told) -> Result<()> {
    let enough = told.events();
    let topic = deployment.topic_reader().await?;
    let records = topic.wait_for(|records| records.len() >= enough, LIMIT).await?;
    told.are_once_and_in_order(&records)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_retention_has_deleted_is_told_and_nothing_is_lost() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    deployment.api.create(&json!({ "title": "published, removed, and deleted" })).await?;
    deployment.outbox_is_empty().await?;
    deployment.kill_sidecar().await?;
    // Published, but neither removed nor part of the position.
    let mut told = Told::default();
    for _ in 0..6 {
        change(&deployment, &mut told).await?;
    }
    let published = 1 + told.events();
    deployment.publish_without_removing(&topic, |records| records.len() >= published).await?;
    assert_eq!(delete_records(&deployment).await?, published as i64);
    for _ in 0..4 {
        change(&deployment, &mut told).await?;
    }

    deployment.start_sidecar(&[])?;
    deployment.outbox_is_empty().await?;
    let log = deployment.sidecar()?.output()?;
    assert!(log.contains("the position is gone"), "{log}");
    // What was on the topic and could not be found there is on it again, and the rest for the first time.
    are_on_the_topic(&deployment, &told).await?;

    // The position is right from here on: another start finds nothing to do and publishes nothing.
    deployment.kill_sidecar().await?;
    change(&deployment, &mut told).await?;
    deployment.start_sidecar(&[])?;
    deployment.outbox_is_empty().await?;
    let log = deployment.sidecar()?.output()?;
    ensure!(log.matches("the position is gone").count() <= 3, "once for each partition: {log}");
    are_on_the_topic(&deployment, &told).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_gets_what_is_in_the_outbox_once() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    for number in 0..20 {
        deployment.api.create(&json!({ "title": format!("on the old topic {number}") })).await?;
    }
    deployment.outbox_is_empty().await?;
    deployment.kill_sidecar().await?;
    delete_topic(&deployment).await?;
    let mut told = Told::default();
    for _ in 0..4 {
        change(&deployment, &mut told).await?;
    }
    deployment.start_sidecar(&[])?;
    deployment.outbox_is_empty().await?;
    let log = deployment.sidecar()?.output()?;
    assert!(log.contains("topic created") && log.contains("the position is gone"), "{log}");
    are_on_the_topic(&deployment, &told).await?;

    // Published, not removed, and killed: the stored position is still beyond the new topic's end.
    deployment.kill_sidecar().await?;
    for _ in 0..2 {
        change(&deployment, &mut told).await?;
    }
    let holder = deployment.database().await?;
    holder.batch_execute("begin; select * from outbox for update").await?;
    deployment.start_sidecar(&[])?;
    are_on_the_topic(&deployment, &told).await?;
    deployment.kill_sidecar_and_its_statements().await?;
    holder.batch_execute("rollback").await?;
    deployment.start_sidecar(&[])?;
    deployment.outbox_is_empty().await?;
    are_on_the_topic(&deployment, &told).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_partition_stores_how_far_it_has_looked() -> Result<()> {
    let deployment = Deployment::start().await?;
    let mut told = Told::default();
    deployment.create_tasks(&mut told).await?;
    deployment.outbox_is_empty().await?;
    deployment.positions_are_the_ends().await?;
    for _ in 0..2 {
        deployment.produce_foreign().await?;
        deployment.positions_are_the_ends().await?;
    }
    Ok(())
}
