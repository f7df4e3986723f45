//! The sidecar's pages for operators tell the truth and always answer.

use anyhow::{Result, ensure};
use e2e::{Deployment, Services, answer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

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
