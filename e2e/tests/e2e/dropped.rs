//! Events that no instance of the component can push are counted, and published from the outbox.

use anyhow::{Context as _, Result};
use e2e::{Deployment, Services, answer, eventually};
use reqwest::StatusCode;
use serde_json::json;

/// Several times what all instances of a small host may keep waiting.
const BATCHES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn events_dropped_by_an_instance_are_counted() -> Result<()> {
    let mut deployment = Deployment::prepare(&Services::shared()?).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    // Nothing is given up while the sidecar hangs.
    deployment.start_application_with(&[("sidecar_timeout_ms", "60000")]).await?;
    deployment.sidecar()?.pause()?;
    let batch: Vec<_> = (0..500).map(|number| json!({ "title": number.to_string() })).collect();
    for _ in 0..BATCHES {
        let created = answer(deployment.api.post("/api/tasks:batch").json(&batch)).await?;
        assert_eq!(created.status, StatusCode::CREATED);
    }
    deployment.sidecar()?.resume()?;
    eventually("the sidecar knows of them", async || {
        let metrics = answer(deployment.sidecar_api()?.get("/metrics")).await?.body;
        let line = metrics.lines().find(|line| line.starts_with("outbox_pushes_dropped_total "));
        let dropped: u64 = line.and_then(|line| line.rsplit(' ').next()).context("the metric")?.parse()?;
        Ok((dropped > 0).then_some(()))
    })
    .await?;
    deployment.outbox_is_empty().await
}
