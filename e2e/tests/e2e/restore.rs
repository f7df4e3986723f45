use anyhow::{Context as _, Result, ensure};
use e2e::{Deployment, LIMIT, Told};
use serde_json::{Value, json};

/// A new task and a change of it. Gives the task's id.
async fn change(deployment: &Deployment, told: &mut Told) -> Result<String> {
    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    told.note(&task)?;
    let id = task["id"].as_str().context("an id")?.to_owned();
    update(deployment, &id, told).await?;
    Ok(id)
}

async fn update(deployment: &Deployment, id: &str, told: &mut Told) -> Result<Value> {
    let title = format!("changed after event {}", told.events());
    let task = deployment.api.patch(id, &json!({ "title": title })).await?.json()?;
    ensure!(task["version"].is_u64(), "{task}");
    told.note(&task)?;
    Ok(task)
}

/// Some events that are published, then some that are published and not removed, then some that are neither;
/// the sidecar and the application gone.
async fn with_a_backlog(told: &mut Told) -> Result<Deployment> {
    let mut deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    for _ in 0..5 {
        change(&deployment, told).await?;
    }
    deployment.outbox_is_empty().await?;
    deployment.kill_sidecar().await?;
    for _ in 0..5 {
        change(&deployment, told).await?;
    }
    deployment.publish_without_removing(&topic, |records| records.len() >= told.events()).await?;
    for _ in 0..5 {
        change(&deployment, told).await?;
    }
    deployment.stop_application().await?;
    Ok(deployment)
}

async fn are_on_the_topic(deployment: &Deployment, told: &Told) -> Result<()> {
    let topic = deployment.topic_reader().await?;
    let records = topic.wait_for(|records| records.len() >= told.events(), LIMIT).await?;
    told.are_once_and_in_order(&records)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_is_restored_loses_and_repeats_nothing() -> Result<()> {
    let mut told = Told::default();
    let original = with_a_backlog(&mut told).await?;
    let mut restored = original.on_a_copy().await?;
    restored.start_sidecar(&[])?;
    restored.outbox_is_empty().await?;
    are_on_the_topic(&restored, &told).await?;

    restored.sidecar_is_ready().await?;
    restored.start_application().await?;
    change(&restored, &mut told).await?;
    restored.outbox_is_empty().await?;
    are_on_the_topic(&restored, &told).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_dump_repeats_nothing_that_it_still_had_to_publish() -> Result<()> {
    let mut told = Told::default();
    let mut original = with_a_backlog(&mut told).await?;
    let mut restored = original.on_a_copy().await?;
    // The original goes on, publishes what the dump has in its outbox, and more.
    original.start_sidecar(&[])?;
    original.sidecar_is_ready().await?;
    original.start_application().await?;
    for _ in 0..3 {
        change(&original, &mut told).await?;
    }
    original.outbox_is_empty().await?;
    original.stop_sidecar().await?;
    original.stop_application().await?;

    restored.start_sidecar(&[])?;
    restored.outbox_is_empty().await?;
    restored.sidecar_is_ready().await?;
    restored.start_application().await?;
    // Tasks that nobody changed since the dump go on as if nothing had been.
    let unchanged = restored.api.list("?sort=created_at&limit=1").await?;
    update(&restored, unchanged[0]["id"].as_str().context("an id")?, &mut told).await?;
    change(&restored, &mut told).await?;
    restored.outbox_is_empty().await?;
    are_on_the_topic(&restored, &told).await
}
