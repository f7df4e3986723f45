use anyhow::Result;
use e2e::{Deployment, LIMIT, Services, answer, directory, eventually, kafka_version};
use reqwest::StatusCode;
use serde_json::json;
use xtask::services::{Kafka, Postgres, Redis};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_created_while_the_sidecar_is_down_is_published_when_it_returns() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    deployment.kill_sidecar().await?;
    let task = deployment.api.create(&json!({ "title": "nobody was told" })).await?;
    deployment.start_sidecar(&[])?;
    let records = topic.wait_for(|records| !records.is_empty(), LIMIT).await?;
    assert_eq!(records[0].key, task["id"].as_str().unwrap());
    deployment.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_created_while_the_sidecar_hangs_is_answered_and_published_when_it_goes_on() -> Result<()> {
    let deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    deployment.sidecar()?.pause()?;
    for number in 0..5 {
        deployment.api.create(&json!({ "title": format!("task {number}") })).await?;
    }
    deployment.sidecar()?.resume()?;
    topic.wait_for(|records| records.len() >= 5, LIMIT).await?;
    deployment.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_created_while_kafka_is_down_is_published_when_it_returns() -> Result<()> {
    let mut kafka = Kafka::start(kafka_version()?, &directory("kafka")?, None).await?;
    let services = Services { kafka_bootstrap_servers: kafka.bootstrap(), ..Services::shared()? };
    let deployment = Deployment::start_on(&services).await?;
    let before = deployment.api.create(&json!({ "title": "before" })).await?;
    deployment.outbox_is_empty().await?;
    kafka.kill().await?;
    let during = deployment.api.create(&json!({ "title": "during" })).await?;
    kafka.restart().await?;
    let after = deployment.api.create(&json!({ "title": "after" })).await?;

    let topic = deployment.topic_reader().await?;
    let records = topic.wait_for(|records| records.len() >= 3, LIMIT).await?;
    for task in [before, during, after] {
        let id = task["id"].as_str().unwrap();
        assert!(records.iter().any(|record| record.key == id), "{task} in {records:?}");
    }
    deployment.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_starts_before_its_services_waits_for_them() -> Result<()> {
    let postgres = Postgres::start(&directory("postgres")?, None).await?;
    let mut kafka = Kafka::start(kafka_version()?, &directory("kafka")?, None).await?;
    let services = Services {
        database_url: postgres.url(),
        kafka_bootstrap_servers: kafka.bootstrap(),
        ..Services::shared()?
    };
    let mut deployment = Deployment::prepare(&services).await?;
    kafka.kill().await?;
    postgres.pause()?;
    deployment.start_sidecar(&[("DATABASE_TIMEOUT_MS", "500")])?;
    let sidecar = deployment.sidecar_api()?;
    let health = eventually("the sidecar listens", async || Ok(Some(answer(sidecar.get("/healthz")).await?)));
    assert_eq!(health.await?.status, StatusCode::OK);
    let ready = answer(sidecar.get("/readyz")).await?;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{ready:?}");

    postgres.resume()?;
    kafka.restart().await?;
    deployment.sidecar_is_ready().await?;
    deployment.start_application().await?;
    deployment.api.create(&json!({ "title": "late, but here" })).await?;
    deployment.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redis_down_writes_and_reads_succeed_and_its_return_brings_nothing_stale() -> Result<()> {
    let mut redis = Redis::start(&directory("redis")?, None).await?;
    let services = Services { redis_url: redis.url(), ..Services::shared()? };
    let deployment = Deployment::start_on(&services).await?;
    deployment.api.create(&json!({ "title": "one" })).await?;
    assert_eq!(deployment.api.list("").await?.len(), 1);
    redis.kill().await?;
    deployment.api.create(&json!({ "title": "two" })).await?;
    assert_eq!(deployment.api.list("").await?.len(), 2);
    redis.restart().await?;
    deployment.api.create(&json!({ "title": "three" })).await?;
    assert_eq!(deployment.api.list("").await?.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redis_hung_writes_and_reads_succeed_and_stale_lists_go_when_it_goes_on() -> Result<()> {
    let redis = Redis::start(&directory("redis")?, None).await?;
    let services = Services { redis_url: redis.url(), ..Services::shared()? };
    let deployment = Deployment::start_on(&services).await?;
    deployment.api.create(&json!({ "title": "one" })).await?;
    assert_eq!(deployment.api.list("").await?.len(), 1);
    redis.pause()?;
    deployment.api.create(&json!({ "title": "two" })).await?;
    assert_eq!(deployment.api.list("").await?.len(), 2);
    redis.resume()?;
    // The list of one task is still cached; the sidecar repeats the invalidation that timed out.
    eventually("the list is fresh", async || Ok((deployment.api.list("").await?.len() == 2).then_some(())))
        .await?;
    deployment.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_postgresql_down_requests_are_answered_503_and_its_return_is_noticed() -> Result<()> {
    let mut postgres = Postgres::start(&directory("postgres")?, None).await?;
    let services = Services { database_url: postgres.url(), ..Services::shared()? };
    let deployment = Deployment::start_on(&services).await?;
    deployment.api.create(&json!({ "title": "one" })).await?;
    postgres.stop().await?;
    unavailable(&deployment).await?;
    postgres.restart().await?;
    // The pooled connections are broken now; nobody has to notice.
    deployment.api.create(&json!({ "title": "two" })).await?;
    assert_eq!(deployment.api.list("").await?.len(), 2);
    deployment.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_postgresql_hung_requests_are_answered_503_and_go_on_with_it() -> Result<()> {
    let postgres = Postgres::start(&directory("postgres")?, None).await?;
    let services = Services { database_url: postgres.url(), ..Services::shared()? };
    let deployment = Deployment::start_on(&services).await?;
    deployment.api.create(&json!({ "title": "one" })).await?;
    postgres.pause()?;
    unavailable(&deployment).await?;
    postgres.resume()?;
    deployment.api.create(&json!({ "title": "two" })).await?;
    deployment.outbox_is_empty().await
}

async fn unavailable(deployment: &Deployment) -> Result<()> {
    let write = answer(deployment.api.post("/api/tasks").json(&json!({ "title": "refused" }))).await?;
    let read = answer(deployment.api.get("/api/tasks?limit=99")).await?;
    for refused in [write, read] {
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
        assert_eq!(refused.header("retry-after"), Some("1"));
        let problem = refused.json()?;
        assert_eq!(problem["status"], 503);
        // What happened is for the log, and not for the client.
        assert!(!refused.body.contains("kind:") && !refused.body.contains("127.0.0.1"), "{problem}");
    }
    assert!(deployment.component_log()?.contains("PostgreSQL cannot do it at present"));
    Ok(())
}
