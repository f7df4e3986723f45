//! The sidecar's pages for operators tell the truth and always answer.

use anyhow::{Result, ensure};
use e2e::{Deployment, Services, answer, eventually};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use xtask::services::ports::Port;

/// More than the sidecar has places for.
const HALF_REQUESTS: usize = 1_100;

#[tokio::test(flavor = "multi_thread")]
async fn half_requests_keep_no_probe_from_its_answer() -> Result<()> {
    let mut deployment = Deployment::prepare(&Services::shared()?).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    let mut half = Vec::new();
    for _ in 0..HALF_REQUESTS {
        let mut stream = TcpStream::connect(("127.0.0.1", deployment.sidecar_port())).await?;
        stream.write_all(b"POST /events HT").await?;
        half.push(stream);
    }
    let operations = deployment.sidecar_operations_api().await?;
    for path in ["/healthz", "/readyz", "/metrics"] {
        let response = answer(operations.get(path)).await?;
        ensure!(response.status.is_success(), "{path}: {response:?}");
    }
    // And the forwards' listener has places again some time later, while all of them are still
    // connected.
    let response = answer(deployment.sidecar_api()?.get("/healthz")).await?;
    ensure!(response.status.is_success(), "{response:?}");
    drop(half);
    Ok(())
}

/// The value of a metric that has one sample.
fn sample(metrics: &str, name: &str) -> Option<f64> {
    let line = metrics.lines().find(|line| line.starts_with(&format!("{name} ")))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_measured_while_kafka_is_down() -> Result<()> {
    let nobody = Port::free()?;
    let services =
        Services { kafka_bootstrap_servers: format!("127.0.0.1:{}", nobody.number()), ..Services::shared()? };
    let mut deployment = Deployment::prepare(&services).await?;
    deployment.start_sidecar(&[])?;
    deployment.start_application().await?;
    let waiting = serde_json::json!({ "title": "waits" });
    eventually("the schema is there", async || Ok(Some(deployment.api.create(&waiting).await?))).await?;

    // One that has never seen the broker.
    deployment.kill_sidecar().await?;
    deployment.start_sidecar(&[])?;
    let operations = deployment.sidecar_operations_api().await?;
    let seen = eventually("the outbox is measured", async || {
        let metrics = answer(operations.get("/metrics")).await?.body;
        let names = ["outbox_events", "outbox_oldest_event_age_seconds", "outbox_parked_events"];
        let [Some(events), Some(age), Some(parked)] = names.map(|name| sample(&metrics, name)) else {
            return Ok(None);
        };
        Ok(Some((events, age > 0.0, parked)))
    })
    .await?;
    assert_eq!(seen, (1.0, true, 0.0));
    let ready = answer(operations.get("/readyz")).await?;
    ensure!(ready.status.as_u16() == 503 && ready.body.contains("topic"), "{ready:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_path_or_method_is_told_which_there_are() -> Result<()> {
    let mut deployment = Deployment::prepare(&Services::shared()?).await?;
    deployment.start_sidecar(&[])?;
    let operations = deployment.sidecar_operations_api().await?;
    let pages = "GET /healthz, GET /readyz, GET /metrics";
    let events = format!("POST /events, {pages}");
    for (api, paths, method, path, status, allow) in [
        (&operations, pages, "GET", "/", 404, None),
        (&operations, pages, "GET", "/events", 404, None),
        (&operations, pages, "POST", "/metrics", 405, Some("GET,HEAD")),
        (&deployment.sidecar_api()?, &events, "GET", "/metric", 404, None),
        (&deployment.sidecar_api()?, &events, "GET", "/events", 405, Some("POST")),
        (&deployment.sidecar_api()?, &events, "DELETE", "/readyz", 405, Some("GET,HEAD")),
    ] {
        let refused = answer(api.request(method, path)?).await?;
        assert_eq!(
            (refused.status.as_u16(), refused.header("content-type"), refused.header("allow")),
            (status, Some("application/problem+json"), allow),
            "{method} {path}: {refused:?}"
        );
        let detail = refused.json()?["detail"].clone();
        assert_eq!(detail, format!("This address answers {paths}."), "{method} {path}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_come_in_the_format_that_is_asked_for() -> Result<()> {
    let mut deployment = Deployment::prepare(&Services::shared()?).await?;
    deployment.start_sidecar(&[])?;
    let operations = deployment.sidecar_operations_api().await?;
    let text = "text/plain; version=0.0.4; charset=utf-8";
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    for (accept, content_type, has_end) in [
        (None, text, false),
        (Some("text/plain;version=0.0.4"), text, false),
        (Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"), openmetrics, true),
    ] {
        let request = operations.get("/metrics");
        let request = accept.into_iter().fold(request, |request, accept| request.header("accept", accept));
        let metrics = answer(request).await?;
        assert_eq!(metrics.header("content-type"), Some(content_type), "{accept:?}");
        assert_eq!(metrics.body.ends_with("# EOF\n"), has_end, "{accept:?}: {}", metrics.body);
        for name in ["kafka_sidecar_build_info{", "process_cpu_seconds_total ", "outbox_publishing "] {
            assert!(metrics.body.lines().any(|line| line.starts_with(name)), "{name}: {}", metrics.body);
        }
    }
    Ok(())
}
