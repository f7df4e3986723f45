//! An instance ends itself when it is idle, and no request is lost by that.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{Deployment, LIMIT, Services, directory};
use fastrand::Rng;
use serde_json::json;
use tokio::task::JoinSet;
use xtask::services::Redis;

const CLIENTS: u64 = 4;
const REQUESTS: u64 = 8_000;

/// Pauses around the 5 ms after which an instance ends, so that requests come just then.
const PAUSE_US: std::ops::Range<u64> = 3_000..12_000;

/// `E2E_REQUESTS` sends more than a test has time for.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_come_when_an_instance_ends_are_answered() -> Result<()> {
    let requests = match std::env::var("E2E_REQUESTS") {
        Ok(count) => count.parse().context("E2E_REQUESTS")?,
        Err(_) => REQUESTS,
    };
    let redis = Redis::start(&directory("redis")?, None).await?;
    let services = Services { redis_url: redis.url(), ..Services::shared()? };
    let deployment = Deployment::start_on(&services).await?;
    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    let path = format!("/api/tasks/{}", task["id"].as_str().context("an id")?);
    let before = connections(&deployment).await?;

    let mut clients = JoinSet::new();
    for seed in 0..CLIENTS {
        let url = deployment.api.url(&path);
        clients.spawn(async move {
            let mut random = Rng::with_seed(seed);
            let client = reqwest::Client::builder().timeout(LIMIT).build()?;
            for number in 0..requests / CLIENTS {
                tokio::time::sleep(Duration::from_micros(random.u64(PAUSE_US))).await;
                let response = client.get(&url).send().await;
                let response = response.with_context(|| format!("request {number} of client {seed}"))?;
                ensure!(response.status().is_success(), "{}", response.status());
            }
            Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    // Each instance opens a connection of its own.
    let instances = connections(&deployment).await? - before;
    println!("{instances} instances for {requests} requests");
    ensure!(instances > requests / 100, "only {instances} instances for {requests} requests");
    Ok(())
}

/// Connections that Redis has taken since its start.
async fn connections(deployment: &Deployment) -> Result<u64> {
    let stats: String = redis::cmd("INFO").arg("stats").query_async(&mut deployment.redis().await?).await?;
    let line = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    Ok(line.context("the number of connections")?.parse()?)
}
