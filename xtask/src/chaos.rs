//! `cargo xtask chaos`: builds everything, and lets the faults loose on it.
//!
//! Invariant: the exit code is 0 only if every round ended with nothing lost, invented, reordered, altered or stale.

use std::fs::{self, File};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use xtask::progress::say;
use xtask::repository;
use xtask::services::{KafkaVersion, fetch_all};

use crate::cargo::{build_application, cargo, program};
use crate::host::{Host, HostName};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds to run; each takes about ten seconds
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// What the faults, their moments and the clients' requests are chosen by
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first round to run: those before it are left out
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Broker to break: 4.4 (KRaft) or 3.0 (with ZooKeeper)
    #[arg(long, default_value = "4.4")]
    kafka: KafkaVersion,
    /// Brokers: one, or three with every partition on each of them, which have faults of their own
    #[arg(long, default_value = "1", value_parser = ["1", "3"])]
    brokers: String,
    /// Who runs the component: minispin, or the Spin CLI on the PATH
    #[arg(long, default_value = "minispin")]
    host: HostName,
    /// Only faults with this in their names, as the table prints them; `a|b` for either
    #[arg(long)]
    only: Option<String>,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let Options { rounds, seed, first, kafka, brokers, host, only } = options;
    if brokers != "1" && kafka != KafkaVersion::V4_4 {
        bail!("--brokers {brokers} is for Kafka 4.4 alone");
    }
    let host = Host::find(Some(host))?.program();
    let data_dir = repository::data_dir()?;
    let lock = File::create(data_dir.join("test.lock"))?;
    if lock.try_lock().is_err() {
        bail!("`cargo xtask test` or `chaos` runs already in this repository: wait for it, or stop it");
    }
    let versions = [kafka];
    tokio::try_join!(build(), fetch_all(&versions))?;
    let dir = data_dir.join("test");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    }

    // In a mount namespace of its own, what is mounted for the broker to be filled is seen by nobody else, and gone with
    // the last process in it, however that ends.
    let has_private_mounts = may_unshare().await;
    let mut command = match has_private_mounts {
        true => {
            let mut unshare = Command::new("unshare");
            unshare.args(["--mount", "--propagation", "private"]).arg(program("chaos"));
            unshare.arg("--private-mounts");
            unshare
        }
        false => Command::new(program("chaos")),
    };
    for (name, value) in [("--rounds", rounds), ("--seed", seed), ("--first", first)] {
        command.args([name, &value.to_string()]);
    }
    command.args(["--kafka", &kafka.to_string(), "--brokers", &brokers]);
    if let Some(only) = only {
        command.args(["--only", &only]);
    }
    command.env("E2E_HOST", host).env("E2E_SIDECAR", program("kafka-sidecar"));
    say("Chaos", format_args!("{rounds} rounds of seed {seed} on Kafka {kafka}, brokers: {brokers}"));
    let status = command.kill_on_drop(true).status().await.context("starting the faults")?;
    if !status.success() {
        return Ok(ExitCode::FAILURE);
    }
    // The logs are of interest only after a failure.
    fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

async fn build() -> Result<()> {
    build_application().await?;
    cargo(["build", "--workspace", "--release", "--bins", "--tests"]).await
}

/// Root may, unless it is kept in by a container; others may not.
async fn may_unshare() -> bool {
    let mut mount = Command::new("unshare");
    mount.args(["--mount", "--propagation", "private", "mount", "-t", "tmpfs", "chaos", "/mnt"]);
    mount.stdout(Stdio::null()).stderr(Stdio::null());
    mount.status().await.is_ok_and(|status| status.success())
}
