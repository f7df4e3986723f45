//! More writes than Kafka takes: the broker is stopped while clients write as fast as they can, and comes back.
//!
//! Told are the peak memory of the processes before and after, how fast the backlog drains beside a plain loop of
//! the same Kafka client, and how long new events take to be seen while the old ones are still on their way.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::time::sleep;
use xtask::progress::say;
use xtask::repository;

use crate::backlog::plain_loop;
use crate::contender::{Contender, Kind};
use crate::latency::{self, Sample};
use crate::operation::Operation;
use crate::platform::{Platform, connect};
use crate::requests::SETUP;
use crate::usage;
use crate::wrk;

const CLIENTS: u32 = 32;
const WARM_UP_S: u32 = 10;
/// While the backlog drains, and after it for as long as is left of this.
const NEW_EVENTS_PER_S: u32 = 50;
const NEW_EVENTS_S: u32 = 10;
const DRAIN_LIMIT: Duration = Duration::from_secs(600);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
pub struct Options {
    /// How long the broker is down
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    outage: u32,
}

pub async fn run(options: Options) -> Result<()> {
    let mut platform = Platform::start(&repository::data_dir()?.join("bench/run")).await?;
    let contender = Contender::start(&mut platform, Kind::System, SETUP).await?;
    write(&contender, WARM_UP_S).await?;
    let mut peaks = vec![("before", peaks(&contender))];
    say("Stopping", "Kafka");
    platform.kafka.stop().await?;
    // In halves, to see whether memory grows with time.
    let mut outcomes = Vec::new();
    for when in ["halfway", "at its end"] {
        outcomes.push(write(&contender, options.outage.div_ceil(2)).await?);
        peaks.push((when, self::peaks(&contender)));
    }
    let database = connect(&contender.database_url).await?;
    let backlog: i64 = database.query_one("select count(*) from outbox", &[]).await?.get(0);
    say("Starting", format_args!("Kafka again, with {backlog} events waiting"));
    platform.kafka.restart().await?;
    let returned = Instant::now();
    let newest = "select id from outbox order by id desc limit 1";
    let newest_old: uuid::Uuid = database.query_one(newest, &[]).await.context("the backlog")?.get(0);
    let drained = async {
        let left = "select 1 from outbox where id <= $1 limit 1";
        while database.query_opt(left, &[&newest_old]).await?.is_some() {
            ensure!(returned.elapsed() < DRAIN_LIMIT, "not drained within {DRAIN_LIMIT:?}");
            sleep(POLL_INTERVAL).await;
        }
        Ok(returned.elapsed())
    };
    let new = latency::sample(&platform, &contender, SETUP, NEW_EVENTS_PER_S, NEW_EVENTS_S);
    let (drained, new) = tokio::try_join!(drained, new)?;
    peaks.push(("after", self::peaks(&contender)));
    drop(database);
    contender.stop(&platform).await?;
    let plain = plain_loop(&mut platform, i32::try_from(backlog)?, SETUP.partitions).await?;
    platform.stop().await?;

    let Sample { from_response: [p50, p99], errors, .. } = new;
    let drained_per_s = backlog as f64 / drained.as_secs_f64();
    println!("\n{CLIENTS} clients create tasks while Kafka is down for {} s:\n", options.outage);
    println!("| | requests/s | p99 ms | errors | sidecar peak MiB | minispin peak MiB |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    println!("| before | | | | {} |", peaks[0].1);
    for (outcome, (when, peaks)) in outcomes.iter().zip(&peaks[1..]) {
        let per_s = outcome.requests as f64 * 1e6 / outcome.duration_us;
        println!("| {when} | {per_s:.0} | {:.0} | {} | {peaks} |", outcome.p99_us / 1e3, outcome.errors());
    }
    println!("| after | | | | {} |", peaks[3].1);
    println!(
        "\n{backlog} events drained in {:.1} s from Kafka's return on: {drained_per_s:.0}/s, {:.2} × a plain loop's {plain:.0}/s.",
        drained.as_secs_f64(),
        drained_per_s / plain
    );
    println!(
        "New events meanwhile, {NEW_EVENTS_PER_S}/s: from response to record p50 {p50:.1} ms, p99 {p99:.1} ms, {errors} errors."
    );
    Ok(())
}

async fn write(contender: &Contender, seconds: u32) -> Result<wrk::Outcome> {
    say("Writing", format_args!("for {seconds} s"));
    let (base_url, operation) = (contender.base_url.as_str(), Operation::Create);
    let load = wrk::Load { base_url, operation, clients: CLIENTS, seconds, first: 0, tasks: SETUP.tasks };
    wrk::run(load).await
}

/// Two cells of a table.
fn peaks(contender: &Contender) -> String {
    let peak = |wanted: &str| {
        let process = contender.processes().into_iter().find(|(name, _)| *name == wanted);
        process.map_or(f64::NAN, |(_, process)| usage::peak_mib(process))
    };
    format!("{:.0} | {:.0}", peak("sidecar"), peak("server"))
}
