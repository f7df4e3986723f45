use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep};

/// How long a test waits for what must come: long, because only a failing test waits this long, and a
/// loaded machine takes its time.
pub const LIMIT: Duration = Duration::from_secs(60);

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Looks until `look` finds something.
///
/// # Errors
/// After [`LIMIT`], with the last error of `look` if it had one.
pub async fn eventually<T>(what: &str, look: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) if Instant::now() > deadline => anyhow::bail!("{what}: not within {LIMIT:?}"),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("{what}: not within {LIMIT:?}"));
            }
            Ok(None) | Err(_) => sleep(POLL_INTERVAL).await,
        }
    }
}
