//! Several brokers of Kafka 4.4 and one controller of their own (KRaft), for what one broker cannot show: replicas that
//! lag, leaders that change.
//!
//! Invariant: the controller runs as long as the cluster; only brokers are stopped, killed and paused.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use rustix::process::Signal;

use super::KafkaVersion;
use super::artifacts::fetched;
use super::kafka::{Proxied, broker, common, format, java, listeners, write};
use super::ports::Port;
use super::probe::Probe;
use super::service::{Recipe, Service};
use crate::repository;

const CONTROLLER_ID: usize = 100;
const HEAP: &str = "-Xmx256m";

/// How the brokers of a cluster replicate. `replica.lag.time.max.ms` is how long a follower that has stopped keeps an
/// acknowledgement back; `broker.session.timeout.ms`, after which time without a word a broker is taken for dead.
#[derive(Clone, Copy, Debug)]
pub struct Replication {
    pub brokers: usize,
    pub in_sync_min: usize,
    pub lag_ms_max: u64,
    pub session_timeout_ms: u64,
}

/// Brokers with the node ids 1, 2, 3 …
pub struct KafkaCluster {
    /// Before the controller, without which they would be long in stopping: fields are dropped in this order.
    brokers: Vec<Broker>,
    _controller: Service,
}

struct Broker {
    service: Service,
    dir: PathBuf,
    proxied: Option<Proxied>,
}

impl KafkaCluster {
    /// Keeps its data in `dir`, which must lie in `repository::data_dir()`. Clients that come through a proxy find the
    /// brokers at the ports `proxies`, one for each broker, or none.
    pub async fn start(replication: Replication, proxies: &[u16], dir: &Path) -> Result<KafkaCluster> {
        let class_path = format!("{}/jars/*", fetched(KafkaVersion::V4_4.set()).await?.display());
        repository::create_dir(dir)?;
        let class_path = class_path.as_str();
        // Formatting wants ports and does not use them.
        let new: Vec<_> = (1..=replication.brokers).chain([CONTROLLER_ID]).collect();
        try_join_all(new.iter().map(async |id| {
            let dir = dir.join(id.to_string());
            repository::create_dir(&dir)?;
            let configuration = dir.join("server.properties");
            let properties = match *id {
                CONTROLLER_ID => controller_properties(&dir, 1, replication),
                id => broker_properties(id, &dir, 2, 1, None, replication),
            };
            write(&configuration, &properties)?;
            format(program(&dir, "-Xmx128m", class_path), &configuration).await
        }))
        .await?;

        let controller_dir = dir.join(CONTROLLER_ID.to_string());
        let recipe = |port: u16| {
            let configuration = controller_dir.join("server.properties");
            write(&configuration, &controller_properties(&controller_dir, port, replication))?;
            let mut command = program(&controller_dir, HEAP, class_path);
            command.arg("kafka.Kafka").arg(&configuration);
            Ok(Recipe {
                name: "Kafka's controller",
                command,
                log: controller_dir.join("kafka.log"),
                probe: Probe::Port { port },
                stop_signal: Signal::TERM,
                drop_signal: None,
                too_soon: None,
            })
        };
        let controller = Service::start(None, &controller_dir, recipe).await?;

        let controller_port = controller.port();
        let brokers = (1..=replication.brokers).map(async |id| {
            let dir = dir.join(id.to_string());
            let proxied = match proxies.get(id - 1) {
                Some(advertised) => Some(Proxied { port: Port::free()?, advertised: *advertised }),
                None => None,
            };
            let recipe = |port: u16| {
                let configuration = dir.join("server.properties");
                let properties =
                    broker_properties(id, &dir, port, controller_port, proxied.as_ref(), replication);
                write(&configuration, &properties)?;
                let mut command = program(&dir, HEAP, class_path);
                command.args(["-Dorg.apache.logging.log4j.level=INFO", "kafka.Kafka"]).arg(&configuration);
                Ok(broker(command, &dir, port))
            };
            let service = Service::start(None, &dir, recipe).await?;
            anyhow::Ok(Broker { service, dir, proxied })
        });
        Ok(KafkaCluster { brokers: try_join_all(brokers).await?, _controller: controller })
    }

    /// Every broker's `host:port`, with commas.
    pub fn bootstrap(&self) -> String {
        let all = self.brokers.iter().map(|broker| format!("127.0.0.1:{}", broker.service.port()));
        all.collect::<Vec<_>>().join(",")
    }

    /// Where the proxies have to lead to, in the order of the brokers.
    pub fn proxied_ports(&self) -> impl Iterator<Item = u16> {
        self.brokers.iter().filter_map(|broker| Some(broker.proxied.as_ref()?.port.number()))
    }

    /// The node ids of the brokers.
    pub fn ids(&self) -> impl Iterator<Item = i32> + use<> {
        1..=self.brokers.len() as i32
    }

    /// # Errors
    /// Where there is no broker with this node id.
    pub fn broker(&self, id: i32) -> Result<&Service> {
        Ok(&self.brokers[self.index(id)?].service)
    }

    /// # Errors
    /// Where there is no broker with this node id.
    pub fn broker_mut(&mut self, id: i32) -> Result<&mut Service> {
        let index = self.index(id)?;
        Ok(&mut self.brokers[index].service)
    }

    /// The folder in which this broker keeps the log of each partition.
    ///
    /// # Errors
    /// Where there is no broker with this node id.
    pub fn log_dir(&self, id: i32) -> Result<PathBuf> {
        Ok(self.brokers[self.index(id)?].dir.join("data"))
    }

    fn index(&self, id: i32) -> Result<usize> {
        let index = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        index
            .filter(|index| *index < self.brokers.len())
            .with_context(|| format!("no broker has the id {id}"))
    }
}

fn program(dir: &Path, heap: &str, class_path: &str) -> std::process::Command {
    let mut command = java();
    command.current_dir(dir).args([heap, "-XX:+ExitOnOutOfMemoryError", "-cp", class_path]);
    command
}

fn controller_properties(dir: &Path, port: u16, replication: Replication) -> String {
    let Replication { in_sync_min, session_timeout_ms, .. } = replication;
    format!(
        "process.roles=controller\n\
         node.id={CONTROLLER_ID}\n\
         controller.quorum.voters={CONTROLLER_ID}@127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=CONTROLLER://127.0.0.1:{port}\n\
         broker.session.timeout.ms={session_timeout_ms}\n\
         min.insync.replicas={in_sync_min}\n\
         leader.imbalance.check.interval.seconds=5\n\
         leader.imbalance.per.broker.percentage=0\n\
         log.dirs={}/data\n",
        dir.display()
    )
}

fn broker_properties(
    id: usize,
    dir: &Path,
    port: u16,
    controller: u16,
    proxied: Option<&Proxied>,
    replication: Replication,
) -> String {
    let (bound, advertised) = listeners(port, proxied);
    let Replication { brokers, in_sync_min, lag_ms_max, session_timeout_ms } = replication;
    format!(
        "process.roles=broker\n\
         node.id={id}\n\
         controller.quorum.voters={CONTROLLER_ID}@127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         listeners={bound}\n\
         advertised.listeners={advertised}\n\
         min.insync.replicas={in_sync_min}\n\
         replica.lag.time.max.ms={lag_ms_max}\n\
         broker.session.timeout.ms={session_timeout_ms}\n\
         broker.heartbeat.interval.ms=1000\n\
         {}",
        common(dir, brokers, in_sync_min)
    )
}
