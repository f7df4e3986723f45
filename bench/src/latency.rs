//! From a write to its record's being visible to a consumer that waits for it, at fixed rates: an open
//! loop, so that a slow answer does not make the next write wait.
//!
//! The commit is somewhere between a request and its response. So both are told: from the response to
//! the record, which is what the system adds to the commit, and from the request to the record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use xtask::progress::say;

use crate::Options;
use crate::contender::{Contender, Kind, Setup};
use crate::operation::{Operation, probe};
use crate::platform::Platform;
use crate::requests::SETUP;
use crate::stats::{Spread, percentile};
use crate::topic::Consumer;

const RATES_PER_S: [u32; 3] = [10, 100, 1_000];
const SECONDS: u32 = 10;
const SECONDS_QUICK: u32 = 5;
const ROUNDS_MAX: u32 = 2;
/// Writes past it are not sent but counted: a contender that cannot keep up must not take the machine with it.
const IN_FLIGHT_MAX: usize = 512;
const SEEN_LIMIT: Duration = Duration::from_secs(30);
const WARM_UP_WRITES: u32 = 100;

/// One run at one rate.
pub struct Sample {
    /// Writes that were answered with a 201, per second.
    pub written_per_s: f64,
    /// Not sent, refused, or not seen.
    pub errors: u64,
    pub from_response: [f64; 2],
    pub from_request: [f64; 2],
}

/// Milliseconds, p50 and p99.
#[derive(Serialize)]
pub struct Figure {
    pub contender: Kind,
    pub writes_per_s: u32,
    pub written_per_s: f64,
    pub errors: u64,
    pub from_response_p50_ms: Spread,
    pub from_response_p99_ms: Spread,
    pub from_request_p50_ms: Spread,
    pub from_request_p99_ms: Spread,
}

pub async fn measure(platform: &mut Platform, options: &Options) -> Result<Vec<Figure>> {
    let mut samples: BTreeMap<(u32, Kind), Vec<Sample>> = BTreeMap::new();
    let rounds = options.rounds().min(ROUNDS_MAX);
    let seconds = if options.quick { SECONDS_QUICK } else { SECONDS };
    for round in 1..=rounds {
        for kind in Kind::servers() {
            say("Measuring", format_args!("{kind} to Kafka, round {round} of {rounds}"));
            let contender = Contender::start(platform, kind, SETUP).await?;
            probe(&contender, Operation::Create).await?;
            for rate in RATES_PER_S {
                let sample = sample(platform, &contender, SETUP, rate, seconds).await?;
                samples.entry((rate, kind)).or_default().push(sample);
            }
            contender.stop(platform).await?;
        }
    }
    Ok(samples.into_iter().map(|((rate, kind), samples)| figure(kind, rate, &samples)).collect())
}

pub fn figure(contender: Kind, writes_per_s: u32, samples: &[Sample]) -> Figure {
    let spread = |value: fn(&Sample) -> f64| Spread::of(samples.iter().map(value));
    Figure {
        contender,
        writes_per_s,
        written_per_s: spread(|sample| sample.written_per_s).median,
        errors: samples.iter().map(|sample| sample.errors).sum(),
        from_response_p50_ms: spread(|sample| sample.from_response[0]),
        from_response_p99_ms: spread(|sample| sample.from_response[1]),
        from_request_p50_ms: spread(|sample| sample.from_request[0]),
        from_request_p99_ms: spread(|sample| sample.from_request[1]),
    }
}

pub async fn sample(
    platform: &Platform,
    contender: &Contender,
    setup: Setup,
    rate: u32,
    seconds: u32,
) -> Result<Sample> {
    let client = Client::builder().timeout(SEEN_LIMIT).build()?;
    for _ in 0..WARM_UP_WRITES {
        write(&client, &contender.base_url).await?;
    }
    let bootstrap = platform.kafka.bootstrap();
    let consumer = Consumer::start(&bootstrap, &contender.topic, setup.partitions).await?;

    let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut writes = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let count = rate * seconds;
    let mut errors = 0;
    let started = Instant::now();
    for _ in 0..count {
        // A write that should have begun earlier has waited since then.
        let due = ticks.tick().await.into_std();
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            errors += 1;
            continue;
        };
        let (client, base_url) = (client.clone(), contender.base_url.clone());
        writes.spawn(async move {
            let id = write(&client, &base_url).await;
            drop(place);
            (id, due, Instant::now())
        });
    }
    let written = writes.join_all().await;
    let elapsed_s = started.elapsed().as_secs_f64();

    let good: Vec<_> =
        written.into_iter().filter_map(|(id, due, answered)| Some((id.ok()?, due, answered))).collect();
    let tasks: Vec<&str> = good.iter().map(|(id, ..)| id.as_str()).collect();
    let seen = consumer.wait_for(&tasks, SEEN_LIMIT).await;
    let (mut from_response, mut from_request) = (Vec::new(), Vec::new());
    for (id, due, answered) in &good {
        if let Some(seen) = seen.get(id) {
            // Seen before its response was: nothing was added.
            from_response.push(seen.saturating_duration_since(*answered).as_secs_f64() * 1e3);
            from_request.push(seen.saturating_duration_since(*due).as_secs_f64() * 1e3);
        }
    }
    errors += u64::from(count) - errors - from_response.len() as u64;
    ensure!(!from_response.is_empty(), "{}: no record was seen\n{}", contender.kind, contender.log_tail());
    let sample = Sample {
        written_per_s: good.len() as f64 / elapsed_s,
        errors,
        from_response: p50_and_p99(from_response),
        from_request: p50_and_p99(from_request),
    };
    let [p50, p99] = sample.from_response;
    say(
        "",
        format_args!("{rate} writes/s: response to record p50 {p50:.1} ms, p99 {p99:.1} ms, {errors} errors"),
    );
    Ok(sample)
}

async fn write(client: &Client, base_url: &str) -> Result<String> {
    let body = json!({ "title": "Write the report", "description": "A weekly matter" });
    let response = client.post(format!("{base_url}/api/tasks")).json(&body).send().await?;
    ensure!(response.status() == StatusCode::CREATED, "answered {}", response.status());
    let task: Value = response.json().await?;
    Ok(task["id"].as_str().context("a task without an id")?.to_owned())
}

fn p50_and_p99(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [percentile(&values, 50.0), percentile(&values, 99.0)]
}
