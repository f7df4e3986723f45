//! A broker that is there, and gets no batch whole for now.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::proxy::{Proxy, Trouble};
use e2e::{Deployment, PARTITIONS, Services, Told, answer, directory, eventually, kafka_version, sum};
use xtask::services::Kafka;

/// Enough for connecting and for questions, not for a batch of a third of `create_tasks`.
const BYTES_THAT_PASS: usize = 2_500;

/// Failed batches of the partition that has most of them.
async fn failed_batches(deployment: &Deployment) -> Result<u32> {
    let metrics = answer(deployment.sidecar_api()?.get("/metrics")).await?.body;
    let failed: Vec<_> = metrics
        .lines()
        .filter(|line| line.starts_with("messaging_client_operation_duration_seconds_count"))
        .filter(|line| line.contains(r#"error_type="unknown""#))
        .collect();
    let of_partition = |partition| {
        let label = format!(r#"partition_id="{partition}""#);
        failed.iter().filter(|line| line.contains(&label)).map(|line| sum(line, "messaging")).sum::<f64>()
    };
    Ok((0..PARTITIONS).map(of_partition).fold(0.0, f64::max) as u32)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lasting_failure_is_retried_ever_later_and_logged_once() -> Result<()> {
    const FAILURES: u32 = 8;
    /// Eight waits that begin at 100 ms and double to 2 s are 7 s long; without growth, 0.8 s.
    const WAITS_MIN: Duration = Duration::from_secs(2);
    let way = Proxy::start().await?;
    let kafka = Kafka::start_behind(way.port(), kafka_version()?, &directory("kafka")?).await?;
    way.lead_to(kafka.proxied_port().context("started behind a proxy")?);
    let services = Services { kafka_bootstrap_servers: kafka.bootstrap(), ..Services::shared()? };
    let mut deployment = Deployment::prepare(&services).await?;
    let bootstrap_servers = format!("127.0.0.1:{}", way.port());
    deployment.start_sidecar(&[("KAFKA_BOOTSTRAP_SERVERS", &bootstrap_servers)])?;
    deployment.sidecar_is_ready().await?;
    deployment.start_application().await?;
    let topic = deployment.topic_reader().await?;
    let mut told = Told::default();
    deployment.create_tasks(&mut told).await?;
    deployment.outbox_is_empty().await?;
    let lines_before = deployment.sidecar()?.output()?.lines().count();
    way.make(Trouble::Truncated { after_bytes: BYTES_THAT_PASS });
    let first_failure = Instant::now();
    deployment.create_tasks(&mut told).await?;
    eventually("batches have failed often enough", async || {
        Ok((failed_batches(&deployment).await? >= FAILURES).then_some(()))
    })
    .await?;
    // A slow machine only makes the waits longer.
    let waited = first_failure.elapsed();
    ensure!(waited > WAITS_MIN, "{FAILURES} failures within {waited:?}");

    let log = deployment.sidecar()?.output()?;
    let lines: Vec<_> = log.lines().skip(lines_before).collect();
    // That it fails, and that it reads back.
    ensure!(lines.len() <= 2 * PARTITIONS as usize, "{} lines: {lines:#?}", lines.len());
    ensure!(!log.contains("rskafka::"), "rskafka logs of its own: {log}");
    let is_trouble = |line: &&&str| !line.contains(r#""level":"INFO""#);
    ensure!(lines.iter().filter(is_trouble).count() >= 1, "the failure is not logged: {lines:#?}");

    way.make(Trouble::None);
    deployment.all_are_published_once(&topic, &mut told).await
}
