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
            let statement = std::fs::read_to_string(&path)?;
            database.prepare(&statement).await.with_context(|| format!("preparing {}", path.display()))?;
            statements += 1;
        }
    }
    ensure!(statements >= 6, "only {statements} statements found");
    Ok(())
}
