//! `cargo xtask chaos` builds everything, and runs this.

use std::process::ExitCode;

use clap::Parser;
use e2e::chaos::{Options, run};

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    rounds: u64,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    first: u64,
    #[arg(long)]
    kafka: String,
    #[arg(long)]
    brokers: usize,
    #[arg(long)]
    private_mounts: bool,
    #[arg(long)]
    only: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Arguments { rounds, seed, first, kafka, brokers, private_mounts, only } = Arguments::parse();
    let kafka = kafka.parse()?;
    let options = Options { rounds, seed, first, kafka, brokers, has_private_mounts: private_mounts, only };
    let table = run(&options).await?;
    println!("\n{table}");
    Ok(if table.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
