//! `cargo xtask fuzz`: each target of `fuzz/` for so long, with the nightly compiler that libFuzzer wants.
//!
//! Invariant: it ends by itself; the exit code is 0 only if no target found an input that breaks it.

use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use xtask::progress::say;
use xtask::repository;

const TARGETS: [&str; 2] = ["ingest", "requests"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let dir = repository::root().join("fuzz");
    let version = fuzz(&dir).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    let version = version.context("starting rustup")?;
    ensure!(
        version.success(),
        "fuzzing wants a nightly compiler and cargo-fuzz: `rustup toolchain install nightly --profile minimal`, \
         `cargo install cargo-fuzz`"
    );
    for target in TARGETS {
        say("Fuzzing", format_args!("{target} for {} s", options.seconds));
        let corpus = dir.join("corpus").join(target);
        repository::create_dir(&corpus)?;
        let status = fuzz(&dir)
            .args(["run", target])
            .arg(corpus)
            .arg(dir.join("seeds").join(target))
            .args(["--", "-print_final_stats=1", &format!("-max_total_time={}", options.seconds)])
            .status()
            .await?;
        ensure!(status.success(), "{target} was broken; the input is in fuzz/artifacts/{target}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Not the cargo that runs this, which stands for the compiler of the rest of the repository.
fn fuzz(dir: &Path) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "fuzz"]).current_dir(dir).kill_on_drop(true);
    for name in ["CARGO", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}
