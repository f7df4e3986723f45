//! Measures the task API beside what people would use instead, all on one machine in one run, and
//! prints ratios. Contenders run one after the other, in rounds (A B C, A B C), each round on a new copy
//! of the same tables; a figure is the median of its rounds, and its spread is told.
//!
//! Nothing here fails because something is slow. A contender that does not start, or that answers
//! wrongly, ends the run with its log.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::repository;

use crate::platform::Platform;
use crate::results::Results;

mod platform; // PostgreSQL, Redis, Kafka, and the tables that everybody starts with
mod fetch; // what others wrote
mod contender; // who is measured
mod usage; // what a process costs
mod operation; // what is asked of it,
mod wrk; // by whom,
mod floor; // and what it would cost without a server
mod requests; // requests/s, p50, p99
mod latency; // from the commit to Kafka
mod topic; // what a consumer sees
mod backlog; // what a million events take
mod overload; // when Kafka takes none
mod startup; // until the first 201
mod growth; // ten times more
mod lists; // a page of a list, however many tasks there are
mod outbox; // a pass of the sweep, however many events went through
mod stats; // medians
mod results; // what was measured, as JSON
mod tables; // the same for people
mod chart; // and as a picture
mod svg; // how a picture is drawn

/// `cargo xtask bench`: prints tables, writes .data/bench/results.json and docs/performance/bench.svg
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Cli {
    #[command(flatten)]
    options: Options,
    /// One part alone; none: all but `overload`, `lists` and `outbox`
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, clap::Args)]
struct Options {
    /// A few minutes instead of most of an hour: fewer clients, rounds and events
    #[arg(long, global = true)]
    quick: bool,
    /// How often each contender gets its turn [default: 3; quick: 2]
    #[arg(long, global = true, value_name = "COUNT")]
    rounds: Option<u32>,
    /// Of each measurement
    #[arg(long, global = true, default_value_t = 3)]
    seconds: u32,
    /// Measured with these numbers of clients [default: 1,16,32,128,512; quick: 32, and 512 for create]
    #[arg(long, global = true, value_name = "COUNTS", value_delimiter = ',')]
    clients: Vec<u32>,
}

#[derive(Subcommand)]
enum Part {
    /// Requests/s, p50, p99, errors, CPU time and memory, of each contender
    Requests,
    /// From a committed write to its record's being visible in Kafka
    Latency,
    /// Draining a backlog of events, beside a plain loop of the same Kafka client
    Backlog,
    /// Clients write while Kafka is down, and it comes back
    Overload(overload::Options),
    /// From a process's start to its first 201
    Start,
    /// Ten times more tasks, clients, partitions
    Growth,
    /// The statement of a page with 1,000 and with 1,000,000 tasks: first and last page in each order, each filter
    Lists(lists::Options),
    /// The sweep's page and the removal while 1,000,000 events go through the outbox, and what could slow them down
    Outbox(outbox::Options),
}

impl Options {
    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 2 } else { 3 }).max(1)
    }

    fn seconds(&self) -> u32 {
        self.seconds.max(1)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(Cli { options, part }: Cli) -> Result<()> {
    match part {
        Some(Part::Overload(options)) => return overload::run(options).await,
        Some(Part::Lists(options)) => return lists::run(options).await,
        Some(Part::Outbox(options)) => return outbox::run(options).await,
        _ => {}
    }
    let dir = repository::data_dir()?.join("bench/run");
    let mut platform = Platform::start(&dir).await?;
    let mut results = Results::new(&options)?;
    let is_wanted = |wanted: fn(&Part) -> bool| part.as_ref().is_none_or(wanted);
    if is_wanted(|part| matches!(part, Part::Start)) {
        results.start = startup::measure(&mut platform, &options).await?;
        results.save()?;
    }
    if is_wanted(|part| matches!(part, Part::Requests)) {
        (results.requests, results.memory) = requests::measure(&mut platform, &options).await?;
        results.save()?;
    }
    if is_wanted(|part| matches!(part, Part::Latency)) {
        results.latency = latency::measure(&mut platform, &options).await?;
        results.save()?;
    }
    if is_wanted(|part| matches!(part, Part::Backlog)) {
        results.backlog = backlog::measure(&mut platform, &options).await?;
        results.save()?;
    }
    if is_wanted(|part| matches!(part, Part::Growth)) {
        results.growth = growth::measure(&mut platform, &options).await?;
        results.save()?;
    }
    platform.stop().await?;
    tables::print(&results);
    if part.is_none() {
        chart::write(&results)?;
    }
    Ok(())
}
