//! The topic gets more partitions, or is deleted and recreated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use e2e::{Deployment, LIMIT, Services, Told, answer, directory, eventually, kafka_version};
use xtask::services::Kafka;

use crate::positions::{DELETE_TIMEOUT_MS, are_on_the_topic, change, delete_topic};
use crate::standbys::write;

const OFTEN: [(&str, &str); 1] = [("KAFKA_METADATA_MAX_AGE_MS", "200")];
const WRITERS: usize = 3;

/// Waits until the sidecar publishes to this partition and to all others.
async fn publishes_to(deployment: &Deployment, partition: u32) -> Result<()> {
    let api = deployment.sidecar_api()?;
    eventually("the sidecar publishes to the partition", async || {
        let ready = answer(api.get("/readyz")).await?;
        let is_published_to = ready.body.contains(&format!("\"partition {partition}\""));
        ensure!(ready.status.is_success() && is_published_to, "{}", ready.body);
        Ok(Some(()))
    })
    .await
}

/// What is on the topic now is all that was told, and `verify` finds nothing wrong.
async fn all_is_well(deployment: &Deployment, told: &Told) -> Result<()> {
    deployment.outbox_is_empty().await?;
    // A consumer that is older than the partitions would not know of them for minutes.
    let topic = deployment.topic_reader().await?;
    let records = topic.wait_for(|records| records.len() >= told.events(), LIMIT).await?;
    told.are_once_and_in_order_of_time(&records)?;
    ensure!(records.iter().any(|record| record.partition >= 3), "nothing in the new partitions");
    let (code, report) = deployment.verify().await?;
    ensure!(code == Some(0), "{report}");
    Ok(())
}

async fn partitions(deployment: &Deployment) -> Result<Option<usize>> {
    let topics = deployment.kafka().await?.list_topics().await?;
    let topic = topics.into_iter().find(|topic| topic.name == deployment.topic);
    Ok(topic.map(|topic| topic.partitions.len()))
}

#[tokio::test(flavor = "multi_thread")]
async fn added_partitions_are_used_and_no_event_comes_twice() -> Result<()> {
    let mut deployment = Deployment::prepare(&Services::shared()?).await?;
    deployment.start_sidecar(&OFTEN)?;
    deployment.sidecar_is_ready().await?;
    deployment.start_application().await?;
    let topic = deployment.topic_reader().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS).map(|_| write(deployment.api.clone(), Arc::clone(&stop))).collect();
    topic.wait_for(|records| records.len() >= 20, LIMIT).await?;

    deployment.add_partitions(6).await?;
    publishes_to(&deployment, 5).await?;
    let log = deployment.sidecar()?.output()?;
    ensure!(log.contains("partitions were added"), "{log}");
    deployment.kill_sidecar().await?;
    deployment.start_sidecar(&OFTEN)?;
    publishes_to(&deployment, 5).await?;
    stop.store(true, Ordering::Relaxed);
    let mut told = Told::default();
    for writer in writers {
        told.extend(writer.await??);
    }
    for _ in 0..6 {
        change(&deployment, &mut told).await?;
    }
    all_is_well(&deployment, &told).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_looked_for_where_fewer_partitions_placed_it() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let mut told = Told::default();
    change(&deployment, &mut told).await?;
    deployment.outbox_is_empty().await?;
    deployment.stop_sidecar().await?;
    for _ in 0..8 {
        change(&deployment, &mut told).await?;
    }
    deployment.publish_without_removing(&topic, |records| records.len() >= told.events()).await?;
    for _ in 0..4 {
        change(&deployment, &mut told).await?;
    }

    deployment.add_partitions(6).await?;
    deployment.start_sidecar(&[])?;
    publishes_to(&deployment, 5).await?;
    for _ in 0..8 {
        change(&deployment, &mut told).await?;
    }
    all_is_well(&deployment, &told).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_with_one_partition_gets_every_event() -> Result<()> {
    let deployment = Deployment::start().await?;
    let mut before = Told::default();
    for _ in 0..6 {
        change(&deployment, &mut before).await?;
    }
    deployment.outbox_is_empty().await?;
    // Otherwise the sidecar would be faster.
    deployment.sidecar()?.pause()?;
    delete_topic(&deployment).await?;
    let kafka = deployment.kafka().await?;
    eventually("the topic is made anew", async || {
        kafka.controller_client()?.create_topic(&deployment.topic, 1, 1, DELETE_TIMEOUT_MS).await?;
        Ok(Some(()))
    })
    .await?;
    deployment.sidecar()?.resume()?;
    let mut told = Told::default();
    for _ in 0..12 {
        change(&deployment, &mut told).await?;
    }
    deployment.outbox_is_empty().await?;
    are_on_the_topic(&deployment, &told).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_and_not_the_broker_creates_a_deleted_topic() -> Result<()> {
    let settings = "auto.create.topics.enable=true";
    let kafka = Kafka::start_with_settings(kafka_version()?, &directory("kafka")?, settings).await?;
    let services = Services { kafka_bootstrap_servers: kafka.bootstrap(), ..Services::shared()? };
    let deployment = Deployment::start_on(&services).await?;
    change(&deployment, &mut Told::default()).await?;
    deployment.outbox_is_empty().await?;
    let client = deployment.kafka().await?;
    client.controller_client()?.delete_topic(&deployment.topic, DELETE_TIMEOUT_MS).await?;
    eventually("the sidecar has created the topic again", async || {
        let log = deployment.sidecar()?.output()?;
        Ok((log.matches("topic created").count() == 2).then_some(()))
    })
    .await
    .with_context(|| deployment.sidecar().and_then(xtask::process::Process::output).unwrap_or_default())?;
    let mut told = Told::default();
    for _ in 0..6 {
        change(&deployment, &mut told).await?;
    }
    deployment.outbox_is_empty().await?;
    ensure!(partitions(&deployment).await? == Some(3), "{:?}", partitions(&deployment).await?);
    are_on_the_topic(&deployment, &told).await
}
