//! A follower stands still, and what the leader has appended cannot be read until it goes on. Kafka 4.4 only: these tests
//! start brokers of their own.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{Deployment, LIMIT, Services, Told, directory, eventually};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};
use xtask::services::{KafkaCluster, Replication, partition_states};

/// A follower that stands still stays in sync for as long as a test lasts, and no broker is taken for dead.
const REPLICATION: Replication =
    Replication { brokers: 2, in_sync_min: 1, lag_ms_max: 300_000, session_timeout_ms: 300_000 };

/// Time for some requests to be given up, also those to the follower, and for the event to be sent again.
const CHANCE: Duration = Duration::from_secs(10);

/// Each of these tests starts several JVMs, so they run one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A deployment whose topic has one partition on two brokers.
struct Replicated {
    cluster: KafkaCluster,
    deployment: Deployment,
    follower: i32,
    /// Where the sidecar finds the leader: the follower would accept its connections and not answer.
    leader: String,
    /// The partition's log on its leader.
    log: PathBuf,
    told: Told,
    _one_at_a_time: MutexGuard<'static, ()>,
}

impl Replicated {
    /// With one task published, and the sidecar as it is set.
    async fn start(settings: &[(&str, &str)]) -> Result<Replicated> {
        let one_at_a_time = ONE_AT_A_TIME.lock().await;
        let cluster = KafkaCluster::start(REPLICATION, &[], &directory("cluster")?).await?;
        let services = Services { kafka_bootstrap_servers: cluster.bootstrap(), ..Services::shared()? };
        let mut deployment = Deployment::prepare(&services).await?;
        start_sidecar(&mut deployment, &cluster.bootstrap(), settings)?;
        deployment.sidecar_is_ready().await?;
        deployment.stop_sidecar().await?;
        let partitions = partition_states(&cluster.bootstrap(), &deployment.topic).await?;
        let [partition] = &partitions[..] else { anyhow::bail!("one partition, not {partitions:?}") };
        ensure!(partition.in_sync.len() == 2, "{partition:?}");
        let leader = partition.leader.context("a leader")?;
        let follower = cluster.ids().find(|id| *id != leader).context("a follower")?;
        let log = cluster.log_dir(leader)?.join(format!("{}-0/00000000000000000000.log", deployment.topic));
        let leader = format!("127.0.0.1:{}", cluster.broker(leader)?.port());
        start_sidecar(&mut deployment, &leader, settings)?;
        deployment.sidecar_is_ready().await?;
        deployment.start_application().await?;
        let told = Told::default();
        let mut replicated =
            Replicated { cluster, deployment, follower, leader, log, told, _one_at_a_time: one_at_a_time };
        replicated.create().await?;
        replicated.deployment.outbox_is_empty().await?;
        Ok(replicated)
    }

    async fn create(&mut self) -> Result<()> {
        let title = format!("after event {}", self.told.events());
        self.told.note(&self.deployment.api.create(&json!({ "title": title })).await?)
    }

    /// What the leader has appended, readable or not.
    fn log_bytes(&self) -> Result<u64> {
        Ok(fs::metadata(&self.log)?.len())
    }

    /// Creates a task whose event the leader appends, and the follower does not fetch.
    async fn create_unreplicated(&mut self) -> Result<()> {
        let before_bytes = self.log_bytes()?;
        self.cluster.broker(self.follower)?.pause()?;
        self.create().await?;
        eventually("the leader has the event", async || Ok((self.log_bytes()? > before_bytes).then_some(())))
            .await
    }

    /// Gives who repeats the event, and should not, the time to do so.
    async fn give_a_chance_to_repeat(&self) -> Result<()> {
        let (before_bytes, until) = (self.log_bytes()?, Instant::now() + CHANCE);
        while Instant::now() < until && self.log_bytes()? == before_bytes {
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// The follower goes on, and every event is on the topic once.
    async fn each_event_is_there_once(mut self) -> Result<()> {
        self.cluster.broker(self.follower)?.resume()?;
        self.deployment.outbox_is_empty().await?;
        self.create().await?;
        self.deployment.outbox_is_empty().await?;
        let topic = self.deployment.topic_reader().await?;
        let records = topic.wait_for(|records| records.len() >= self.told.events(), LIMIT).await?;
        self.told.are_once_and_in_order(&records)
    }
}

fn start_sidecar(deployment: &mut Deployment, bootstrap: &str, settings: &[(&str, &str)]) -> Result<()> {
    let mut all = vec![
        ("KAFKA_BOOTSTRAP_SERVERS", bootstrap),
        ("KAFKA_TOPIC_PARTITIONS", "1"),
        ("KAFKA_TOPIC_REPLICATION_FACTOR", "2"),
        // Longer than the follower stands still.
        ("KAFKA_REPLICATION_WAIT_MS", "60000"),
    ];
    all.extend(settings);
    deployment.start_sidecar(&all)
}

async fn killed_after_a_create(settings: &[(&str, &str)]) -> Result<()> {
    let mut replicated = Replicated::start(settings).await?;
    replicated.create_unreplicated().await?;
    replicated.deployment.kill_sidecar().await?;
    start_sidecar(&mut replicated.deployment, &replicated.leader, settings)?;
    replicated.deployment.sidecar_is_ready().await?;
    replicated.give_a_chance_to_repeat().await?;
    replicated.each_event_is_there_once().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_not_replicated_is_not_repeated_by_the_next_sidecar() -> Result<()> {
    killed_after_a_create(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_not_replicated_is_not_repeated_with_short_timeouts() -> Result<()> {
    killed_after_a_create(&[("KAFKA_TIMEOUT_MS", "3000")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_acknowledgement_is_late_is_not_repeated() -> Result<()> {
    let mut replicated = Replicated::start(&[("KAFKA_TIMEOUT_MS", "3000")]).await?;
    replicated.create_unreplicated().await?;
    replicated.give_a_chance_to_repeat().await?;
    replicated.each_event_is_there_once().await
}

/// What is surely new goes first, and its acknowledgement shows that what was before it can be read.
#[tokio::test(flavor = "multi_thread")]
async fn new_events_go_while_an_older_one_is_not_replicated() -> Result<()> {
    let mut replicated = Replicated::start(&[("KAFKA_TIMEOUT_MS", "3000")]).await?;
    replicated.create_unreplicated().await?;
    replicated.deployment.kill_sidecar().await?;
    let settings = [("KAFKA_TIMEOUT_MS", "3000")];
    start_sidecar(&mut replicated.deployment, &replicated.leader, &settings)?;
    // What is committed from here on, nobody can have sent before.
    replicated.deployment.sidecar_is_ready().await?;
    let before_bytes = replicated.log_bytes()?;
    replicated.create().await?;
    eventually("the leader has the new event", async || {
        Ok((replicated.log_bytes()? > before_bytes).then_some(()))
    })
    .await?;
    replicated.each_event_is_there_once().await
}
