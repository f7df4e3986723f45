use anyhow::{Result, ensure};
use e2e::{Deployment, LIMIT, answer, eventually};
use serde_json::json;

/// Waits until the sidecar says that another one publishes.
async fn stands_by(deployment: &Deployment) -> Result<()> {
    let api = deployment.sidecar_api()?;
    eventually("the sidecar stands by", async || {
        let ready = answer(api.get("/readyz")).await?;
        ensure!(ready.status.is_success() && ready.body.contains("standby"), "{}", ready.body);
        Ok(Some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_and_not_removed_is_not_published_again() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    deployment.api.create(&json!({ "title": "before" })).await?;
    deployment.outbox_is_empty().await?;
    deployment.kill_sidecar().await?;
    for number in 0..5 {
        let task = deployment.api.create(&json!({ "title": format!("task {number}") })).await?;
        deployment.api.patch(task["id"].as_str().unwrap(), &json!({ "status": "done" })).await?;
    }
    // The rows are locked, so they can be read and published, and not be removed.
    let holder = deployment.database().await?;
    holder.batch_execute("begin; select * from outbox for update").await?;
    deployment.start_sidecar(&[])?;
    topic.wait_for(|records| records.len() >= 11, LIMIT).await?;
    deployment.kill_sidecar().await?;
    holder.batch_execute("rollback").await?;

    deployment.start_sidecar(&[])?;
    deployment.outbox_is_empty().await?;
    deployment.api.create(&json!({ "title": "after" })).await?;
    let records = topic.wait_for(|records| records.len() >= 12, LIMIT).await?;
    let mut ids: Vec<_> = records.iter().map(|record| record.header("ce_id").unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((records.len(), ids.len()), (12, 12));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_sidecars_one_publishes_and_the_other_takes_over() -> Result<()> {
    let mut first = Deployment::start().await?;
    let topic = first.topic_reader().await?;
    let mut second = first.beside().await?;
    // It would take an hour to find by itself what it is not woken for.
    second.start_sidecar(&[("SWEEP_INTERVAL_MS", "3600000")])?;
    stands_by(&second).await?;
    second.start_application().await?;

    // The second application forwards to the sidecar that stands by; the first one publishes.
    let mut expected = 0;
    for application in [&first, &second] {
        for number in 0..5 {
            application.api.create(&json!({ "title": format!("task {number}") })).await?;
            expected += 1;
        }
    }
    topic.wait_for(|records| records.len() >= expected, LIMIT).await?;
    first.outbox_is_empty().await?;

    // The forward of one event finds nobody, so it has to be there when the second sidecar takes over: that one looks
    // for such events when it begins, and then not for an hour.
    second.sidecar()?.pause()?;
    first.kill_sidecar().await?;
    first.api.create(&json!({ "title": "nobody publishes" })).await?;
    second.sidecar()?.resume()?;
    second.api.create(&json!({ "title": "somebody will" })).await?;
    expected += 2;
    topic.wait_for(|records| records.len() >= expected, LIMIT).await?;
    second.outbox_is_empty().await?;

    // And back again, the second one stopping in order.
    first.start_sidecar(&[])?;
    stands_by(&first).await?;
    let status = second.stop_sidecar().await?;
    assert!(status.success(), "{status}");
    first.api.create(&json!({ "title": "back again" })).await?;
    expected += 1;
    let records = topic.wait_for(|records| records.len() >= expected, LIMIT).await?;
    assert_eq!(records.len(), expected);
    first.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_loses_its_lock_stops_and_stands_by() -> Result<()> {
    let first = Deployment::start().await?;
    let topic = first.topic_reader().await?;
    let mut second = first.beside().await?;
    second.start_sidecar(&[])?;
    stands_by(&second).await?;
    // The database ends the session that holds the lock; the standby gets it, or the first one again.
    let database = first.database().await?;
    let end = "select count(pg_terminate_backend(pid)) from pg_locks
               where locktype = 'advisory' and granted and database =
                     (select oid from pg_database where datname = current_database())";
    let ended: i64 = database.query_one(end, &[]).await?.get(0);
    assert_eq!(ended, 1);
    for number in 0..10 {
        first.api.create(&json!({ "title": format!("task {number}") })).await?;
    }
    first.outbox_is_empty().await?;
    let records = topic.wait_for(|records| records.len() >= 10, LIMIT).await?;
    let mut ids: Vec<_> = records.iter().map(|record| record.header("ce_id").unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 10);
    Ok(())
}
