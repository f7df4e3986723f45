//! One GET over a connection of its own: enough to ask whether somebody is ready.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use xtask::process::Process;

const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
const INTERVAL: Duration = Duration::from_millis(100);

/// Asks until the answer has one of these statuses. Gives up after `limit`, with the last answer, or once `process` has ended.
pub(super) async fn wait_for(
    statuses: &[&str],
    address: &str,
    path: &str,
    process: Option<&Process>,
    limit: Duration,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let answer = timeout(ANSWER_LIMIT, get(statuses, address, path))
            .await
            .context("no answer")
            .and_then(|answer| answer);
        let problem = match answer {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let tail = process.map_or_else(String::new, |process| format!("\n{}", process.log_tail()));
        if process.is_some_and(|process| process.exit_status().is_some()) {
            bail!("it ended before http://{address}{path} answered{tail}");
        }
        if Instant::now() > deadline {
            return Err(problem.context(format!("http://{address}{path} is not well after {limit:?}{tail}")));
        }
        sleep(INTERVAL).await;
    }
}

async fn get(statuses: &[&str], address: &str, path: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    // HTTP/1.0: the answer comes whole, and ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split_whitespace().nth(1);
    ensure!(status.is_some_and(|status| statuses.contains(&status)), "the answer was\n{answer}");
    Ok(())
}
