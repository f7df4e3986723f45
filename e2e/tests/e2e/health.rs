//! The application says on its own port whether it can serve requests.

use anyhow::Result;
use e2e::{Answer, Deployment, Services, answer, directory, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};
use xtask::services::{Postgres, Redis};

async fn ready(deployment: &Deployment) -> Result<(StatusCode, Value)> {
    let answered: Answer = answer(deployment.api.get("/readyz")).await?;
    Ok((answered.status, answered.json()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_needs_postgresql_and_reports_the_others() -> Result<()> {
    let mut postgres = Postgres::start(&directory("postgres")?, None).await?;
    let redis = Redis::start(&directory("redis")?, None).await?;
    let services = Services { database_url: postgres.url(), redis_url: redis.url(), ..Services::shared()? };
    let mut deployment = Deployment::start_on(&services).await?;
    let checks = json!({ "database": "ok", "cache": "ok", "sidecar": "ok" });
    assert_eq!(ready(&deployment).await?, (StatusCode::OK, json!({ "ready": true, "checks": checks })));

    deployment.kill_sidecar().await?;
    redis.kill().await?;
    let checks = json!({ "database": "ok", "cache": "unavailable", "sidecar": "unavailable" });
    assert_eq!(ready(&deployment).await?, (StatusCode::OK, json!({ "ready": true, "checks": checks })));

    postgres.kill().await?;
    let (status, body) = ready(&deployment).await?;
    assert_eq!((status, &body["ready"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(false)), "{body}");
    assert_eq!(answer(deployment.api.get("/healthz")).await?.status, StatusCode::OK);
    postgres.restart().await?;
    eventually("the application is ready again", async || {
        let (status, _) = ready(&deployment).await?;
        Ok((status == StatusCode::OK).then_some(()))
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_need_no_token_and_a_broken_setting_fails_them() -> Result<()> {
    let hash = "0".repeat(64);
    let deployment = Deployment::start_with(&[("api_token_hashes", hash.as_str())]).await?;
    for path in ["/healthz", "/readyz"] {
        let probe = answer(deployment.api.get(path)).await?;
        assert_eq!((probe.status, probe.header("cache-control")), (StatusCode::OK, Some("no-store")));
        let post = answer(deployment.api.post(path)).await?;
        assert_eq!(
            (post.status, post.header("allow")),
            (StatusCode::METHOD_NOT_ALLOWED, Some("GET, HEAD, OPTIONS"))
        );
    }
    let broken = Deployment::start_with(&[("cache_ttl_s", "0")]).await?;
    assert_eq!(answer(broken.api.get("/healthz")).await?.status, StatusCode::INTERNAL_SERVER_ERROR);
    Ok(())
}
