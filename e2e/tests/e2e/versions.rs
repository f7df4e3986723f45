//! Sidecar and schema are of different versions, or the sidecar may not change the schema.

use anyhow::{Context as _, Result, ensure};
use e2e::{Deployment, LIMIT, Services};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn an_older_sidecar_starts_on_a_compatible_newer_schema() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    deployment.stop_sidecar().await?;
    let database = deployment.database().await?;
    let newer = "insert into refinery_schema_history (version, name, applied_on, checksum)
                 values (999, 'of_a_later_version', '2026-01-01T00:00:00Z', '1')";
    database.batch_execute(newer).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    deployment.api.create(&json!({ "title": "published by the older one" })).await?;
    deployment.outbox_is_empty().await?;

    // One that runs notices as well.
    database.batch_execute("update schema_compatibility set minimum_version = 999").await?;
    deployment.sidecar_is_not_ready("start a newer one").await?;
    deployment.stop_sidecar().await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_not_ready("start a newer one").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_create_waits_for_migrate_and_then_starts() -> Result<()> {
    let owner = Deployment::prepare(&Services::shared()?).await?;
    let mut deployment = owner.beside().await?;
    let role = format!("{}_sidecar", owner.topic);
    let admin = owner.database().await?;
    let grants = format!(
        "create role {role} login password 'tasks';
         alter default privileges in schema public grant select, insert, update, delete on tables to {role};"
    );
    admin.batch_execute(&grants).await?;
    let server = owner.database_url.split_once('@').context("a URL with a user")?.1;
    deployment.database_url = format!("postgres://{role}:tasks@{server}");
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_not_ready("kafka-sidecar migrate").await?;
    deployment.sidecar_is_not_ready(&format!("the role {role} may not")).await?;

    let migrated = owner.operate(&["migrate"]).await?;
    ensure!(migrated.status.success(), "{}", String::from_utf8(migrated.stderr)?);
    deployment.sidecar_is_ready().await?;
    let mut owner = owner;
    let topic = deployment.topic_reader().await?;
    owner.start_application().await?;
    owner.api.create(&json!({ "title": "committed by another role" })).await?;
    topic.wait_for(|records| records.len() == 1, LIMIT).await?;
    deployment.outbox_is_empty().await?;
    // Again, with nothing to do.
    ensure!(owner.operate(&["migrate"]).await?.status.success());
    Ok(())
}
