//! Apache Kafka, one broker that is the whole cluster: 4.4 (KRaft), or 3.0 with ZooKeeper as existing users run it.
//!
//! Topics are not created on first use: a topic's partitions are the sidecar's to choose, and a misspelt name is an error.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tokio::task::spawn_blocking;

use super::artifacts::{self, Set, fetched};
use super::ports::Port;
use super::probe::Probe;
use super::service::{Recipe, Service};
use crate::repository;

/// 22 characters that are the base64 of 16 bytes, as Kafka wants it.
const CLUSTER_ID: &str = "task-api-dev-cluster-A";
const HEAP: &str = "-Xmx512m";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaVersion {
    /// 4.4.0, KRaft.
    V4_4,
    /// 3.0.1 with ZooKeeper 3.6: what Confluent Platform 7.0.1 contains.
    V3_0,
}

/// A broker. `stop`, `kill`, `pause` and `restart` are about the broker; ZooKeeper runs on.
pub struct Kafka {
    broker: Service,
    /// After the broker, which would be long in stopping without it: fields are dropped in this order.
    zookeeper: Option<Service>,
    /// KRaft's second listener; held so that nobody else chooses it.
    _controller: Option<Port>,
    proxied: Option<Proxied>,
}

/// One more listener, which tells its clients another port than its own: that of a proxy in front of it.
pub(super) struct Proxied {
    pub(super) port: Port,
    pub(super) advertised: u16,
}

impl Kafka {
    /// Keeps its data in `dir`, which must lie in `repository::data_dir()`. `None`: a free port.
    pub async fn start(version: KafkaVersion, dir: &Path, port: Option<u16>) -> Result<Kafka> {
        Kafka::start_with(version, dir, port, None, "").await
    }

    /// On a free port, with more lines of `server.properties`; the last one of a name counts.
    pub async fn start_with_settings(version: KafkaVersion, dir: &Path, settings: &str) -> Result<Kafka> {
        Kafka::start_with(version, dir, None, None, settings).await
    }

    /// On free ports, and with a second listener for the proxy that clients find at the port `proxy`.
    pub async fn start_behind(proxy: u16, version: KafkaVersion, dir: &Path) -> Result<Kafka> {
        let proxied = Proxied { port: Port::free()?, advertised: proxy };
        Kafka::start_with(version, dir, None, Some(proxied), "").await
    }

    async fn start_with(
        version: KafkaVersion,
        dir: &Path,
        port: Option<u16>,
        proxied: Option<Proxied>,
        settings: &str,
    ) -> Result<Kafka> {
        let class_path = format!("{}/jars/*", fetched(version.set()).await?.display());
        repository::create_dir(dir)?;
        let java = |heap: &str| {
            let mut command = java();
            command.current_dir(dir).args([heap, "-XX:+ExitOnOutOfMemoryError", "-cp", &class_path]);
            command
        };
        match version {
            KafkaVersion::V4_4 => {
                let controller = Port::free()?;
                let configuration = dir.join("server.properties");
                let write = |port| {
                    let properties = kraft(dir, port, controller.number(), proxied.as_ref());
                    write(&configuration, &format!("{properties}{settings}\n"))
                };
                if !dir.join("data/meta.properties").is_file() {
                    write(port.unwrap_or(1))?; // formatting wants a port and does not use it
                    format(java(HEAP), &configuration).await?;
                }
                let recipe = |port: u16| {
                    write(port)?;
                    let mut command = java(HEAP);
                    command
                        .args(["-Dorg.apache.logging.log4j.level=INFO", "kafka.Kafka"])
                        .arg(&configuration);
                    Ok(broker(command, dir, port))
                };
                let broker = Service::start(port, dir, recipe).await?;
                Ok(Kafka { broker, zookeeper: None, _controller: Some(controller), proxied })
            }
            KafkaVersion::V3_0 => {
                let recipe = |port: u16| {
                    let configuration = dir.join("zookeeper.properties");
                    write(&configuration, &zookeeper(dir, port))?;
                    let mut command = java("-Xmx128m");
                    command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(&configuration);
                    Ok(Recipe {
                        name: "ZooKeeper",
                        command,
                        log: dir.join("zookeeper.log"),
                        probe: Probe::ZooKeeper { port },
                        stop_signal: Signal::TERM,
                        drop_signal: None,
                        too_soon: None,
                    })
                };
                let zookeeper = Service::start(None, dir, recipe).await?;
                let recipe = |port: u16| {
                    let configuration = dir.join("server.properties");
                    let properties = with_zookeeper(dir, port, zookeeper.port(), proxied.as_ref());
                    write(&configuration, &format!("{properties}{settings}\n"))?;
                    let mut command = java(HEAP);
                    command.arg("kafka.Kafka").arg(&configuration);
                    Ok(broker(command, dir, port))
                };
                let broker = Service::start(port, dir, recipe).await?;
                Ok(Kafka { broker, zookeeper: Some(zookeeper), _controller: None, proxied })
            }
        }
    }

    /// `host:port`, as clients want it.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Where the proxy of `start_behind` has to lead to.
    pub fn proxied_port(&self) -> Option<u16> {
        self.proxied.as_ref().map(|proxied| proxied.port.number())
    }

    /// The broker first, then ZooKeeper if there is one.
    pub async fn stop_all(&self) -> Result<()> {
        self.stop().await?;
        if let Some(zookeeper) = &self.zookeeper {
            zookeeper.stop().await?;
        }
        Ok(())
    }
}

impl Deref for Kafka {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.broker
    }
}

impl DerefMut for Kafka {
    fn deref_mut(&mut self) -> &mut Service {
        &mut self.broker
    }
}

impl KafkaVersion {
    pub(super) fn set(self) -> Set {
        match self {
            KafkaVersion::V4_4 => artifacts::KAFKA_4_4,
            KafkaVersion::V3_0 => artifacts::KAFKA_3_0,
        }
    }
}

impl Display for KafkaVersion {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KafkaVersion::V4_4 => "4.4",
            KafkaVersion::V3_0 => "3.0",
        })
    }
}

impl FromStr for KafkaVersion {
    type Err = anyhow::Error;

    fn from_str(version: &str) -> Result<Self> {
        match version {
            "4.4" => Ok(KafkaVersion::V4_4),
            "3.0" => Ok(KafkaVersion::V3_0),
            other => bail!("no Kafka {other} here: 4.4 or 3.0"),
        }
    }
}

/// The `java` of `JAVA_HOME`, or else of `PATH`, tuned for a short start.
pub(super) fn java() -> Command {
    let mut command = match std::env::var_os("JAVA_HOME") {
        Some(home) => Command::new(Path::new(&home).join("bin/java")),
        None => Command::new("java"),
    };
    // One small heap on a machine that has other work: no collector threads, no second compiler.
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]);
    command
}

pub(super) fn broker(command: Command, dir: &Path, port: u16) -> Recipe {
    Recipe {
        name: "Kafka",
        command,
        log: dir.join("kafka.log"),
        probe: Probe::Kafka { bootstrap: format!("127.0.0.1:{port}") },
        stop_signal: Signal::TERM,
        drop_signal: None,
        // ZooKeeper keeps the name of a broker that was killed until its session times out.
        too_soon: Some("NodeExists"),
    }
}

pub(super) async fn format(mut java: Command, configuration: &Path) -> Result<()> {
    java.args(["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config"])
        .arg(configuration);
    let output = spawn_blocking(move || java.stdin(Stdio::null()).output())
        .await?
        .context("starting `java`: install a JDK 17 or later, or set JAVA_HOME")?;
    ensure!(
        output.status.success(),
        "formatting Kafka's storage ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

pub(super) fn write(path: &Path, properties: &str) -> Result<()> {
    fs::write(path, properties).with_context(|| format!("writing {}", path.display()))
}

fn kraft(dir: &Path, port: u16, controller: u16, proxied: Option<&Proxied>) -> String {
    let (bound, advertised) = listeners(port, proxied);
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         listeners={bound},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners={advertised}\n\
         {}",
        common(dir, 1, 1)
    )
}

fn with_zookeeper(dir: &Path, port: u16, zookeeper: u16, proxied: Option<&Proxied>) -> String {
    let (bound, advertised) = listeners(port, proxied);
    format!(
        "broker.id=1\n\
         zookeeper.connect=127.0.0.1:{zookeeper}\n\
         zookeeper.connection.timeout.ms=18000\n\
         zookeeper.session.timeout.ms=4000\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT\n\
         listeners={bound}\n\
         advertised.listeners={advertised}\n\
         {}",
        common(dir, 1, 1)
    )
}

/// Where the broker listens, and what it tells its clients of that.
pub(super) fn listeners(port: u16, proxied: Option<&Proxied>) -> (String, String) {
    let own = format!("PLAINTEXT://127.0.0.1:{port}");
    match proxied {
        None => (own.clone(), own),
        Some(Proxied { port, advertised }) => (
            format!("{own},PROXIED://127.0.0.1:{}", port.number()),
            format!("{own},PROXIED://127.0.0.1:{advertised}"),
        ),
    }
}

/// Groups form at once, for nobody else is coming. A transaction that is given up ends soon after its timeout.
/// `replicas` and `in_sync_min` are those of Kafka's own topics.
pub(super) fn common(dir: &Path, replicas: usize, in_sync_min: usize) -> String {
    format!(
        "log.dirs={}/data\n\
         auto.create.topics.enable=false\n\
         offsets.topic.replication.factor={replicas}\n\
         offsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor={replicas}\n\
         transaction.state.log.num.partitions=1\n\
         transaction.state.log.min.isr={in_sync_min}\n\
         transaction.abort.timed.out.transaction.cleanup.interval.ms=500\n\
         group.initial.rebalance.delay.ms=0\n",
        dir.display()
    )
}

fn zookeeper(dir: &Path, port: u16) -> String {
    format!(
        "dataDir={}/zookeeper\n\
         clientPort={port}\n\
         clientPortAddress=127.0.0.1\n\
         tickTime=2000\n\
         maxClientCnxns=0\n\
         admin.enableServer=false\n\
         4lw.commands.whitelist=ruok\n",
        dir.display()
    )
}
