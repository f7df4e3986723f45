use anyhow::{Context as _, Result, ensure};
use e2e::{Deployment, LIMIT, Services};
use serde_json::json;
use xtask::repository;

const TASKS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_fits_the_migrated_schema() -> Result<()> {
    let mut deployment = Deployment::prepare(&Services::shared()?).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    let database = deployment.database().await?;
    let mut statements = 0;
    for directory in ["src/store", "sidecar/src/outbox", "sidecar/src/leader"] {
        for file in std::fs::read_dir(repository::root().join(directory))? {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "sql") {
                continue;
            }
            // One is a template; `lists` asks for every order that it is filled in with.
            let statement = std::fs::read_to_string(&path)?
                .replace("{key_text}", "id::text")
                .replace("{key}", "id")
                .replace("{type}", "uuid")
                .replace("{direction}", "desc")
                .replace("{after}", "<");
            database.prepare(&statement).await.with_context(|| format!("preparing {}", path.display()))?;
            // Of the kinds that have a plan: none that begins or ends a transaction, or changes the session, which
            // a host's pool would hand to whoever comes next.
            let plan = format!("explain (generic_plan) {statement}");
            let plan = database.batch_execute(&plan).await;
            plan.with_context(|| format!("{} is not a single statement on data", path.display()))?;
            statements += 1;
        }
    }
    ensure!(statements >= 12, "only {statements} statements found");
    Ok(())
}

/// A plan that is made while the outbox is small is kept when it has grown.
#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_never_reads_all_of_the_outbox() -> Result<()> {
    let mut deployment = Deployment::prepare(&Services::shared()?).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    deployment.start_application().await?;
    let topic = deployment.topic_reader().await?;
    deployment.stop_sidecar().await?;
    let by_the_migrations = whole_reads(&deployment).await?;

    for number in 0..TASKS {
        deployment.api.create(&json!({ "title": number.to_string() })).await?;
    }
    deployment.start_sidecar(&[])?;
    topic.wait_for(|records| records.len() >= TASKS, LIMIT).await?;
    deployment.stop_sidecar().await?;
    ensure!(whole_reads(&deployment).await? == by_the_migrations, "a sequential scan");
    Ok(())
}

/// Sequential scans of the outbox, when the sidecar's sessions have ended, which tell what they did at their end.
async fn whole_reads(deployment: &Deployment) -> Result<i64> {
    deployment.sidecar_sessions_are_gone().await?;
    let database = deployment.database().await?;
    let scans = "select seq_scan from pg_stat_user_tables where relid = 'outbox'::regclass";
    Ok(database.query_one(scans, &[]).await?.get(0))
}
