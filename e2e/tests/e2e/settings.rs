//! The sidecar honours each setting, or refuses it at start and says why.

use anyhow::{Result, ensure};
use e2e::{Deployment, LIMIT, Services};
use xtask::services::ports::Port;

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_honoured_end_the_start() -> Result<()> {
    let mut deployment = Deployment::prepare(&Services::shared()?).await?;
    let tls = format!("{}?sslmode=require", deployment.database_url);
    for (name, value, reason) in [
        ("DATABASE_URL", tls.as_str(), "sslmode=require"),
        ("REDIS_URL", "rediss://127.0.0.1:6379", "rediss://"),
        ("DATABASE_URL", "mysql://u:p@127.0.0.1/d", "no URL of PostgreSQL"),
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1", "host:port"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka://localhost", "has a scheme"),
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092,", "a comma too many"),
        ("RUST_LOG", "kafka_sidecar=loud", "parsing level filter"),
    ] {
        deployment.start_sidecar(&[(name, value)])?;
        let sidecar = deployment.sidecar()?;
        let status = tokio::time::timeout(LIMIT, sidecar.exited()).await?;
        let log = sidecar.log_tail();
        ensure!(!status.success() && log.contains(name) && log.contains(reason), "{name}: {status} {log}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_may_have_blanks_between_them() -> Result<()> {
    let services = Services::shared()?;
    let mut deployment = Deployment::prepare(&services).await?;
    let nobody = Port::free()?;
    let brokers = format!("127.0.0.1:{}, {}", nobody.number(), services.kafka_bootstrap_servers);
    deployment.start_sidecar(&[("KAFKA_BOOTSTRAP_SERVERS", &brokers)])?;
    deployment.sidecar_is_ready().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_the_sidecar_names_the_setting() -> Result<()> {
    let deployment = Deployment::prepare(&Services::shared()?).await?;
    let output = deployment.operate(&[]).await?;
    let error = String::from_utf8(output.stderr)?;
    ensure!(!output.status.success() && error.contains("SIDECAR_TOKEN is required"), "{error}");
    Ok(())
}
