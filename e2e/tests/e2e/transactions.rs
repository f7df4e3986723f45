//! Other producers' transactions on the topic: nobody waits for them for long, and what stands
//! behind them is found.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use e2e::{Deployment, PARTITIONS, Told};

/// Longer than a test takes.
const WAIT_LONG: (&str, &str) = ("KAFKA_TRANSACTION_WAIT_MS", "60000");
const WAIT_SHORT: (&str, &str) = ("KAFKA_TRANSACTION_WAIT_MS", "300");

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_transaction_of_others_stops_no_partition() -> Result<()> {
    let mut told = Told::default();
    let mut deployment = Deployment::start_at_rest(&mut told).await?;
    let topic = deployment.topic_reader().await?;
    let mut transactions = deployment.foreign_transactions().await?;
    transactions.begin(0..PARTITIONS).await?;
    transactions.die().await?;

    deployment.create_tasks(&mut told).await?;
    deployment.outbox_is_empty().await?;
    for _ in 0..2 {
        deployment.kill_sidecar().await?;
        deployment.create_tasks(&mut told).await?;
        deployment.start_sidecar(&[WAIT_SHORT])?;
        deployment.outbox_is_empty().await?;
    }
    // Nothing was published while its row was there, so nothing had to be repeated.
    deployment.all_are_published_once(&topic, &mut told).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_behind_an_open_transaction_is_published_once() -> Result<()> {
    let mut told = Told::default();
    let mut deployment = Deployment::start_at_rest(&mut told).await?;
    let topic = deployment.topic_reader().await?;
    // It begins exactly at the stored position.
    let mut transactions = deployment.foreign_transactions().await?;
    transactions.begin(0..PARTITIONS).await?;
    let held = deployment.hold_removals().await?;
    let created = deployment.create_tasks_and_see(&topic, &mut told).await?;
    deployment.kill_before_removals(held).await?;

    deployment.start_sidecar(&[WAIT_LONG])?;
    deployment.sidecar_has_taken(created).await?;
    transactions.commit().await?;
    deployment.all_are_published_once(&topic, &mut told).await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_around_an_aborted_transaction_are_published_once() -> Result<()> {
    let mut told = Told::default();
    let mut deployment = Deployment::start_at_rest(&mut told).await?;
    let topic = deployment.topic_reader().await?;
    let held = deployment.hold_removals().await?;
    deployment.create_tasks_and_see(&topic, &mut told).await?;
    let mut transactions = deployment.foreign_transactions().await?;
    transactions.begin(0..PARTITIONS).await?;
    let behind = deployment.create_tasks_and_see(&topic, &mut told).await?;
    deployment.kill_before_removals(held).await?;

    deployment.start_sidecar(&[WAIT_LONG])?;
    // Reading back has found those before the transaction.
    deployment.outbox_has_at_most(behind).await?;
    transactions.abort().await?;
    deployment.all_are_published_once(&topic, &mut told).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_for_a_transaction_ends_and_is_logged() -> Result<()> {
    let mut told = Told::default();
    let mut deployment = Deployment::start_at_rest(&mut told).await?;
    let topic = deployment.topic_reader().await?;
    let held = deployment.hold_removals().await?;
    deployment.create_tasks_and_see(&topic, &mut told).await?;
    let mut transactions = deployment.foreign_transactions().await?;
    transactions.begin(0..PARTITIONS).await?;
    // Published where no later sidecar can see it.
    deployment.create_tasks_and_see(&topic, &mut told).await?;
    deployment.kill_before_removals(held).await?;

    deployment.start_sidecar(&[WAIT_SHORT])?;
    deployment.outbox_is_empty().await?;
    let log = deployment.sidecar()?.output()?;
    let is_warning = |line: &&str| line.contains("transaction") && line.contains("twice");
    let warnings = log.lines().filter(is_warning).count();
    ensure!((1..=PARTITIONS as usize).contains(&warnings), "{warnings} warnings: {log}");

    transactions.commit().await?;
    let mut events = deployment.events_to_the_end(&topic, &mut told).await?;
    let mut ids = HashSet::new();
    events.retain(|event| ids.insert(event.header("ce_id").map(str::to_owned)));
    told.are_once_and_in_order(&events)
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_tells_what_an_open_transaction_hides() -> Result<()> {
    let mut told = Told::default();
    let deployment = Deployment::start_at_rest(&mut told).await?;
    let mut transactions = deployment.foreign_transactions().await?;
    transactions.begin([1]).await?;
    deployment.create_tasks(&mut told).await?;
    deployment.outbox_is_empty().await?;

    let (_, report) = deployment.verify().await?;
    let missing = report.lines().find(|line| line.starts_with("missing"));
    ensure!(missing.is_some_and(|line| line.ends_with(" 0")), "{report}");
    let hidden = report.lines().find(|line| line.starts_with("not checked"));
    ensure!(hidden.is_some_and(|line| line.contains("partition 1")), "{report}");

    transactions.commit().await?;
    let (code, report) = deployment.verify().await?;
    assert!(code == Some(0) && !report.contains("not checked"), "{report}");
    let records = format!(" {} records of {} tasks ", told.events(), told.events());
    assert!(report.contains(&records), "{report}");
    Ok(())
}
