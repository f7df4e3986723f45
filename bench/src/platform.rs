//! The services that all contenders share, and the tables that each starts with.
//!
//! A turn gets a copy of a template, so that nobody works on what another one wrote; the services are
//! quiet when it begins.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rskafka::client::ClientBuilder;
use tokio_postgres::{Client, NoTls};
use xtask::process::Process;
use xtask::progress::say;
use xtask::services::{Kafka, KafkaVersion, Postgres, Redis};

use crate::contender::Kind;

const TOPIC_TIMEOUT_MS: i32 = 10_000;

/// Ids of the seeded tasks are numbers in this frame, so that the load knows them without being told.
const SEED: &str = "
    insert into tasks (id, title, description, status, priority, due_at, tags, version, created_at, updated_at)
    select ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
           'Task number ' || n, 'A weekly matter, described at some length, as people do it', 'todo', n % 3,
           created_at + n % 977 * interval '1 day', array['tag ' || n % 10, 'rare ' || n % 1000], 1,
           created_at, created_at + n % 977 * interval '1 minute'
    from (
        select n, timestamptz '2024-06-09' + n * interval '30 seconds' as created_at
        from generate_series(0, $1::int4 - 1) as n
    ) as numbered";

const SEED_PEER: &str = "
    insert into tasks (id, title, description, status, created_at, updated_at)
    select ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
           'Task number ' || n, 'A weekly matter, described at some length, as people do it', 'todo',
           timestamptz '2024-06-09' + n * interval '30 seconds',
           timestamptz '2024-06-09' + n * interval '30 seconds'
    from generate_series(0, $1::int4 - 1) as n";

pub struct Platform {
    pub dir: PathBuf,
    pub postgres: Postgres,
    pub redis: Redis,
    pub kafka: Kafka,
    admin: Client,
    templates: BTreeSet<String>,
    names: u32,
}

impl Platform {
    pub async fn start(dir: &Path) -> Result<Platform> {
        let _ = std::fs::remove_dir_all(dir);
        say("Starting", "PostgreSQL, Redis and Kafka");
        let (postgres, redis, kafka) = (dir.join("postgres"), dir.join("redis"), dir.join("kafka"));
        let (postgres, redis, kafka) = tokio::try_join!(
            Postgres::start(&postgres, None),
            Redis::start(&redis, None),
            Kafka::start(KafkaVersion::V4_4, &kafka, None),
        )?;
        let admin = connect(&postgres.url()).await?;
        Ok(Platform {
            dir: dir.to_owned(),
            postgres,
            redis,
            kafka,
            admin,
            templates: BTreeSet::new(),
            names: 0,
        })
    }

    pub async fn stop(self) -> Result<()> {
        let Platform { postgres, redis, kafka, admin, dir, .. } = self;
        drop(admin);
        kafka.stop_all().await?;
        redis.stop().await?;
        postgres.stop().await?;
        std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))
    }

    /// A name that nothing in this run had before: of a database, a topic, a log.
    pub fn name(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}_{}", self.names)
    }

    pub fn url(&self, database: &str) -> Result<String> {
        let url = self.postgres.url();
        let (server, _) = url.rsplit_once('/').context("a URL with a database")?;
        Ok(format!("{server}/{database}"))
    }

    /// A new database with the tables of `kind` and so many tasks in them; everything else is forgotten,
    /// and what PostgreSQL had still to write is written.
    pub async fn database(&mut self, kind: Kind, name: &str, tasks: i32) -> Result<String> {
        let template = self.template(kind, tasks).await?;
        self.admin
            .batch_execute(&format!("create database {name} template {template} strategy file_copy"))
            .await
            .context("copying the template")?;
        self.admin.batch_execute("checkpoint").await?;
        let mut redis = self.redis_connection().await?;
        redis::cmd("FLUSHALL").exec_async(&mut redis).await?;
        self.url(name)
    }

    pub async fn drop_database(&self, name: &str) -> Result<()> {
        Ok(self.admin.batch_execute(&format!("drop database {name} with (force)")).await?)
    }

    pub async fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let client = ClientBuilder::new(vec![self.kafka.bootstrap()]).build().await?;
        client.controller_client()?.create_topic(topic, partitions, 1, TOPIC_TIMEOUT_MS).await?;
        Ok(())
    }

    pub async fn redis_connection(&self) -> Result<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(self.redis.url())?;
        Ok(client.get_multiplexed_async_connection().await?)
    }

    /// Those that every contender has under it.
    pub fn processes(&self) -> [(&'static str, &Process); 3] {
        [
            ("PostgreSQL", self.postgres.process()),
            ("Redis", self.redis.process()),
            ("Kafka", self.kafka.process()),
        ]
    }

    async fn template(&mut self, kind: Kind, tasks: i32) -> Result<String> {
        let (name, seed) = match kind {
            Kind::Peer => (format!("peer_{tasks}"), SEED_PEER),
            _ => (format!("tasks_{tasks}"), SEED),
        };
        if self.templates.contains(&name) {
            return Ok(name);
        }
        say("Filling", format_args!("a template with {tasks} tasks"));
        self.admin.batch_execute(&format!("create database {name}")).await?;
        let url = self.url(&name)?;
        crate::contender::migrate(self, kind, &url).await?;
        let client = connect(&url).await?;
        client.execute(seed, &[&tasks]).await.context("filling a template")?;
        client.batch_execute("vacuum (analyze)").await?;
        drop(client);
        // A template must have no connections.
        let leave = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
        self.admin.execute(leave, &[&name]).await?;
        self.templates.insert(name.clone());
        Ok(name)
    }
}

pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
