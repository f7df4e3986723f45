use anyhow::Result;
use e2e::chaos::{Options, run};
use e2e::kafka_version;

/// A short run of what `cargo xtask chaos` does for long; `docs/reliability.md` has more of it.
#[tokio::test(flavor = "multi_thread")]
async fn under_faults_nothing_is_lost_reordered_or_stale() -> Result<()> {
    let options = Options {
        rounds: 3,
        seed: 251,
        first: 0,
        kafka: kafka_version()?,
        brokers: 1,
        has_private_mounts: false,
        only: None,
    };
    let table = run(&options).await?;
    assert!(table.is_clean(), "\n{table}");
    Ok(())
}
