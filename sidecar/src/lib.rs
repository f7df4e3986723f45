//! The sidecar: takes events over HTTP or from the outbox, and publishes each to Kafka, in order.
//!
//! Forwards make it fast and the outbox makes it complete: it could lose every forward and would
//! still publish every event.

mod ingest; // HTTP in
mod lanes; // which lane
mod lane; // what a lane publishes next
mod publisher; // a lane at work
mod kafka;
mod record;
mod partition;
mod removal; // after the ack
mod outbox;
mod sweep; // what nobody forwarded
mod repair; // what the cache was not told
mod prune; // what has had its time
mod health;
mod config;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use config::Config;

use health::Health;
use ingest::Ingest;
use kafka::Kafka;
use lane::BatchLimits;
use lanes::Lanes;
use outbox::Outbox;
use publisher::Publisher;
use repair::Repair;
use sweep::Sweep;

/// The wait before a step of the start that failed is repeated; it is repeated until it succeeds.
const START_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Runs until `shutdown` comes, then stops taking events, publishes what is queued, and returns.
///
/// # Errors
/// When the configuration cannot be used. That a service is not up is no error: it is waited for.
pub async fn run(listener: TcpListener, config: Config, shutdown: impl Future<Output = ()>) -> Result<()> {
    let outbox = Outbox::new(config.database_url.expose(), config.database_timeout)?;
    let redis = redis::Client::open(config.redis_url.expose()).context("parsing REDIS_URL")?;
    let config = Arc::new(config);
    let closing = CancellationToken::new();
    let health = Health::default();
    let lanes = Arc::new(OnceLock::new());
    let repair = Repair::default();
    // What was to be repaired when the last sidecar stopped is not known.
    repair.request_all();
    let repairing = tokio::spawn(repair.clone().run(redis, config.cache_key_prefix.clone()));

    let ingest = Ingest {
        token: config.token.clone(),
        lanes: Arc::clone(&lanes),
        budget: Arc::new(Semaphore::new(config.queue_bytes_max as usize)),
        repair: repair.clone(),
        health: health.clone(),
        closing: closing.clone(),
    };
    let server = axum::serve(listener, ingest::router(ingest))
        .with_graceful_shutdown(closing.clone().cancelled_owned())
        .into_future();
    let serving = tokio::spawn(server);

    let working = TaskTracker::new();
    let start =
        Start { config: Arc::clone(&config), outbox, repair, health, lanes, closing: closing.clone() };
    working.spawn(start.run(working.clone()));

    shutdown.await;
    info!("stopping: no more events are taken, those that are queued are published");
    closing.cancel();
    working.close();
    if tokio::time::timeout(config.drain_timeout, working.wait()).await.is_err() {
        warn!("stopped with events unpublished; they are in the outbox, and the next start publishes them");
    }
    repairing.abort();
    serving.abort();
    Ok(())
}

/// From here to publishing: the schema, the topic, the lanes, the sweep.
struct Start {
    config: Arc<Config>,
    outbox: Outbox,
    repair: Repair,
    health: Health,
    lanes: Arc<OnceLock<Arc<Lanes>>>,
    closing: CancellationToken,
}

impl Start {
    async fn run(self, working: TaskTracker) {
        let closing = self.closing.clone();
        closing.run_until_cancelled(self.steps(working)).await;
    }

    async fn steps(self, working: TaskTracker) {
        let kafka = Kafka::new(Arc::clone(&self.config));
        self.health.starting("schema");
        self.health.starting("topic");
        self.until_done("schema", || self.outbox.migrate()).await;
        let partitions = self.until_done("topic", || kafka.ensure_topic()).await;

        let (lanes, offers) = Lanes::new(partitions);
        let lanes = Arc::new(lanes);
        let (removals, acks) = mpsc::channel(removal::WAITING_BATCHES_MAX);
        working.spawn(removal::run(self.outbox.clone(), self.health.clone(), acks));
        for (partition, offers) in (0..).zip(offers) {
            let publisher = Publisher {
                topic: self.config.kafka_topic.clone(),
                partition,
                offers,
                removals: removals.clone(),
                kafka: kafka.clone(),
                outbox: self.outbox.clone(),
                repair: self.repair.clone(),
                limits: BatchLimits {
                    events_max: self.config.kafka_batch_events_max as usize,
                    bytes_max: self.config.kafka_batch_bytes_max as usize,
                },
                health: self.health.clone(),
                closing: self.closing.clone(),
            };
            working.spawn(publisher.run());
        }
        let sweep = Sweep {
            outbox: self.outbox.clone(),
            lanes: Arc::clone(&lanes),
            health: self.health.clone(),
            interval: self.config.sweep_interval,
            closing: self.closing.clone(),
        };
        working.spawn(sweep.run());
        working.spawn(prune::run(self.outbox.clone(), self.closing.clone()));
        self.lanes.get_or_init(|| lanes);
        info!(topic = self.config.kafka_topic, partitions, "publishing");
    }

    /// Repeats a step until it succeeds, and says so once when it does not.
    async fn until_done<T, F: Future<Output = Result<T>>>(&self, name: &str, step: impl Fn() -> F) -> T {
        loop {
            let result = step().await;
            let is_news = self.health.note(name, &result);
            match result {
                Ok(done) => return done,
                Err(error) if is_news => {
                    warn!(step = name, error = format!("{error:#}"), "cannot start yet, trying on");
                }
                Err(_) => {}
            }
            tokio::time::sleep(START_RETRY_INTERVAL).await;
        }
    }
}
