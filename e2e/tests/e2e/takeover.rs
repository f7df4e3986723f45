use std::collections::HashSet;

use anyhow::{Context as _, Result, ensure};
use e2e::proxy::{Proxy, Trouble};
use e2e::{Deployment, LIMIT, Services, TopicRecord, answer, eventually};
use reqwest::StatusCode;
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
    assert_eq!((records.len(), distinct(&records)), (12, 12));
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
    let end = "select count(pg_terminate_backend(pid)) from (
                   select distinct pid from pg_locks
                   where locktype = 'advisory' and granted and database =
                         (select oid from pg_database where datname = current_database())
               ) as holders";
    let ended: i64 = database.query_one(end, &[]).await?.get(0);
    assert_eq!(ended, 1);
    for number in 0..10 {
        first.api.create(&json!({ "title": format!("task {number}") })).await?;
    }
    first.outbox_is_empty().await?;
    let records = topic.wait_for(|records| records.len() >= 10, LIMIT).await?;
    assert_eq!(distinct(&records), 10);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_was_stopped_for_long_sends_nothing_before_it_has_asked() -> Result<()> {
    let mut first = Deployment::prepare(&Services::shared()?).await?;
    let (way, database_url) = Proxy::on_the_way_to(&first.database_url).await?;
    first.start_sidecar(&[("DATABASE_URL", &database_url)])?;
    first.sidecar_is_ready().await?;
    first.start_application().await?;
    let topic = first.topic_reader().await?;
    let task = first.api.create(&json!({ "title": "before" })).await?;
    first.outbox_is_empty().await?;
    let mut second = first.beside().await?;
    second.start_sidecar(&[])?;
    stands_by(&second).await?;

    // It misses that the database ends its session, as one does that says nothing for long.
    first.sidecar()?.pause()?;
    way.make(Trouble::HalfOpen { up: true, down: true });
    for number in 0..5 {
        first
            .api
            .patch(task["id"].as_str().unwrap(), &json!({ "title": format!("change {number}") }))
            .await?;
    }
    let forward = forward_of_everything(&first).await?;
    topic.wait_for(|records| records.len() >= 6, LIMIT).await?;
    first.outbox_is_empty().await?;

    // Without an answer it takes itself for the publisher, and what is forwarded for news.
    first.sidecar()?.resume()?;
    let request = first.sidecar_api()?.post("/events").bearer_auth(first.sidecar_token());
    let request = request.header("content-type", "application/cloudevents-batch+json").body(forward);
    let taken = answer(request).await?;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{}", taken.body);
    let api = first.sidecar_api()?;
    eventually("the sidecar knows that it cannot tell", async || {
        let ready = answer(api.get("/readyz")).await?;
        ensure!(ready.body.contains("trying for the publisher's lock"), "{}", ready.body);
        Ok(Some(()))
    })
    .await?;
    way.make(Trouble::None);
    stands_by(&first).await?;
    first.api.create(&json!({ "title": "after" })).await?;
    let records = topic.wait_for(|records| records.len() >= 7, LIMIT).await?;
    assert_eq!((records.len(), distinct(&records)), (7, 7));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_go_while_another_takes_over_are_not_published_again() -> Result<()> {
    let mut first = Deployment::start().await?;
    let topic = first.topic_reader().await?;
    first.api.create(&json!({ "title": "before" })).await?;
    first.outbox_is_empty().await?;
    first.kill_sidecar().await?;
    for number in 0..5 {
        first.api.create(&json!({ "title": format!("task {number}") })).await?;
    }
    // What is published cannot be removed yet, and its publisher stops with that under way.
    let holder = first.database().await?;
    holder.batch_execute("begin; select * from outbox for update").await?;
    first.start_sidecar(&[])?;
    topic.wait_for(|records| records.len() >= 6, LIMIT).await?;

    let way = Proxy::start().await?;
    let servers = Services::shared()?.kafka_bootstrap_servers;
    let (_, port) = servers.rsplit_once(':').context("an address with a port")?;
    way.lead_to(port.parse()?);
    let mut second = first.beside().await?;
    let bootstrap_servers = format!("127.0.0.1:{}", way.port());
    second.start_sidecar(&[("KAFKA_BOOTSTRAP_SERVERS", &bootstrap_servers), ("KAFKA_TIMEOUT_MS", "500")])?;
    stands_by(&second).await?;
    way.make(Trouble::HalfOpen { up: true, down: true });
    first.sidecar()?.pause()?;

    // The other one has read the rows before they go, and comes to the partition after that.
    let api = second.sidecar_api()?;
    eventually("the rows are in the other one's lanes", async || {
        let metrics = answer(api.get("/metrics")).await?.body;
        let pending = metrics.lines().filter(|line| line.starts_with("outbox_unacknowledged_events{"));
        let pending = pending.filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
        Ok((pending.sum::<u32>() >= 5).then_some(()))
    })
    .await?;
    holder.batch_execute("rollback").await?;
    eventually("rows have gone", async || {
        let rows: i64 = holder.query_one("select count(*) from outbox", &[]).await?.get(0);
        Ok((rows < 5).then_some(()))
    })
    .await?;
    way.make(Trouble::None);

    first.api.create(&json!({ "title": "after" })).await?;
    let records = topic.wait_for(|records| records.len() >= 7, LIMIT).await?;
    first.outbox_is_empty().await?;
    assert_eq!((records.len(), distinct(&records)), (7, 7));
    Ok(())
}

/// What the application would forward of all that is in the outbox.
async fn forward_of_everything(deployment: &Deployment) -> Result<String> {
    let events = r#"
        select json_agg(json_build_object(
            'specversion', '1.0', 'id', id, 'type', type, 'source', '/api/tasks', 'subject', aggregateid,
            'time', time, 'sequence', version::text, 'partitionkey', aggregateid,
            'datacontenttype', 'application/json', 'data', payload::json
        ))::text
        from outbox"#;
    Ok(deployment.database().await?.query_one(events, &[]).await?.try_get(0)?)
}

/// Events among the records, each counted once.
fn distinct(records: &[TopicRecord]) -> usize {
    records.iter().map(|record| record.header("ce_id").unwrap()).collect::<HashSet<_>>().len()
}
