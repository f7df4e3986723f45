//! From the start to publishing: the schema, the topic, the lock; then the lanes, for as long as the
//! lock is ours and the topic is the same. When the lock is lost they stop at once: another sidecar may be publishing already.
//! When the topic changes they are drained, and new ones begin.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use chrono::Utc;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::health::Health;
use crate::kafka::Kafka;
use crate::lane::{BatchLimits, Start};
use crate::lanes::{Lanes, Role, Roles};
use crate::leader::{Leader, Leadership};
use crate::metrics::Metrics;
use crate::outbox::{Known, Outbox};
use crate::publisher::{self, Publisher};
use crate::read_back::ReadBack;
use crate::repair::Repair;
use crate::sweep::{Sweep, Wake};
use crate::topology::{Change, Topology};
use crate::{prune, removal};

/// The wait before a step of the start that failed is repeated; it is repeated until it succeeds.
const START_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// How soon a standby may wake the publisher again: what came meanwhile is told with one word.
const WAKE_INTERVAL: Duration = Duration::from_millis(20);

/// How long to publish to what is left of a topic that is gone.
const DRAIN_OF_LOST_TOPIC: Duration = Duration::from_secs(2);

/// What has to be done before anything is published, as the readiness check names it.
pub const STEPS: [&str; 3] = ["schema", "topic", "publisher"];

pub struct Publishing {
    pub config: Arc<Config>,
    pub outbox: Outbox,
    pub repair: Repair,
    pub health: Health,
    pub metrics: Metrics,
    pub roles: Roles,
    /// Notified when a forward has come while another sidecar publishes.
    pub wake_publisher: Arc<Notify>,
    pub closing: CancellationToken,
}

/// Why a term has ended.
#[derive(Eq, PartialEq)]
enum TermEnd {
    /// The topic has other partitions. The lock is still ours, if it was not lost meanwhile.
    TopicChanged,
    /// The lock is lost, a part broke, or all is done.
    Over,
}

impl Publishing {
    /// Runs until it is told to close and everything that is queued is published.
    pub async fn run(self) {
        let kafka = Kafka::new(Arc::clone(&self.config));
        let started = self.closing.run_until_cancelled(async {
            self.until_done("schema", || self.outbox.migrate()).await;
            self.until_done("topic", async || {
                self.outbox.claim_topic(&self.config.kafka_topic).await?;
                self.outbox.add_source(&self.config.ce_source).await?;
                kafka.ensure_topic().await
            })
            .await;
        });
        if started.await.is_none() {
            return;
        }
        let wake = Arc::new(Wake::default());
        let leader = Leader {
            database: self.outbox.database().clone(),
            topic: self.config.kafka_topic.clone(),
            wake: Arc::clone(&wake),
        };
        while !self.closing.is_cancelled() {
            let standby = async {
                tokio::select! {
                    leadership = leader.acquire(|| self.stand_by(), |error| self.cannot_tell(error)) => leadership,
                    never = self.wake_others() => never,
                }
            };
            let Some(leadership) = self.closing.run_until_cancelled(standby).await else {
                return;
            };
            // The lock is kept while the topic changes.
            while self.term(&kafka, &wake, &leadership).await == TermEnd::TopicChanged {}
        }
    }

    /// Publishes until the lock is lost, until the topic has other partitions, or until everything is published after the word
    /// to close.
    async fn term(&self, kafka: &Kafka, wake: &Arc<Wake>, leadership: &Leadership) -> TermEnd {
        // What the last publisher still had to repair died with it.
        self.repair.request_all();
        let topic = &self.config.kafka_topic;
        let topology = Topology {
            kafka: kafka.clone(),
            outbox: self.outbox.clone(),
            topic: topic.clone(),
            health: self.health.clone(),
            max_age: self.config.kafka_metadata_max_age,
            transaction_wait: self.config.kafka_transaction_wait,
        };
        let begin = async {
            let partitions = self.until_done("topic", || topology.settle()).await;
            // Before any row is read: a removal of the last publisher's may be under way still, and whoever saw its rows must
            // not begin after its position.
            (partitions, self.until_done("publisher", || self.outbox.known(topic)).await)
        };
        let begin = leadership.lost.run_until_cancelled(begin);
        let Some((partitions, Known { positions, last_seq })) =
            self.closing.run_until_cancelled(begin).await.flatten()
        else {
            return TermEnd::Over;
        };
        let replication_wait = self.config.replication_wait();
        let closing = self.closing.child_token();
        let (lanes, offers) = Lanes::new(partitions);
        let lanes = Arc::new(lanes);
        let mut workers = JoinSet::new();
        let (removals, acks) = mpsc::channel(removal::WAITING_BATCHES_MAX);
        workers.spawn(removal::run(self.outbox.clone(), topic.clone(), self.health.clone(), acks));
        for (partition, offers) in (0..).zip(offers) {
            self.health.starting(&publisher::check(partition));
            let publisher = Publisher {
                topic: topic.clone(),
                partition,
                start: Start {
                    now: Utc::now(),
                    lanes: partitions,
                    last_seq,
                    is_replicated: !replication_wait.is_zero(),
                },
                offers,
                removals: removals.clone(),
                lock: leadership.lock.clone(),
                position: positions.get(&partition).copied(),
                kafka: kafka.clone(),
                naming: self.config.naming(),
                outbox: self.outbox.clone(),
                repair: self.repair.clone(),
                limits: BatchLimits {
                    events_max: self.config.kafka_batch_events_max as usize,
                    bytes_max: self.config.kafka_batch_bytes_max as usize,
                },
                linger: self.config.kafka_linger,
                health: self.health.clone(),
                metrics: self.metrics.clone(),
                closing: closing.clone(),
                read_back: ReadBack::new(partition, self.config.kafka_transaction_wait),
                replication_wait,
                state: publisher::State::default(),
            };
            workers.spawn(publisher.run());
        }
        drop(removals);
        let sweep = Sweep {
            outbox: self.outbox.clone(),
            lanes: Arc::clone(&lanes),
            health: self.health.clone(),
            interval: self.config.sweep_interval,
            wake: Arc::clone(wake),
            closing: closing.clone(),
        };
        workers.spawn(sweep.run());
        workers.spawn(prune::run(self.outbox.clone(), closing.clone()));
        self.health.forget(|check| check == "publisher");
        self.roles.set(Role::Publishing(lanes));
        self.metrics.publishing.set(1);
        info!(topic, partitions, "publishing");

        let end = tokio::select! {
            () = all_end(&mut workers) => TermEnd::Over,
            () = leadership.lost.cancelled() => {
                warn!("the publisher's lock is lost: not publishing any more");
                TermEnd::Over
            }
            change = topology.changed(partitions) => {
                self.drain(change, &closing, &mut workers, leadership).await;
                TermEnd::TopicChanged
            }
        };
        // What is left stops where it is, and has stopped before anything begins again.
        self.roles.set(Role::Starting);
        self.metrics.publishing.set(0);
        workers.shutdown().await;
        self.metrics.forget_pending();
        self.health.forget(|check| !matches!(check, "schema" | "topic" | "parked"));
        self.health.starting("publisher");
        end
    }

    /// The topic has changed: publishes what is queued for the old partitions, as far as they are there. The rest is in the
    /// outbox.
    async fn drain(
        &self,
        change: Change,
        closing: &CancellationToken,
        workers: &mut JoinSet<()>,
        leadership: &Leadership,
    ) {
        self.roles.set(Role::Starting);
        closing.cancel();
        let limit = match change {
            Change::Grown(partitions) => {
                info!(
                    partitions,
                    "partitions were added: what is queued is published, and a new term begins"
                );
                self.config.drain_timeout
            }
            Change::MadeAnew => {
                warn!("the topic is gone or has fewer partitions than before: a new term begins");
                self.config.drain_timeout.min(DRAIN_OF_LOST_TOPIC)
            }
        };
        let drained = leadership.lost.run_until_cancelled(all_end(workers));
        if tokio::time::timeout(limit, drained).await.is_err() {
            info!("not all that was queued could be published; it is in the outbox");
        }
    }

    /// Nobody can say whether another sidecar publishes.
    fn cannot_tell(&self, error: &anyhow::Error) {
        self.roles.set(Role::Starting);
        if self.health.note("publisher", Some(error)) {
            warn!(error = format!("{error:#}"), "not publishing");
        }
    }

    fn stand_by(&self) {
        self.health.standby("publisher");
        self.roles.set(Role::Standby);
    }

    /// Passes on to the publisher that there is something in the outbox.
    async fn wake_others(&self) -> ! {
        loop {
            self.wake_publisher.notified().await;
            if let Err(error) = self.outbox.wake_publisher(false).await {
                warn!(
                    error = format!("{error:#}"),
                    "the publisher is not told; its sweep will find the events"
                );
            }
            tokio::time::sleep(WAKE_INTERVAL).await;
        }
    }

    /// Repeats a step until it succeeds, and says so once when it does not.
    async fn until_done<T, F: Future<Output = Result<T>>>(&self, name: &str, step: impl Fn() -> F) -> T {
        loop {
            let result = step().await;
            let is_news = self.health.note(name, result.as_ref().err());
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

/// Waits until every worker has ended, or one has broken.
async fn all_end(workers: &mut JoinSet<()>) {
    while let Some(ended) = workers.join_next().await {
        if let Err(panic) = ended {
            error!(%panic, "a part of the sidecar broke: beginning anew");
            return;
        }
    }
}
