//! The publisher's lock is on a standby, or behind a pool that shares its session.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::pooler::Pooler;
use e2e::{Deployment, Services, directory};
use serde_json::json;
use xtask::services::Postgres;

/// A server that replays what a primary sends it, which is nothing: it takes no writes.
async fn becomes_a_standby(postgres: &mut Postgres, dir: &Path) -> Result<()> {
    postgres.stop().await?;
    std::fs::write(dir.join("data/standby.signal"), "")?;
    postgres.restart().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_publishes_through_a_primary_only() -> Result<()> {
    let [first, second] = [directory("postgres")?, directory("postgres")?];
    let mut standby = Postgres::start(&first, None).await?;
    let services = Services { database_url: standby.url(), ..Services::shared()? };
    let mut deployment = Deployment::start_on(&services).await?;
    deployment.stop_sidecar().await?;
    deployment.stop_application().await?;
    // Two servers with the same data, as after a failover.
    standby.stop().await?;
    let copied = Command::new("cp").arg("-a").args([first.join("data"), second.clone()]).status()?;
    ensure!(copied.success(), "{copied}");
    let primary = Postgres::start(&second, None).await?;
    becomes_a_standby(&mut standby, &first).await?;

    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_not_ready("the PostgreSQL server is a standby").await?;
    deployment.stop_sidecar().await?;

    // Of several servers the sidecar finds the primary.
    let url = deployment.database_url.clone();
    let (user, rest) = url.split_once('@').context("a URL with a user")?;
    let (_, name) = rest.rsplit_once('/').context("a URL with a database")?;
    let (standby_port, primary_port) = (standby.port(), primary.port());
    let both = format!("{user}@127.0.0.1:{standby_port},127.0.0.1:{primary_port}/{name}");
    deployment.start_sidecar(&[("DATABASE_URL", &both)])?;
    deployment.sidecar_is_ready().await?;
    deployment.database_url = format!("{user}@127.0.0.1:{primary_port}/{name}");
    deployment.start_application().await?;
    deployment.api.create(&json!({ "title": "published" })).await?;
    deployment.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_whose_session_a_pool_shares_publishes_nothing() -> Result<()> {
    let dir = directory("postgres")?;
    let postgres = Postgres::start(&dir, None).await?;
    let services = Services { database_url: postgres.url(), ..Services::shared()? };
    let mut deployment = Deployment::start_on(&services).await?;
    deployment.stop_sidecar().await?;
    // The pool does not know how to prove who it is.
    std::fs::write(dir.join("data/pg_hba.conf"), "host all all 127.0.0.1/32 trust\n")?;
    deployment.database().await?.batch_execute("select pg_reload_conf()").await?;
    let pooler = Pooler::start(postgres.port()).await?;
    let url = deployment.database_url.clone();
    let (user, rest) = url.split_once('@').context("a URL with a user")?;
    let (_, name) = rest.rsplit_once('/').context("a URL with a database")?;
    let pooled = format!("{user}@127.0.0.1:{}/{name}", pooler.port());
    deployment.start_sidecar(&[("DATABASE_URL", &pooled)])?;
    deployment.sidecar_is_not_ready("such as PgBouncer in transaction mode").await?;
    deployment.api.create(&json!({ "title": "waits" })).await?;
    let rows = "select count(*) from outbox";
    let rows: i64 = deployment.database().await?.query_one(rows, &[]).await?.get(0);
    ensure!(rows == 1, "{rows} rows");

    deployment.stop_sidecar().await?;
    deployment.start_sidecar(&[])?;
    deployment.outbox_is_empty().await
}
