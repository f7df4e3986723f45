//! What the application stands on: services given by URL, started here, or started by Docker.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use xtask::process::Process;
use xtask::progress::say;
use xtask::repository;
use xtask::services::ports::Port;
use xtask::services::{Kafka, KafkaVersion, Postgres, Redis};

use super::settings::Options;

const POSTGRES_PORT: u16 = 5432;
const REDIS_PORT: u16 = 6379;
const KAFKA_PORT: u16 = 9092;

pub(super) struct Services {
    pub(super) database_url: String,
    pub(super) redis_url: String,
    pub(super) bootstrap_servers: String,
    // Those that run for us; neither those that were given by URL nor, but for the containers, Docker's.
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    kafka: Option<Kafka>,
    containers: Option<Containers>,
}

impl Services {
    pub(super) async fn start(options: &Options, dir: &Path, sidecar_token: &str) -> Result<Services> {
        if options.docker {
            return docker(sidecar_token).await;
        }
        let postgres = async {
            if options.database_url.is_some() {
                return Ok(None);
            }
            let port = port(options.postgres_port, POSTGRES_PORT)?;
            timed("PostgreSQL", Postgres::start(&dir.join("postgres"), Some(port))).await.map(Some)
        };
        let redis = async {
            if options.redis_url.is_some() {
                return Ok(None);
            }
            let port = port(options.redis_port, REDIS_PORT)?;
            timed("Redis", Redis::start(&dir.join("redis"), Some(port))).await.map(Some)
        };
        let kafka = async {
            if options.kafka_bootstrap_servers.is_some() {
                return Ok(None);
            }
            let port = port(options.kafka_port, KAFKA_PORT)?;
            timed("Kafka", Kafka::start(KafkaVersion::V4_4, &dir.join("kafka"), Some(port))).await.map(Some)
        };
        let (postgres, redis, kafka) = tokio::try_join!(postgres, redis, kafka)?;
        let given = |url: &Option<String>| url.clone().unwrap_or_default();
        Ok(Services {
            database_url: postgres.as_ref().map_or_else(|| given(&options.database_url), Postgres::url),
            redis_url: redis.as_ref().map_or_else(|| given(&options.redis_url), Redis::url),
            bootstrap_servers: kafka
                .as_ref()
                .map_or_else(|| given(&options.kafka_bootstrap_servers), Kafka::bootstrap),
            postgres,
            redis,
            kafka,
            containers: None,
        })
    }

    /// URLs to print: those that were given may hold somebody's password.
    pub(super) fn shown(&self) -> (&str, &str) {
        let docker = self.containers.is_some();
        (
            if docker || self.postgres.is_some() { &self.database_url } else { "as DATABASE_URL says" },
            if docker || self.redis.is_some() { &self.redis_url } else { "as REDIS_URL says" },
        )
    }

    /// PostgreSQL, Redis and Kafka, as far as they are ours to watch.
    pub(super) fn processes(&self) -> [Option<&Process>; 3] {
        [
            self.postgres.as_ref().map(|postgres| postgres.process()),
            self.redis.as_ref().map(|redis| redis.process()),
            self.kafka.as_ref().map(|kafka| kafka.process()),
        ]
    }

    /// Each in its own way. Containers stop when they are dropped.
    pub(super) async fn stop(&self) -> Vec<(&'static str, Result<()>)> {
        let Services { postgres, redis, kafka, .. } = self;
        let postgres = async { Some(("PostgreSQL", postgres.as_ref()?.stop().await.map(drop))) };
        let redis = async { Some(("Redis", redis.as_ref()?.stop().await.map(drop))) };
        let kafka = async { Some(("Kafka", kafka.as_ref()?.stop_all().await)) };
        let (postgres, redis, kafka) = tokio::join!(postgres, redis, kafka);
        [postgres, redis, kafka].into_iter().flatten().collect()
    }
}

/// The sidecar of docker-compose.yml and what it needs, however far Docker came with starting them.
/// Dropping it stops and removes the containers; the volumes, and so the data, stay.
struct Containers;

async fn docker(sidecar_token: &str) -> Result<Services> {
    let containers = Containers;
    let mut command = Command::from(compose());
    command
        .args(["up", "--build", "--detach", "--wait", "sidecar"])
        .env("SIDECAR_TOKEN", sidecar_token)
        .kill_on_drop(true);
    let status = command.status().await.context("starting `docker`")?;
    ensure!(
        status.success(),
        "`docker compose up` ended with {status}; without --docker the services are started without Docker"
    );
    Ok(Services {
        database_url: format!("postgres://tasks:tasks@127.0.0.1:{POSTGRES_PORT}/tasks"),
        redis_url: format!("redis://127.0.0.1:{REDIS_PORT}"),
        bootstrap_servers: format!("127.0.0.1:{KAFKA_PORT}"),
        postgres: None,
        redis: None,
        kafka: None,
        containers: Some(containers),
    })
}

impl Drop for Containers {
    fn drop(&mut self) {
        match compose().arg("down").status() {
            Ok(status) if status.success() => say("Stopped", "Docker's services"),
            failed => eprintln!("error: `docker compose down` failed ({failed:?}): run it again"),
        }
    }
}

fn compose() -> std::process::Command {
    let mut command = std::process::Command::new("docker");
    command.arg("compose").current_dir(repository::root());
    command
}

fn port(configured: Option<u16>, expected: u16) -> Result<u16> {
    match configured {
        Some(port) => Ok(port),
        None => Ok(Port::preferably(expected)?.number()),
    }
}

async fn timed<S: std::ops::Deref<Target = xtask::services::Service>>(
    name: &str,
    start: impl Future<Output = Result<S>>,
) -> Result<S> {
    let started = Instant::now();
    let service = start.await?;
    say(
        "Started",
        format_args!("{name} on port {} in {:.1} s", service.port(), started.elapsed().as_secs_f32()),
    );
    Ok(service)
}
