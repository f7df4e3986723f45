//! The sidecar: takes events over HTTP or from the outbox, and publishes each to Kafka, in order.
//!
//! Forwards make it fast and the outbox makes it complete: it could lose every forward and would
//! still publish every event.

mod listener; // connections, so many and each for so long
mod ingest; // HTTP in
mod operations; // pages for operators
mod problem; // what an error says
mod offered; // an event, and what goes with it
mod lanes; // which lane
mod lane; // what a lane publishes next
mod leader; // whether it is for us to publish
mod topology; // over which partitions
mod layout; // and where older records are
mod publishing; // everything that publishes, from the start to the end of a term
mod publisher; // a lane at work
mod read_back; // what is on the partition already
mod kafka;
mod record;
mod partition;
mod removal; // after the ack
mod outbox;
mod sweep; // what nobody forwarded
mod repair; // what the cache was not told
mod prune; // what has had its time
mod watch; // what waits
mod health;
mod metrics;
mod config;
mod parked; // for operators: what the broker refuses
mod topic; // for operators: where the events go
mod verify; // for operators: topic against database

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use config::{Command, Config};
pub use parked::run as parked;
pub use topic::run as topic;
pub use verify::run as verify;

use health::Health;
use ingest::Ingest;
use lanes::Roles;
use listener::Limits;
use metrics::Metrics;
use operations::Operations;
use outbox::Outbox;
use publishing::Publishing;
use repair::Repair;

/// Brings the schema up to date.
///
/// # Errors
/// When the role may not, or when the schema needs a newer sidecar.
pub async fn migrate(config: &Config) -> Result<()> {
    let version = Outbox::new(config.database_url.expose(), config.database_timeout)?.migrate().await?;
    println!("the schema has version {version}");
    Ok(())
}

/// Bound sockets.
pub struct Listeners {
    /// For the component's forwards.
    pub ingest: TcpListener,
    /// For probes and metrics alone.
    pub operations: TcpListener,
}

impl Listeners {
    /// # Errors
    /// When an address cannot be listened on.
    pub async fn bind(config: &Config) -> Result<Listeners> {
        let bind = async |name: &str, address: SocketAddr| {
            TcpListener::bind(address).await.with_context(|| format!("{name}: cannot listen on {address}"))
        };
        Ok(Listeners {
            ingest: bind("SIDECAR_LISTEN", config.listen).await?,
            operations: bind("SIDECAR_OPERATIONS_LISTEN", config.operations_listen).await?,
        })
    }
}

/// Runs until `shutdown` comes, then stops taking events, publishes what is queued, and returns.
///
/// # Errors
/// When the configuration cannot be used. That a service is not up is no error: it is waited for.
pub async fn run(listeners: Listeners, config: Config, shutdown: impl Future<Output = ()>) -> Result<()> {
    let outbox = Outbox::new(config.database_url.expose(), config.database_timeout)?;
    let redis = redis::Client::open(config.redis_url.expose()).context("parsing REDIS_URL")?;
    let config = Arc::new(config);
    let closing = CancellationToken::new();
    let health = Health::default();
    // Before anybody can ask whether all is done.
    for step in publishing::STEPS {
        health.starting(step);
    }
    let metrics = Metrics::new(&config.kafka_topic);
    let roles = Roles::default();
    let wake_publisher = Arc::new(Notify::new());
    let repair = Repair::default();
    // What was to be repaired when the last sidecar stopped is not known.
    repair.request_all();

    let ingest = Ingest {
        token: config.token.clone().context("SIDECAR_TOKEN is not set")?,
        topic: config.kafka_topic.clone(),
        roles: roles.clone(),
        wake_publisher: Arc::clone(&wake_publisher),
        budget: Arc::new(Semaphore::new(config.queue_bytes_max as usize)),
        repair: repair.clone(),
        metrics: metrics.clone(),
        closing: closing.clone(),
    };
    let operations =
        Operations { health: health.clone(), metrics: metrics.clone(), closing: closing.clone() };
    let mut tasks = JoinSet::new();
    tasks.spawn(repair.clone().run(redis, config.cache_key_prefix.clone(), health.clone(), metrics.clone()));
    tasks.spawn(listener::serve(
        listeners.ingest,
        ingest::router(ingest, operations.clone()),
        Limits::ingest(),
        closing.clone(),
    ));
    // Until the very end, so that whoever asks meanwhile learns that this sidecar is stopping.
    tasks.spawn(listener::serve(
        listeners.operations,
        operations::router(operations),
        Limits::operations(),
        CancellationToken::new(),
    ));
    // What waits is known however the start goes: it may wait for Kafka.
    tasks.spawn(watch::run(outbox.clone(), metrics.clone(), health.clone(), closing.clone()));

    let term = Publishing {
        config: Arc::clone(&config),
        outbox,
        repair,
        health,
        metrics,
        roles,
        wake_publisher,
        closing: closing.clone(),
    };
    let working = tokio::spawn(term.run());

    shutdown.await;
    info!("stopping: no more events are taken, those that are queued are published");
    closing.cancel();
    match tokio::time::timeout(config.drain_timeout, working).await {
        Ok(ended) => ended.context("publishing ended with a panic")?,
        Err(_elapsed) => {
            warn!(
                "stopped with events unpublished; they are in the outbox, and the next start publishes them"
            );
        }
    }
    tasks.shutdown().await;
    Ok(())
}
