//! Faults on the real thing: clients write and read through HTTP while parts of the system are killed, paused and cut off;
//! then everything is healed, and a checker compares what clients were told, the database and the topic.
//!
//! Invariant: this shares no code with component, sidecar and contract; it knows the API and the topic as their users do.

mod faults; // what breaks, and when
mod world; // the parts
mod history; // what clients were told
mod clients; // who is told
mod checker; // whether that was true
mod table; // for people

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;
use xtask::services::{KafkaVersion, TopicReader, TopicRecord};

pub use checker::Violation;
pub use table::Table;

use crate::LIMIT;
use checker::{Checker, Delayed, Evidence, Excuses, StaleCache};
use clients::{Client, Shared};
use faults::{Fault, Schedule, Strike};
use history::History;
use world::World;

const CLIENTS: usize = 8;
/// Clients go on for so long after the last fault is over.
const AFTERWARDS: Duration = Duration::from_millis(700);
/// What the sidecar may take to make good what the cache was not told; much less than an answer lives in the cache.
const REPAIR_LIMIT: Duration = Duration::from_secs(10);
const REPAIR_INTERVAL: Duration = Duration::from_millis(100);
const VIOLATIONS_SHOWN_MAX: usize = 20;

pub struct Options {
    pub rounds: u64,
    pub seed: u64,
    /// The first round to run; those before it are skipped, so that a round can be run again.
    pub first: u64,
    pub kafka: KafkaVersion,
    /// One, or as many as a cluster has.
    pub brokers: usize,
    /// This process may mount what nobody else sees.
    pub has_private_mounts: bool,
    /// Some faults alone, by parts of their names with `|` between them.
    pub only: Option<String>,
}

/// Everything that is needed for one round after the other.
struct Run {
    world: World,
    checker: Checker,
    topic: TopicReader,
    /// The next offset of each partition that was read.
    read_to: BTreeMap<i32, i64>,
    clients: Vec<Client>,
    shared: Shared,
}

/// Runs the rounds, up to the first that fails.
///
/// # Errors
/// When a part cannot be started, broken or healed, or does not recover.
pub async fn run(options: &Options) -> Result<Table> {
    let mut faults = Fault::all(options.brokers);
    let mut table = Table::new(options);
    if !options.has_private_mounts && options.brokers == 1 {
        faults.retain(|fault| *fault != Fault::BrokerDiskFull);
        table.skipped(Fault::BrokerDiskFull, "no mount namespace of its own; it wants root and `unshare`");
    }
    if let Some(only) = &options.only {
        faults.retain(|fault| only.split('|').any(|part| fault.to_string().contains(part)));
        ensure!(!faults.is_empty(), "no fault has {only:?} in its name");
    }
    let world = World::start(options.kafka, options.brokers, options.has_private_mounts).await?;
    let logs = world.logs().await;
    let mut run = Run::new(world, options.seed).await?;
    let rounds = Schedule::new(options.seed, faults).enumerate().skip(options.first as usize);
    for (round, strikes) in rounds.take(options.rounds as usize) {
        let started = Instant::now();
        table.struck(&strikes);
        let checked = run.round(&strikes).await;
        let (first, seed) = (round, options.seed);
        let told = || {
            let strikes: Vec<_> = strikes.iter().map(Strike::to_string).collect();
            format!("round {round} of seed {seed}\n    {}", strikes.join("\n    "))
        };
        let only = options.only.as_ref().map(|only| format!(" --only '{only}'")).unwrap_or_default();
        let replay = || {
            format!(
                "again: cargo xtask chaos --kafka {} --brokers {} --seed {seed} --first {first} --rounds 1{only}",
                options.kafka, options.brokers
            )
        };
        let found = checked.with_context(|| format!("{}\n{}\nlogs: {logs:?}", told(), replay()))?;
        println!("{} ({:.1} s)", told(), started.elapsed().as_secs_f32());
        if !found.is_empty() {
            show(&found);
            println!("{}\nlogs: {logs:?}", replay());
            table.count(&run.checker.totals);
            return Ok(table);
        }
    }
    let found = run.read_again().await?;
    show(&found);
    table.count(&run.checker.totals);
    Ok(table)
}

impl Run {
    async fn new(world: World, seed: u64) -> Result<Run> {
        let topic = TopicReader::start(&world.bootstrap, &world.topic).await?;
        let shared = Shared::default();
        let new = |number| Client::new(number, seed, world.api.clone(), Arc::clone(&shared));
        let clients = (0..CLIENTS).map(new).collect();
        let read_to = BTreeMap::new();
        Ok(Run { checker: Checker::default(), topic, read_to, clients, shared, world })
    }

    /// A round from its first request to its verdict.
    async fn round(&mut self, strikes: &[Strike]) -> Result<Vec<(Violation, String)>> {
        let (history, stop) = (History::default(), Arc::new(AtomicBool::new(false)));
        let mut busy = JoinSet::new();
        for client in self.clients.drain(..) {
            busy.spawn(client.run(history.clone(), Arc::clone(&stop)));
        }
        let struck = self.strike_all(strikes).await;
        sleep(AFTERWARDS).await;
        stop.store(true, Ordering::Relaxed);
        self.clients = busy.join_all().await;
        let excuses = struck?;

        let (tasks, records) = self.settled().await?;
        self.compare_with_cache(&tasks).await?;
        let (writes, reads) = history.take();
        ensure!(!writes.is_empty() && !reads.is_empty(), "the clients did nothing");
        Ok(self.checker.check(Evidence { writes, reads, records, tasks, excuses }))
    }

    /// All strikes, each at its moment; and what they excuse.
    async fn strike_all(&self, strikes: &[Strike]) -> Result<Excuses> {
        let struck = strikes.iter().map(async |strike| {
            sleep(strike.at).await;
            let from = Instant::now();
            let excuses = self.world.strike(strike).await.with_context(|| strike.to_string())?;
            anyhow::Ok((from, excuses))
        });
        let mut all = Excuses::default();
        for (strike, (from, mut excuses)) in strikes.iter().zip(try_all(struck).await?) {
            if strike.fault.loses_invalidations() {
                all.cache.push(StaleCache { reads_from: from, writes_from: from });
            }
            let requests_max = strike.requests_delayed_max();
            let why = strike.fault.delays_requests();
            let delayed = why.map(|why| Delayed { why, requests_max, partitions: None });
            all.delayed_requests.extend(delayed);
            all.delayed_requests.append(&mut excuses.delayed_requests);
            all.cache.append(&mut excuses.cache);
            all.repeated_statements |= strike.fault.repeats_statements();
            all.restored = all.restored.or(excuses.restored);
            all.partition_changes += excuses.partition_changes;
            all.markers_max += excuses.markers_max;
        }
        Ok(all)
    }

    /// Waits until nothing changes any more: all tasks, and what is new on the topic.
    async fn settled(&mut self) -> Result<(Vec<Value>, Vec<TopicRecord>)> {
        let database = self.world.database().await?;
        let mut records = Vec::new();
        loop {
            self.world.settles().await?;
            let (tasks, ends) = (tasks(&database).await?, self.world.ends().await?);
            let read_to = self.read_to.clone();
            let reached = |records: &[TopicRecord]| {
                let mut reached = read_to.clone();
                for record in records {
                    let next = reached.entry(record.partition).or_default();
                    *next = (*next).max(record.offset + 1);
                }
                let reached = |partition| reached.get(&partition).copied().unwrap_or_default();
                (0..).zip(&ends).all(|(partition, end)| reached(partition) >= *end)
            };
            self.topic.wait_for(reached, LIMIT).await.context("reading the topic to its end")?;
            for record in self.topic.take()? {
                let next = self.read_to.entry(record.partition).or_default();
                *next = (*next).max(record.offset + 1);
                records.push(record);
            }
            // A request that outlived its sender may have come meanwhile.
            self.world.settles().await?;
            if (tasks.as_slice(), &ends) == (&self::tasks(&database).await?, &self.world.ends().await?) {
                return Ok((tasks, records));
            }
        }
    }

    /// Through the API, and so through the cache, everybody reads what the database holds.
    async fn compare_with_cache(&self, tasks: &[Value]) -> Result<()> {
        let shared = self.shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let known: Vec<_> =
            self.clients.iter().flat_map(Client::tasks).map(str::to_owned).chain(shared).collect();
        let deadline = Instant::now() + REPAIR_LIMIT;
        loop {
            let compared = self.compare_once(tasks, &known).await;
            match compared {
                Err(_) if Instant::now() < deadline => sleep(REPAIR_INTERVAL).await,
                compared => {
                    return compared
                        .with_context(|| format!("stale {REPAIR_LIMIT:?} after everything was healed"));
                }
            }
        }
    }

    async fn compare_once(&self, tasks: &[Value], known: &[String]) -> Result<()> {
        const LISTED: usize = 50; // as the clients ask for it
        let list = self.world.api.list(&format!("?limit={LISTED}")).await?;
        let newest: Vec<_> = tasks.iter().rev().take(LISTED).collect();
        ensure!(list.iter().collect::<Vec<_>>() == newest, "the list is {list:?}, should be {newest:?}");
        for id in known {
            let there = tasks.iter().find(|task| task["id"] == id.as_str());
            let read = crate::answer(self.world.api.get(&format!("/api/tasks/{id}"))).await?;
            match there {
                Some(task) => ensure!(read.json()? == *task, "{read:?} should be {task}"),
                None => ensure!(read.status == 404, "{read:?} should not be there"),
            }
        }
        Ok(())
    }

    /// The whole topic once more, by a consumer that has seen nothing of it.
    async fn read_again(&mut self) -> Result<Vec<(Violation, String)>> {
        let total = self.checker.totals.records;
        let topic = TopicReader::start(&self.world.bootstrap, &self.world.topic).await?;
        let limit = LIMIT + Duration::from_millis(total as u64);
        let records = topic.wait_for(|records| records.len() >= total, limit).await?;
        Ok(self.checker.check_again(&records))
    }
}

/// Every task, in the order of their ids, as the API would show it; written down here once more.
async fn tasks(database: &tokio_postgres::Client) -> Result<Vec<Value>> {
    const TASKS: &str = r#"
        select json_build_object(
            'id', id, 'title', title, 'description', description, 'status', status,
            'priority', case priority when 0 then 'low' when 1 then 'normal' when 2 then 'high' end,
            'due_at', to_char(due_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'tags', tags, 'version', version,
            'created_at', to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'updated_at', to_char(updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        )::text
        from tasks order by tasks.created_at, tasks.id"#;
    let rows = database.query(TASKS, &[]).await?;
    rows.iter().map(|row| Ok(serde_json::from_str(row.get(0))?)).collect()
}

/// All at once, each to its end: a fault that was begun is always healed.
async fn try_all<T>(all: impl Iterator<Item = impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    let mut running: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<Result<T>>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in running.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(result) = future.as_mut().poll(context)
            {
                *done = Some(result);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

fn show(found: &[(Violation, String)]) {
    for (violation, text) in found.iter().take(VIOLATIONS_SHOWN_MAX) {
        println!("{violation:?}: {text}");
    }
    if found.len() > VIOLATIONS_SHOWN_MAX {
        println!("… and {} more", found.len() - VIOLATIONS_SHOWN_MAX);
    }
}
