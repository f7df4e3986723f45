//! The load of all contenders: wrk, a closed loop on one thread, which costs the least of the processors
//! that it shares with what it measures.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;
use xtask::repository;

use crate::fetch;
use crate::operation::Operation;

/// An answer that takes longer counts as an error.
const ANSWER_LIMIT: &str = "20s";
/// What wrk gets on top of its time.
const END_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub base_url: &'a str,
    pub operation: Operation,
    pub clients: u32,
    pub seconds: u32,
    /// Where those start that ask for another task each time.
    pub first: u32,
    pub tasks: i32,
}

#[derive(Deserialize)]
pub struct Outcome {
    pub requests: u64,
    pub duration_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    connect: u64,
    read: u64,
    write: u64,
    status: u64,
    timeout: u64,
}

impl Outcome {
    pub fn without_errors(requests: u64, duration_us: f64, p50_us: f64, p99_us: f64, max_us: f64) -> Outcome {
        let (connect, read, write, status, timeout) = (0, 0, 0, 0, 0);
        Outcome { requests, duration_us, p50_us, p99_us, max_us, connect, read, write, status, timeout }
    }

    pub fn errors(&self) -> u64 {
        self.connect + self.read + self.write + self.status + self.timeout
    }
}

pub async fn run(load: Load<'_>) -> Result<Outcome> {
    let Load { base_url, operation, clients, seconds, first, tasks } = load;
    let mut command = Command::from(fetch::wrk()?);
    command
        .args(["--threads", "1", "--connections", &clients.to_string()])
        .args(["--duration", &format!("{seconds}s"), "--timeout", ANSWER_LIMIT, "--script"])
        .arg(repository::root().join("bench/src/load.lua"))
        .args([base_url, "--", operation.id(), &first.to_string(), &tasks.to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let limit = Duration::from_secs(seconds.into()) + END_LIMIT;
    let output = tokio::time::timeout(limit, command.output()).await.context("wrk does not end")??;
    let said = String::from_utf8_lossy(&output.stdout);
    let result = said.lines().find_map(|line| line.strip_prefix("result "));
    let result = result.with_context(|| {
        format!("wrk said nothing of use: {said}{}", String::from_utf8_lossy(&output.stderr))
    })?;
    ensure!(output.status.success(), "wrk ended with {}: {said}", output.status);
    serde_json::from_str(result).with_context(|| format!("not as load.lua writes it: {result}"))
}
