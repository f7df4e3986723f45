use anyhow::{Context as _, Result, ensure};
use e2e::{Deployment, Services};
use xtask::repository;

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_fits_the_migrated_schema() -> Result<()> {
    let mut deployment = Deployment::prepare(&Services::shared()?).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    let database = deployment.database().await?;
    let mut statements = 0;
    for directory in ["src/store", "sidecar/src/outbox"] {
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
