//! What is broken and healed: services, two sidecars and a host of its own, with proxies on the ways between them.
//!
//! Invariant: when `strike` returns, its fault is over, and what it ended runs again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{OffsetAt, UnknownTopicHandling};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use xtask::process::Signal;
use xtask::services::{Kafka, KafkaVersion, Postgres, Redis};

use super::faults::{Fault, Link, LinkFault, Strike};
use crate::proxy::{Proxy, Trouble};
use crate::{Api, Deployment, LIMIT, Services, directory, eventually};

pub const PARTITIONS: i32 = 3;

/// Room for a run of some hundred rounds, in memory.
const DISK_BYTES: u64 = 1 << 30;

/// Short deadlines, so that a pause of a few seconds is longer than any of them.
const SIDECAR_SETTINGS: [(&str, &str); 3] =
    [("KAFKA_TIMEOUT_MS", "1500"), ("DATABASE_TIMEOUT_MS", "2000"), ("KAFKA_TOPIC_PARTITIONS", "3")];

/// What is cached must not become right again by itself; and a machine that compiles beside this is no hung Redis.
const HOST_SETTINGS: [(&str, &str); 4] = [
    ("postgres_timeout_ms", "2000"),
    ("redis_timeout_ms", "1000"),
    ("sidecar_timeout_ms", "1000"),
    ("cache_ttl_s", "3600"),
];

/// The sidecar is asked who publishes.
const ASK_LIMIT: Duration = Duration::from_millis(500);
const IDLE_INTERVAL: Duration = Duration::from_millis(20);

pub struct World {
    host: Mutex<Deployment>,
    sidecars: [Mutex<Deployment>; 2],
    sidecar_apis: [Api; 2],
    kafka: Mutex<Kafka>,
    postgres: Mutex<Postgres>,
    redis: Mutex<Redis>,
    ways: Ways,
    /// The broker's disk, where it has one of its own.
    disk: Option<PathBuf>,
    pub api: Api,
    pub topic: String,
    pub bootstrap: String,
}

/// The proxies.
struct Ways {
    sidecars_to_kafka: Proxy,
    sidecars_to_postgres: [Proxy; 2],
    host_to_postgres: Proxy,
    host_to_redis: Proxy,
    host_to_sidecar: Proxy,
}

impl World {
    /// Everything up and ready. With a disk of its own the broker keeps its data on a file system in memory, which nobody
    /// may mount but root, and which is gone with the mount namespace of this process.
    pub async fn start(version: KafkaVersion, disk_of_its_own: bool) -> Result<World> {
        let directory = directory("chaos")?;
        let ways = Ways {
            sidecars_to_kafka: Proxy::start().await?,
            sidecars_to_postgres: [Proxy::start().await?, Proxy::start().await?],
            host_to_postgres: Proxy::start().await?,
            host_to_redis: Proxy::start().await?,
            host_to_sidecar: Proxy::start().await?,
        };
        let kafka_dir = directory.join("kafka");
        let disk = disk_of_its_own.then(|| kafka_dir.join("data"));
        if let Some(disk) = &disk {
            mount(disk)?;
        }
        let postgres = Postgres::start(&directory.join("postgres"), None).await?;
        let redis = Redis::start(&directory.join("redis"), None).await?;
        let kafka = Kafka::start_behind(ways.sidecars_to_kafka.port(), version, &kafka_dir).await?;
        ways.sidecars_to_kafka.lead_to(kafka.proxied_port().context("started behind a proxy")?);
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
            ways,
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

    /// A fault from its beginning to its end.
    pub async fn strike(&self, strike: &Strike) -> Result<()> {
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
                kafka.kill().await?;
                over().await;
                kafka.restart().await
            }
            Fault::BrokerPaused => {
                let kafka = self.kafka.lock().await;
                kafka.pause()?;
                over().await;
                kafka.resume()
            }
            Fault::BrokerDiskFull => self.fill_disk(strike.lasts).await,
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
            Fault::RedisFlushed => {
                let mut connection = self.host.lock().await.redis().await?;
                Ok(redis::cmd("FLUSHALL").query_async(&mut connection).await?)
            }
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
        }
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
            let client = ClientBuilder::new(vec![self.bootstrap.clone()]).build().await?;
            let mut ends = Vec::new();
            for partition in 0..PARTITIONS {
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
        let kafka = self.ways.sidecars_to_kafka.address().to_string();
        let mut settings =
            vec![("DATABASE_URL", database_url.as_str()), ("KAFKA_BOOTSTRAP_SERVERS", kafka.as_str())];
        settings.extend(SIDECAR_SETTINGS);
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
            Link::SidecarsToKafka => vec![&self.ways.sidecars_to_kafka],
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
        let one =
            [&self.sidecars_to_kafka, &self.host_to_postgres, &self.host_to_redis, &self.host_to_sidecar];
        one.into_iter().chain(&self.sidecars_to_postgres)
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
