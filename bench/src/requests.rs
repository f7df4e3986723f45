//! Requests per second, their times, what they cost and what goes wrong, of each contender.
//!
//! Counted as an error is what wrk calls one, and each task that is missing in the database after the
//! creations that were answered with a 201. Before and after each measurement an answer is looked at in full.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};
use xtask::progress::say;

use crate::Options;
use crate::contender::{Contender, Kind, Setup};
use crate::floor;
use crate::operation::{Operation, probe};
use crate::platform::{Platform, connect};
use crate::stats::Spread;
use crate::usage::{self, Times};
use crate::wrk::{self, Load, Outcome};

pub const SETUP: Setup = Setup { tasks: 100_000, partitions: 3 };
const CLIENTS: [u32; 5] = [1, 16, 32, 128, 512];
/// What most is judged by.
pub const CLIENTS_USUAL: u32 = 32;
pub const CLIENTS_MANY: u32 = 512;
const WARM_UP_S: u32 = 1;
/// How often the lists are dropped while they are measured without a cache: as 50 writes/s would.
const DROP_INTERVAL: Duration = Duration::from_millis(20);
const DRAIN_LIMIT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// One measurement.
#[derive(Clone)]
pub struct Sample {
    pub per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub errors: u64,
    /// Until the outbox was empty, after the load.
    pub drain_ms: f64,
    /// Microseconds of processor time for each request, by process.
    pub cpu_us: Times,
}

/// The same over all rounds.
#[derive(Serialize)]
pub struct Figure {
    pub contender: Kind,
    pub operation: Operation,
    pub clients: u32,
    pub per_s: Spread,
    pub p50_ms: Spread,
    pub p99_ms: Spread,
    pub max_ms: f64,
    pub errors: u64,
    pub drain_ms: f64,
    pub cpu_us: BTreeMap<String, f64>,
}

/// MiB at the peak, over all turns.
#[derive(Serialize)]
pub struct Memory {
    pub contender: Kind,
    pub process: String,
    pub peak_mib: f64,
}

type Key = (Kind, Operation, u32);

pub async fn measure(platform: &mut Platform, options: &Options) -> Result<(Vec<Figure>, Vec<Memory>)> {
    let mut samples: BTreeMap<Key, Vec<Sample>> = BTreeMap::new();
    let mut peaks: BTreeMap<(Kind, &'static str), f64> = BTreeMap::new();
    for round in 1..=options.rounds() {
        for kind in Kind::all() {
            say("Measuring", format_args!("{kind}, round {round} of {}", options.rounds()));
            let contender = Contender::start(platform, kind, SETUP).await?;
            for operation in Operation::of(kind) {
                for clients in clients(options, kind, operation) {
                    let sample = sample(platform, &contender, operation, clients, options.seconds()).await?;
                    samples.entry((kind, operation, clients)).or_default().push(sample);
                }
            }
            for (name, process) in contender.processes() {
                let peak = peaks.entry((kind, name)).or_default();
                *peak = peak.max(usage::peak_mib(process));
            }
            contender.stop(platform).await?;
        }
    }
    let figures = samples.into_iter().map(|(key, samples)| figure(key, &samples)).collect();
    let memory = peaks.into_iter().map(|((contender, process), peak_mib)| Memory {
        contender,
        process: process.to_owned(),
        peak_mib,
    });
    Ok((figures, memory.collect()))
}

fn clients(options: &Options, kind: Kind, operation: Operation) -> Vec<u32> {
    let mut clients = match (&options.clients[..], options.quick) {
        ([], true) if operation == Operation::Create => vec![CLIENTS_USUAL, CLIENTS_MANY],
        ([], true) => vec![CLIENTS_USUAL],
        ([], false) => CLIENTS.to_vec(),
        (given, _) => given.to_vec(),
    };
    if kind == Kind::Statements {
        clients.retain(|clients| *clients <= floor::CONNECTIONS_MAX);
    }
    clients
}

/// A warm-up, then the measurement; afterwards nothing is left to do that it caused.
pub async fn sample(
    platform: &Platform,
    contender: &Contender,
    operation: Operation,
    clients: u32,
    seconds: u32,
) -> Result<Sample> {
    let is_server = contender.kind != Kind::Statements;
    if is_server {
        probe(contender, operation).await?;
    }
    let mut redis = platform.redis_connection().await?;
    redis::cmd("FLUSHALL").exec_async(&mut redis).await?;
    let dropping = match operation {
        Operation::List => Some(keep_dropping(redis, &contender.topic)),
        _ => None,
    };
    let Setup { tasks, .. } = contender.setup;
    let load = Load { base_url: &contender.base_url, operation, clients, seconds, first: 0, tasks };
    run(contender, Load { seconds: WARM_UP_S, first: tasks.cast_unsigned() / 2, ..load }).await?;
    drained(contender).await?;

    let before = (all_times(platform, contender), usage::load_s(), count(contender).await?);
    let outcome = run(contender, load).await?;
    let ended = Instant::now();
    drained(contender).await?;
    let drain = ended.elapsed();
    let after = (all_times(platform, contender), usage::load_s());
    if let Some(dropping) = dropping {
        dropping.abort();
    }
    let mut errors = outcome.errors();
    if operation == Operation::Create {
        let made = count(contender).await? - before.2;
        errors += outcome.requests.saturating_sub(made.cast_unsigned());
    }
    if is_server {
        probe(contender, operation).await?;
    }
    ensure!(outcome.requests > 0, "{} answered nothing\n{}", contender.kind, contender.log_tail());

    let requests = outcome.requests as f64;
    let mut cpu_us = usage::between(&before.0, &after.0);
    cpu_us.insert("load", after.1 - before.1);
    cpu_us.values_mut().for_each(|seconds| *seconds *= 1e6 / requests);
    let sample = Sample {
        per_s: requests * 1e6 / outcome.duration_us,
        p50_ms: outcome.p50_us / 1e3,
        p99_ms: outcome.p99_us / 1e3,
        max_ms: outcome.max_us / 1e3,
        errors,
        drain_ms: drain.as_secs_f64() * 1e3,
        cpu_us,
    };
    let Sample { per_s, p50_ms, p99_ms, errors, .. } = &sample;
    say(
        "",
        format_args!(
            "{operation}, {clients} clients: {per_s:.0}/s, p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, {errors} errors"
        ),
    );
    Ok(sample)
}

async fn run(contender: &Contender, load: Load<'_>) -> Result<Outcome> {
    match contender.kind {
        Kind::Statements => floor::run(&contender.database_url, load).await,
        _ => wrk::run(load).await.with_context(|| contender.log_tail()),
    }
}

/// As writes would, somewhere else, to the lists of the system and of the peer.
fn keep_dropping(mut redis: redis::aio::MultiplexedConnection, prefix: &str) -> JoinHandle<()> {
    let mut command = redis::cmd("DEL");
    command.arg(format!("{{{prefix}}}:lists")).arg("tasks:list");
    tokio::spawn(async move {
        let mut ticks = interval(DROP_INTERVAL);
        loop {
            ticks.tick().await;
            let _ = command.exec_async(&mut redis).await;
        }
    })
}

fn all_times(platform: &Platform, contender: &Contender) -> Times {
    usage::times(contender.processes().into_iter().chain(platform.processes()))
}

async fn count(contender: &Contender) -> Result<i64> {
    if contender.kind.is_hello() {
        return Ok(0);
    }
    let client = connect(&contender.database_url).await?;
    Ok(client.query_one("select count(*) from tasks", &[]).await?.get(0))
}

/// Waits until every event is published and its row removed.
pub async fn drained(contender: &Contender) -> Result<()> {
    if !contender.kind.has_sidecar() {
        return Ok(());
    }
    let client = connect(&contender.database_url).await?;
    let deadline = Instant::now() + DRAIN_LIMIT;
    while client.query_opt("select 1 from outbox limit 1", &[]).await?.is_some() {
        ensure!(
            Instant::now() < deadline,
            "{}: the outbox is not empty after {DRAIN_LIMIT:?}\n{}",
            contender.kind,
            contender.log_tail()
        );
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

pub fn figure((contender, operation, clients): Key, samples: &[Sample]) -> Figure {
    let spread = |value: fn(&Sample) -> f64| Spread::of(samples.iter().map(value));
    let mut cpu_us: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, us) in samples.iter().flat_map(|sample| &sample.cpu_us) {
        cpu_us.entry((*name).to_owned()).or_default().push(*us);
    }
    Figure {
        contender,
        operation,
        clients,
        per_s: spread(|sample| sample.per_s),
        p50_ms: spread(|sample| sample.p50_ms),
        p99_ms: spread(|sample| sample.p99_ms),
        max_ms: spread(|sample| sample.max_ms).max,
        errors: samples.iter().map(|sample| sample.errors).sum(),
        drain_ms: spread(|sample| sample.drain_ms).median,
        cpu_us: cpu_us.into_iter().map(|(name, values)| (name, Spread::of(values).median)).collect(),
    }
}
