//! `cargo xtask bench`: builds everything that is measured, then the program in `bench/` measures it.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tokio::process::Command;
use xtask::services::{KafkaVersion, fetch_all};

use crate::cargo::{build_application, build_component, cargo, program};

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// For the benchmark; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    build_application().await?;
    build_component("bench-hello").await?;
    // Of the whole workspace, as in `up`.
    let programs = ["bench", "bench-native", "kafka-sidecar", "minispin"];
    let programs = programs.into_iter().flat_map(|name| ["--bin", name]);
    cargo(["build", "--workspace", "--release"].into_iter().chain(programs)).await?;
    fetch_all(&[KafkaVersion::V4_4]).await?;
    let mut bench = Command::new(program("bench"));
    let status = bench.args(options.arguments).kill_on_drop(true).status().await.context("starting bench")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
