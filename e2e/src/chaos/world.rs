//! What is broken and healed: services, two sidecars and a host of its own, with proxies on the ways between them.
//!
//! Invariant: when `strike` returns, its fault is over, and what it ended runs again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{OffsetAt, UnknownTopicHandling};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use xtask::process::Signal;
use xtask::services::{
    Kafka, KafkaCluster, KafkaVersion, PartitionState, Postgres, Redis, Replication, add_partitions,
    all_in_sync, hold_transaction, partition_states,
};

use super::checker::{Delayed, Excuses, Restored, StaleCache};
use super::faults::{Fault, Link, LinkFault, Refusal, Strike};
use crate::proxy::{Proxy, Trouble};
use crate::{Api, Deployment, LIMIT, Services, directory, eventually};

/// At first, and at most.
const PARTITIONS: i32 = 3;
const PARTITIONS_MAX: i32 = 12;

/// A follower that stands still keeps an acknowledgement back for 1.5 times as long, until it counts as out of sync; a
/// broker without a word is taken for dead a little later.
const REPLICATION: Replication =
    Replication { brokers: 3, in_sync_min: 2, lag_ms_max: 3_000, session_timeout_ms: 5_000 };

/// Produce requests to one partition that are sent again because an open transaction hides what became of them: one for
/// each failure while it is open.
const HIDDEN_REQUESTS_MAX: usize = 3;
/// Records that end a transaction, in one partition: a coordinator that restarts meanwhile writes them again.
const MARKERS_MAX: usize = 2;
const TRANSACTION_WAIT: Duration = Duration::from_millis(2_000);

/// Room for a run of some hundred rounds, in memory.
const DISK_BYTES: u64 = 1 << 30;

/// Short deadlines, so that a pause of a few seconds is longer than any of them.
const SIDECAR_SETTINGS: [(&str, &str); 5] = [
    ("KAFKA_TIMEOUT_MS", "1500"),
    ("DATABASE_TIMEOUT_MS", "2000"),
    ("KAFKA_TOPIC_PARTITIONS", "3"),
    ("KAFKA_TRANSACTION_WAIT_MS", "2000"), // TRANSACTION_WAIT
    // Added partitions are noticed in the round in which they are added.
    ("KAFKA_METADATA_MAX_AGE_MS", "500"),
];
/// Longer than a follower that stands still counts as in sync.
const SIDECAR_SETTINGS_OF_A_CLUSTER: [(&str, &str); 2] =
    [("KAFKA_TOPIC_REPLICATION_FACTOR", "3"), ("KAFKA_REPLICATION_WAIT_MS", "6000")];

/// What is cached must not become right again by itself; and a machine that compiles beside this is no hung Redis.
const HOST_SETTINGS: [(&str, &str); 4] = [
    ("postgres_timeout_ms", "2000"),
    ("redis_timeout_ms", "1000"),
    ("sidecar_timeout_ms", "1000"),
    ("cache_ttl_s", "3600"),
];

const AFTER_RESTORE: Duration = Duration::from_millis(2_500);

/// The sidecar is asked who publishes.
const ASK_LIMIT: Duration = Duration::from_millis(500);
const IDLE_INTERVAL: Duration = Duration::from_millis(20);

pub struct World {
    host: Mutex<Deployment>,
    sidecars: [Mutex<Deployment>; 2],
    sidecar_apis: [Api; 2],
    kafka: Mutex<Brokers>,
    postgres: Mutex<Postgres>,
    redis: Mutex<Redis>,
    /// The directory of Redis' snapshots, which it writes only if configured to.
    redis_dir: PathBuf,
    ways: Ways,
    partitions: AtomicI32,
    /// The broker's disk, where it has one of its own.
    disk: Option<PathBuf>,
    pub api: Api,
    pub topic: String,
    pub bootstrap: String,
}

enum Brokers {
    One(Box<Kafka>),
    Several(Box<KafkaCluster>),
}

/// The proxies.
struct Ways {
    /// One for each broker.
    sidecars_to_kafka: Vec<Proxy>,
    sidecars_to_postgres: [Proxy; 2],
    host_to_postgres: Proxy,
    host_to_redis: Proxy,
    host_to_sidecar: Proxy,
}

impl World {
    /// Everything up and ready. With a disk of its own the broker keeps its data on a file system in memory, which nobody
    /// may mount but root, and which is gone with the mount namespace of this process.
    pub async fn start(version: KafkaVersion, brokers: usize, disk_of_its_own: bool) -> Result<World> {
        let directory = directory("chaos")?;
        let mut sidecars_to_kafka = Vec::new();
        for _ in 0..brokers {
            sidecars_to_kafka.push(Proxy::start().await?);
        }
        let ways = Ways {
            sidecars_to_kafka,
            sidecars_to_postgres: [Proxy::start().await?, Proxy::start().await?],
            host_to_postgres: Proxy::start().await?,
            host_to_redis: Proxy::start().await?,
            host_to_sidecar: Proxy::start().await?,
        };
        let kafka_dir = directory.join("kafka");
        let disk = (disk_of_its_own && brokers == 1).then(|| kafka_dir.join("data"));
        if let Some(disk) = &disk {
            mount(disk)?;
        }
        let postgres = Postgres::start(&directory.join("postgres"), None).await?;
        let redis_dir = directory.join("redis");
        let redis = Redis::start(&redis_dir, None).await?;
        let kafka = Brokers::start(brokers, version, &kafka_dir, &ways.sidecars_to_kafka).await?;
        for way in ways.sidecars_to_postgres.iter().chain([&ways.host_to_postgres]) {
            way.lead_to(postgres.port());
        }
        ways.host_to_redis.lead_to(redis.port());

        let bootstrap = kafka.bootstrap();
        let services = Services {
            database_url: postgres.url(),
            redis_url: redis.url(),
            kafka_bootstrap_servers: bootstrap.clone(),
        };
        let host = Deployment::prepare(&services).await?;
        let sidecars = [host.beside().await?, host.beside().await?];
        ways.host_to_sidecar.lead_to(sidecars[0].sidecar_port());
        let world = World {
            api: host.api.clone(),
            topic: host.topic.clone(),
            sidecar_apis: [sidecars[0].sidecar_api()?, sidecars[1].sidecar_api()?],
            host: Mutex::new(host),
            sidecars: sidecars.map(Mutex::new),
            kafka: Mutex::new(kafka),
            postgres: Mutex::new(postgres),
            redis: Mutex::new(redis),
            redis_dir,
            ways,
            partitions: AtomicI32::new(PARTITIONS),
            disk,
            bootstrap,
        };
        for number in 0..2 {
            world.start_sidecar(number, &mut *world.sidecars[number].lock().await)?;
        }
        world.is_ready().await?;
        world.start_host(&mut *world.host.lock().await).await?;
        Ok(world)
    }

    /// Where the logs of the sidecars and the host are.
    pub async fn logs(&self) -> Vec<PathBuf> {
        let mut logs = vec![self.host.lock().await.directory().to_owned()];
        for sidecar in &self.sidecars {
            logs.push(sidecar.lock().await.directory().to_owned());
        }
        logs
    }

    /// A fault from its beginning to its end, and what it excuses that only now is known.
    pub async fn strike(&self, strike: &Strike) -> Result<Excuses> {
        let mut excuses = Excuses::default();
        match strike.fault {
            Fault::FollowerPaused => excuses.delayed_requests.push(self.pause_follower(strike).await?),
            Fault::PartitionsAdded => excuses.partition_changes = self.add_partitions(strike.choice).await?,
            Fault::TransactionHeld => self.hold_transaction(strike, &mut excuses).await?,
            Fault::PostgresRestored => excuses.restored = Some(self.restore_postgres(strike.lasts).await?),
            Fault::RedisRestored => excuses.cache.push(self.restore_redis(strike.lasts).await?),
            Fault::RedisRefusing => excuses.cache.push(self.refuse_in_redis(strike).await?),
            _ => self.break_and_heal(strike).await?,
        }
        Ok(excuses)
    }

    async fn break_and_heal(&self, strike: &Strike) -> Result<()> {
        let over = || sleep(strike.lasts);
        match strike.fault {
            Fault::PublisherKilled | Fault::StandbyKilled => {
                let publisher = self.publisher().await;
                let is_publisher = strike.fault == Fault::PublisherKilled;
                let number = if is_publisher { publisher } else { 1 - publisher };
                let mut sidecar = self.sidecars[number].lock().await;
                sidecar.kill_sidecar().await?;
                over().await;
                self.start_sidecar(number, &mut sidecar)
            }
            Fault::BothSidecarsKilled => {
                let (mut first, mut second) = (self.sidecars[0].lock().await, self.sidecars[1].lock().await);
                tokio::try_join!(first.kill_sidecar(), second.kill_sidecar())?;
                over().await;
                self.start_sidecar(0, &mut first)?;
                self.start_sidecar(1, &mut second)
            }
            Fault::HostKilled => {
                let mut host = self.host.lock().await;
                host.kill_application().await?;
                over().await;
                self.start_host(&mut host).await
            }
            Fault::BrokerKilled => {
                let mut kafka = self.kafka.lock().await;
                let kafka = kafka.one()?;
                kafka.kill().await?;
                over().await;
                kafka.restart().await
            }
            Fault::BrokerPaused => {
                let mut kafka = self.kafka.lock().await;
                let kafka = kafka.one()?;
                kafka.pause()?;
                over().await;
                kafka.resume()
            }
            Fault::BrokerDiskFull => self.fill_disk(strike.lasts).await,
            Fault::LeaderKilled => {
                let mut kafka = self.kafka.lock().await;
                let partitions = self.partition_states().await?;
                let partition = &partitions[strike.choice % partitions.len()];
                let leader = kafka.several()?.broker_mut(partition.leader.context("it has a leader")?)?;
                leader.kill().await?;
                over().await;
                leader.restart().await?;
                all_in_sync(&self.bootstrap, &self.topic).await
            }
            Fault::BrokersRestarted => {
                let mut kafka = self.kafka.lock().await;
                let cluster = kafka.several()?;
                for id in cluster.ids() {
                    cluster.broker_mut(id)?.restart().await?;
                    all_in_sync(&self.bootstrap, &self.topic).await?;
                }
                Ok(())
            }
            Fault::PostgresStopped => {
                let mut postgres = self.postgres.lock().await;
                postgres.process().stop(Signal::QUIT, LIMIT).await?;
                over().await;
                postgres.restart().await
            }
            Fault::RedisKilled => {
                let mut redis = self.redis.lock().await;
                redis.kill().await?;
                over().await;
                redis.restart().await
            }
            Fault::RedisFlushed => self.in_redis(&["FLUSHALL"]).await,
            Fault::RedisPaused => {
                let redis = self.redis.lock().await;
                redis.pause()?;
                over().await;
                redis.resume()
            }
            Fault::On(link, fault) => {
                let ways = self.ways(link).await;
                if fault == LinkFault::Reset {
                    let end = Instant::now() + strike.lasts;
                    while Instant::now() < end {
                        ways.iter().for_each(|way| way.cut());
                        sleep(strike.every).await;
                    }
                    return Ok(());
                }
                ways.iter().for_each(|way| way.make(strike.trouble));
                over().await;
                if fault == LinkFault::HalfOpen && strike.is_severed {
                    ways.iter().for_each(|way| way.cut());
                }
                ways.iter().for_each(|way| way.make(Trouble::None));
                Ok(())
            }
            Fault::FollowerPaused
            | Fault::PartitionsAdded
            | Fault::TransactionHeld
            | Fault::PostgresRestored
            | Fault::RedisRestored
            | Fault::RedisRefusing => bail!("{} excuses something", strike.fault),
        }
    }

    /// What the broker leads as well goes on with requests that were given up.
    async fn pause_follower(&self, strike: &Strike) -> Result<Delayed> {
        let mut kafka = self.kafka.lock().await;
        let partitions = self.partition_states().await?;
        let partition = &partitions[strike.choice % partitions.len()];
        let mut followers = partition.replicas.iter().filter(|id| Some(**id) != partition.leader);
        let id = *followers.next().context("a partition with replicas")?;
        let broker = kafka.several()?.broker_mut(id)?;
        broker.pause()?;
        sleep(strike.lasts).await;
        broker.resume()?;
        all_in_sync(&self.bootstrap, &self.topic).await?;
        let led = partitions.iter().filter(|partition| partition.leader == Some(id));
        Ok(Delayed {
            why: "the broker went on with a request that was given up",
            requests_max: 1,
            partitions: Some(led.map(|partition| partition.partition).collect()),
        })
    }

    async fn partition_states(&self) -> Result<Vec<PartitionState>> {
        let partitions = partition_states(&self.bootstrap, &self.topic).await?;
        ensure!(!partitions.is_empty(), "the topic has no partitions");
        Ok(partitions)
    }

    /// One or two, as long as there is room. Says how often the count changed.
    async fn add_partitions(&self, choice: usize) -> Result<usize> {
        let before = self.partitions.load(Ordering::Relaxed);
        let count = (before + 1 + (choice % 2) as i32).min(PARTITIONS_MAX);
        if count == before {
            return Ok(0);
        }
        add_partitions(&self.bootstrap, &self.topic, count).await?;
        self.partitions.store(count, Ordering::Relaxed);
        Ok(1)
    }

    /// In one partition or in all.
    async fn hold_transaction(&self, strike: &Strike, excuses: &mut Excuses) -> Result<()> {
        let partitions = self.partitions.load(Ordering::Relaxed) as usize;
        let partition =
            (strike.choice / 6).is_multiple_of(2).then_some((strike.choice / 12 % partitions) as i32);
        let open = hold_transaction(&self.bootstrap, &self.topic, partition, strike.lasts, strike.end());
        let hidden = open.await?;
        excuses.markers_max = MARKERS_MAX;
        if hidden >= TRANSACTION_WAIT {
            excuses.delayed_requests.push(Delayed {
                why: "a transaction of another producer hid what the partition held",
                requests_max: HIDDEN_REQUESTS_MAX,
                partitions: partition.map(|partition| vec![partition]),
            });
        }
        Ok(())
    }

    /// To a copy of its files, made a moment before. Redis is flushed with it: what is cached may be of what is lost.
    async fn restore_postgres(&self, lasts: Duration) -> Result<Restored> {
        let mut postgres = self.postgres.lock().await;
        let copied = Instant::now();
        postgres.copy_data().await?;
        sleep(lasts).await;
        postgres.process().stop(Signal::QUIT, LIMIT).await?;
        let lost = Instant::now();
        self.in_redis(&["FLUSHALL"]).await?;
        postgres.restore_copy()?;
        postgres.restart().await?;
        // Time to make changes that have the versions of those that are lost.
        sleep(AFTER_RESTORE).await;
        Ok(Restored { copied: copied.into_std(), lost: lost.into_std() })
    }

    /// To a snapshot of a moment before. Only what is written while it is away may be stale then.
    async fn restore_redis(&self, lasts: Duration) -> Result<StaleCache> {
        let mut redis = self.redis.lock().await;
        self.in_redis(&["SAVE"]).await?;
        sleep(lasts).await;
        let killed = Instant::now().into_std();
        redis.kill().await?;
        redis.restart().await?;
        // The next kill loses everything again.
        fs::remove_file(self.redis_dir.join("dump.rdb"))?;
        Ok(StaleCache { reads_from: killed, writes_from: killed })
    }

    /// It goes on answering who reads. Meanwhile nobody may trust it; once it is well, what was written meanwhile may be
    /// stale until the sidecar has made up for it.
    async fn refuse_in_redis(&self, strike: &Strike) -> Result<StaleCache> {
        let _redis = self.redis.lock().await;
        let writes_from = Instant::now().into_std();
        let (refuse, heal): (&[&str], &[&str]) = match strike.refusal() {
            Refusal::Replica => (&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]),
            Refusal::NoReplicas => (
                &["CONFIG", "SET", "min-replicas-to-write", "1"],
                &["CONFIG", "SET", "min-replicas-to-write", "0"],
            ),
            Refusal::NoPermission => (
                &["ACL", "SETUSER", "default", "-del", "-unlink"],
                &["ACL", "SETUSER", "default", "+del", "+unlink"],
            ),
        };
        self.in_redis(refuse).await?;
        sleep(strike.lasts).await;
        let reads_from = Instant::now().into_std();
        self.in_redis(heal).await?;
        Ok(StaleCache { reads_from, writes_from })
    }

    async fn in_redis(&self, command: &[&str]) -> Result<()> {
        let mut connection = self.host.lock().await.redis().await?;
        let (name, arguments) = command.split_first().context("a command has a name")?;
        redis::cmd(name).arg(arguments).query_async(&mut connection).await.context(command.join(" "))
    }

    /// Waits until everything that was accepted is published, both sidecars are ready, and nothing is under way.
    pub async fn settles(&self) -> Result<()> {
        self.is_ready().await?;
        self.host.lock().await.outbox_is_empty().await?;
        let idle = async {
            while !self.ways.all().all(Proxy::is_idle) {
                sleep(IDLE_INTERVAL).await;
            }
        };
        timeout(LIMIT, idle).await.context("the proxies still hold bytes")
    }

    pub async fn database(&self) -> Result<tokio_postgres::Client> {
        self.host.lock().await.database().await
    }

    /// The end of each partition.
    pub async fn ends(&self) -> Result<Vec<i64>> {
        let ask = async {
            let brokers = self.bootstrap.split(',').map(str::to_owned).collect();
            let client = ClientBuilder::new(brokers).build().await?;
            let mut ends = Vec::new();
            for partition in 0..self.partitions.load(Ordering::Relaxed) {
                let unknown = UnknownTopicHandling::Error;
                let client = client.partition_client(&self.topic, partition, unknown).await?;
                ends.push(client.get_offset(OffsetAt::Latest).await?);
            }
            anyhow::Ok(ends)
        };
        timeout(LIMIT, ask).await.context("the broker does not tell the ends of the partitions")?
    }

    fn start_sidecar(&self, number: usize, sidecar: &mut Deployment) -> Result<()> {
        let database_url = self.ways.sidecars_to_postgres[number].through(&sidecar.database_url)?;
        let kafka: Vec<_> = self.ways.sidecars_to_kafka.iter().map(|way| way.address().to_string()).collect();
        let kafka = kafka.join(",");
        let mut settings =
            vec![("DATABASE_URL", database_url.as_str()), ("KAFKA_BOOTSTRAP_SERVERS", kafka.as_str())];
        settings.extend(SIDECAR_SETTINGS);
        if self.ways.sidecars_to_kafka.len() > 1 {
            settings.extend(SIDECAR_SETTINGS_OF_A_CLUSTER);
        }
        sidecar.start_sidecar(&settings)
    }

    async fn start_host(&self, host: &mut Deployment) -> Result<()> {
        let [postgres, redis, sidecar] =
            [&self.ways.host_to_postgres, &self.ways.host_to_redis, &self.ways.host_to_sidecar]
                .map(|way| way.address().to_string());
        let mut variables: Vec<(&str, &str)> =
            vec![("postgres_address", &postgres), ("redis_address", &redis), ("sidecar_address", &sidecar)];
        variables.extend(HOST_SETTINGS);
        host.start_application_with(&variables).await
    }

    async fn is_ready(&self) -> Result<()> {
        for (number, api) in self.sidecar_apis.iter().enumerate() {
            eventually(&format!("sidecar {number} is ready"), async || {
                let answer = crate::answer(api.get("/readyz").timeout(LIMIT)).await?;
                ensure!(answer.status.is_success(), "{}", answer.body);
                Ok(Some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// The sidecar that publishes, or any if nobody says that it does.
    async fn publisher(&self) -> usize {
        for (number, api) in self.sidecar_apis.iter().enumerate() {
            let Ok(answer) = crate::answer(api.get("/readyz").timeout(ASK_LIMIT)).await else { continue };
            let checks = answer.json().map(|report: Value| report["checks"].clone()).unwrap_or_default();
            if checks.get("partition 0").is_some() {
                return number;
            }
        }
        0
    }

    async fn ways(&self, link: Link) -> Vec<&Proxy> {
        match link {
            Link::SidecarsToKafka => self.ways.sidecars_to_kafka.iter().collect(),
            Link::PublisherToPostgres => vec![&self.ways.sidecars_to_postgres[self.publisher().await]],
            Link::SidecarsToPostgres => self.ways.sidecars_to_postgres.iter().collect(),
            Link::HostToPostgres => vec![&self.ways.host_to_postgres],
            Link::HostToRedis => vec![&self.ways.host_to_redis],
            Link::HostToSidecar => vec![&self.ways.host_to_sidecar],
        }
    }

    /// Takes all the room that is left on the broker's disk; gives it back and starts the broker, which has ended itself
    /// or is ended now: it does not use a disk again that has failed it.
    async fn fill_disk(&self, lasts: Duration) -> Result<()> {
        let disk = self.disk.as_ref().context("only a disk of its own is ever filled")?;
        let mut kafka = self.kafka.lock().await;
        let kafka = kafka.one()?;
        let ballast = disk.join("ballast");
        let room = ballast.clone();
        // The broker goes on writing meanwhile, so that the last bytes are taken one page at a time.
        tokio::task::spawn_blocking(move || fill(&room)).await??;
        sleep(lasts.max(Duration::from_millis(500))).await;
        if kafka.process().exit_status().is_none() {
            kafka.kill().await?;
        }
        fs::remove_file(&ballast)?;
        kafka.restart().await
    }
}

impl Ways {
    fn all(&self) -> impl Iterator<Item = &Proxy> {
        let one = [&self.host_to_postgres, &self.host_to_redis, &self.host_to_sidecar];
        one.into_iter().chain(&self.sidecars_to_kafka).chain(&self.sidecars_to_postgres)
    }
}

impl Brokers {
    /// Each behind its proxy.
    async fn start(brokers: usize, version: KafkaVersion, dir: &Path, proxies: &[Proxy]) -> Result<Brokers> {
        if let [proxy] = proxies {
            let kafka = Kafka::start_behind(proxy.port(), version, dir).await?;
            proxy.lead_to(kafka.proxied_port().context("started behind a proxy")?);
            return Ok(Brokers::One(Box::new(kafka)));
        }
        ensure!(version == KafkaVersion::V4_4, "several brokers there are only of Kafka 4.4");
        let ports: Vec<_> = proxies.iter().map(Proxy::port).collect();
        let cluster = KafkaCluster::start(Replication { brokers, ..REPLICATION }, &ports, dir).await?;
        for (proxy, port) in proxies.iter().zip(cluster.proxied_ports()) {
            proxy.lead_to(port);
        }
        Ok(Brokers::Several(Box::new(cluster)))
    }

    fn bootstrap(&self) -> String {
        match self {
            Brokers::One(kafka) => kafka.bootstrap(),
            Brokers::Several(cluster) => cluster.bootstrap(),
        }
    }

    fn one(&mut self) -> Result<&mut Kafka> {
        match self {
            Brokers::One(kafka) => Ok(kafka),
            Brokers::Several(_) => bail!("this fault is for one broker alone"),
        }
    }

    fn several(&mut self) -> Result<&mut KafkaCluster> {
        match self {
            Brokers::Several(cluster) => Ok(cluster),
            Brokers::One(_) => bail!("this fault is for several brokers"),
        }
    }
}

fn mount(disk: &Path) -> Result<()> {
    xtask::repository::create_dir(disk)?;
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "chaos"])
        .arg(disk)
        .status()
        .context("starting mount")?;
    ensure!(status.success(), "`mount` ended with {status}");
    Ok(())
}

fn fill(ballast: &Path) -> Result<()> {
    use std::io::Write as _;
    let mut file = File::create(ballast)?;
    for size in [1 << 20, 1 << 12, 1] {
        let chunk = vec![0; size];
        let mut written = 0;
        // A disk with more room than ours is not ours.
        while written <= DISK_BYTES && file.write_all(&chunk).is_ok() {
            written += size as u64;
        }
        ensure!(written <= DISK_BYTES, "{} is larger than the disk that was mounted", ballast.display());
    }
    Ok(())
}
