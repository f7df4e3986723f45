use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use redis::aio::MultiplexedConnection;
use rustix::process::Signal;
use tokio_postgres::NoTls;
use uuid::Uuid;
use xtask::process::Process;
use xtask::repository;
use xtask::services::ports::Port;
use xtask::services::{KafkaVersion, TopicRecord, add_partitions};

use crate::api::Api;
use crate::topic::Topic;
use crate::wait::{LIMIT, eventually};

pub mod foreign; // what happens to it from outside

const SIDECAR_TOKEN: &str = "token of the tests";

/// Where the services are: those that all tests share, or a test's own.
#[derive(Clone, Debug)]
pub struct Services {
    /// As a user that may create databases.
    pub database_url: String,
    pub redis_url: String,
    pub kafka_bootstrap_servers: String,
}

impl Services {
    pub fn shared() -> Result<Services> {
        Ok(Services {
            database_url: variable("DATABASE_URL")?,
            redis_url: variable("REDIS_URL")?,
            kafka_bootstrap_servers: variable("KAFKA_BOOTSTRAP_SERVERS")?,
        })
    }
}

/// The broker that this run is about.
pub fn kafka_version() -> Result<KafkaVersion> {
    variable("E2E_KAFKA")?.parse()
}

/// A directory of one's own for a service that a test starts for itself.
pub fn directory(name: &str) -> Result<PathBuf> {
    static DIRECTORIES: AtomicU32 = AtomicU32::new(0);
    let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
    let directory = repository::data_dir()?.join(format!("test/e2e/{}-{number}-{name}", std::process::id()));
    repository::create_dir(&directory)?;
    Ok(directory)
}

/// A deployment of its own in each test: database, topic, cache keys, sidecar and application.
pub struct Deployment {
    pub api: Api,
    pub topic: String,
    /// Of this deployment's own database.
    pub database_url: String,
    pub cache_key_prefix: String,
    services: Services,
    directory: PathBuf,
    sidecar_port: Port,
    application_port: Port,
    sidecar: Option<Process>,
    application: Option<Process>,
}

impl Deployment {
    /// Everything up and ready, on the shared services.
    pub async fn start() -> Result<Deployment> {
        Deployment::start_on(&Services::shared()?).await
    }

    /// Everything up and ready.
    pub async fn start_on(services: &Services) -> Result<Deployment> {
        let mut deployment = Deployment::prepare(services).await?;
        deployment.start_sidecar(&[])?;
        deployment.sidecar_is_ready().await?;
        deployment.start_application().await?;
        Ok(deployment)
    }

    /// Everything up and ready, the application with further variables.
    pub async fn start_with(variables: &[(&str, &str)]) -> Result<Deployment> {
        let mut deployment = Deployment::prepare(&Services::shared()?).await?;
        deployment.start_sidecar(&[])?;
        deployment.sidecar_is_ready().await?;
        deployment.start_application_with(variables).await?;
        Ok(deployment)
    }

    /// A database and names, and nothing started yet.
    pub async fn prepare(services: &Services) -> Result<Deployment> {
        let name = format!("t{}", Uuid::now_v7().simple());
        let (admin, connection) = tokio_postgres::connect(&services.database_url, NoTls).await?;
        tokio::spawn(connection);
        admin.batch_execute(&format!("create database {name}")).await?;
        let (server, _) = services.database_url.rsplit_once('/').context("DATABASE_URL names a database")?;
        let (sidecar_port, application_port) = (Port::free()?, Port::free()?);
        Ok(Deployment {
            api: Api::new(format!("http://127.0.0.1:{}", application_port.number()))?,
            database_url: format!("{server}/{name}"),
            topic: name.clone(),
            cache_key_prefix: name,
            services: services.clone(),
            directory: directory("deployment")?,
            sidecar_port,
            application_port,
            sidecar: None,
            application: None,
        })
    }

    /// What the sidecar's program answers to a command of an operator, such as `verify`.
    pub async fn operate(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = tokio::process::Command::new(variable("E2E_SIDECAR")?);
        command
            .args(arguments)
            .env("DATABASE_URL", &self.database_url)
            .env("KAFKA_BOOTSTRAP_SERVERS", &self.services.kafka_bootstrap_servers)
            .env("KAFKA_TOPIC", &self.topic);
        Ok(tokio::time::timeout(LIMIT, command.kill_on_drop(true).output()).await??)
    }

    /// The exit code of `kafka-sidecar verify`, and all that it prints.
    pub async fn verify(&self) -> Result<(Option<i32>, String)> {
        let output = self.operate(&["verify"]).await?;
        let report = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8(report)?))
    }

    /// Adds partitions to this deployment's topic, until there are `partitions`.
    pub async fn add_partitions(&self, partitions: u32) -> Result<()> {
        add_partitions(&self.services.kafka_bootstrap_servers, &self.topic, i32::try_from(partitions)?).await
    }

    /// Waits until the sidecar is not ready, and the reason that it gives says `reason`.
    pub async fn sidecar_is_not_ready(&self, reason: &str) -> Result<()> {
        let api = self.sidecar_api()?;
        eventually("the sidecar is not ready and says why", async || {
            let answer = crate::answer(api.get("/readyz")).await?;
            ensure!(answer.status.is_server_error() && answer.body.contains(reason), "{}", answer.body);
            Ok(Some(()))
        })
        .await
    }

    /// Starts the sidecar; it may take a while until it is ready, or wait for a service.
    pub fn start_sidecar(&mut self, settings: &[(&str, &str)]) -> Result<()> {
        let mut command = Command::new(variable("E2E_SIDECAR")?);
        command
            .env("SIDECAR_LISTEN", format!("127.0.0.1:{}", self.sidecar_port.number()))
            .env("SIDECAR_OPERATIONS_LISTEN", "127.0.0.1:0")
            .env("SIDECAR_TOKEN", SIDECAR_TOKEN)
            .env("DATABASE_URL", &self.database_url)
            .env("REDIS_URL", &self.services.redis_url)
            .env("CACHE_KEY_PREFIX", &self.cache_key_prefix)
            .env("KAFKA_BOOTSTRAP_SERVERS", &self.services.kafka_bootstrap_servers)
            .env("KAFKA_TOPIC", &self.topic)
            .envs(settings.iter().copied());
        self.sidecar =
            Some(Process::spawn("the sidecar", &mut command, &self.directory.join("sidecar.log"))?);
        Ok(())
    }

    /// Starts the application on the host and waits until it listens.
    pub async fn start_application(&mut self) -> Result<()> {
        self.start_application_with(&[]).await
    }

    /// The same with further variables.
    pub async fn start_application_with(&mut self, variables: &[(&str, &str)]) -> Result<()> {
        let database_url = self.database_url.strip_prefix("postgres://").context("a PostgreSQL URL")?;
        let (credentials, rest) = database_url.split_once('@').context("a URL with a user")?;
        let (user, password) = credentials.split_once(':').context("a user with a password")?;
        let (postgres, database) = rest.split_once('/').context("a URL with a database")?;
        let redis = self.services.redis_url.strip_prefix("redis://").context("a Redis URL")?;
        let sidecar = format!("127.0.0.1:{}", self.sidecar_port.number());

        let mut command = Command::new(variable("E2E_HOST")?);
        command.arg("up").arg("--from").arg(repository::root().join("spin.toml"));
        command.arg("--listen").arg(format!("127.0.0.1:{}", self.application_port.number()));
        command.arg("--log-dir").arg(&self.directory);
        for (name, value) in [
            ("postgres_address", postgres),
            ("postgres_user", user),
            ("postgres_password", password),
            ("postgres_database", database),
            ("redis_address", redis),
            ("cache_key_prefix", &self.cache_key_prefix),
            ("sidecar_address", &sidecar),
            ("sidecar_token", SIDECAR_TOKEN),
        ]
        .iter()
        .chain(variables)
        {
            command.arg("--variable").arg(format!("{name}={value}"));
        }
        let application = Process::spawn("the host", &mut command, &self.directory.join("host.log"))?;
        application.wait_for_line("Serving http://", LIMIT).await?;
        self.application = Some(application);
        Ok(())
    }

    /// A deployment with the same database, topic and cache, and a sidecar and an application of its own.
    pub async fn beside(&self) -> Result<Deployment> {
        let mut other = Deployment::prepare(&self.services).await?;
        other.database_url.clone_from(&self.database_url);
        other.topic.clone_from(&self.topic);
        other.cache_key_prefix.clone_from(&self.cache_key_prefix);
        Ok(other)
    }

    pub fn sidecar_port(&self) -> u16 {
        self.sidecar_port.number()
    }

    /// Where this deployment's processes write their logs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The sidecar's own HTTP interface.
    pub fn sidecar_api(&self) -> Result<Api> {
        Api::new(format!("http://127.0.0.1:{}", self.sidecar_port.number()))
    }

    /// The sidecar's interface for probes and metrics alone.
    pub async fn sidecar_operations_api(&self) -> Result<Api> {
        Api::new(self.sidecar()?.wait_for_line("operations on ", LIMIT).await?)
    }

    pub fn sidecar_token(&self) -> &'static str {
        SIDECAR_TOKEN
    }

    pub async fn sidecar_is_ready(&self) -> Result<()> {
        let api = self.sidecar_api()?;
        eventually("the sidecar is ready", async || {
            let answer = crate::answer(api.get("/readyz")).await?;
            ensure!(answer.status.is_success(), "{}", answer.body);
            Ok(Some(()))
        })
        .await
    }

    /// SIGTERM, and what the sidecar makes of it.
    pub async fn stop_sidecar(&mut self) -> Result<ExitStatus> {
        let sidecar = self.sidecar.take().context("the sidecar runs")?;
        sidecar.stop(Signal::TERM, LIMIT).await
    }

    /// SIGKILL.
    pub async fn kill_sidecar(&mut self) -> Result<()> {
        self.sidecar.take().context("the sidecar runs")?.kill().await
    }

    /// SIGKILL, and what it had asked of the database is not done either: a statement that waits for a lock
    /// would otherwise be carried out when it gets it.
    pub async fn kill_sidecar_and_its_statements(&mut self) -> Result<()> {
        self.kill_sidecar().await?;
        self.sidecar_sessions_are_gone().await
    }

    /// Starts the sidecar and kills it when it has published enough, of which it could remove nothing.
    pub async fn publish_without_removing(
        &mut self,
        topic: &Topic,
        enough: impl Fn(&[TopicRecord]) -> bool,
    ) -> Result<()> {
        // Rows that are locked can be read.
        let holder = self.database().await?;
        holder.batch_execute("begin; select * from outbox for update").await?;
        self.start_sidecar(&[])?;
        topic.wait_for(enough, LIMIT).await?;
        self.kill_sidecar_and_its_statements().await?;
        holder.batch_execute("rollback").await?;
        Ok(())
    }

    /// Ends what is left of the sidecar in the database.
    pub async fn sidecar_sessions_are_gone(&self) -> Result<()> {
        let database = self.database().await?;
        let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                   where datname = current_database() and application_name = 'kafka-sidecar'";
        eventually("the sidecar's sessions are gone", async || {
            let ended: i64 = database.query_one(end, &[]).await?.get(0);
            Ok((ended == 0).then_some(()))
        })
        .await
    }

    pub fn sidecar(&self) -> Result<&Process> {
        self.sidecar.as_ref().context("the sidecar runs")
    }

    pub fn application(&self) -> Result<&Process> {
        self.application.as_ref().context("the application runs")
    }

    /// SIGTERM, and what the host makes of it.
    pub async fn stop_application(&mut self) -> Result<ExitStatus> {
        let application = self.application.take().context("the application runs")?;
        application.stop(Signal::TERM, LIMIT).await
    }

    /// SIGKILL.
    pub async fn kill_application(&mut self) -> Result<()> {
        self.application.take().context("the application runs")?.kill().await
    }

    /// What the component logged.
    pub fn component_log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.directory.join("tasks_stderr.txt"))?)
    }

    /// A consumer of this deployment's topic, from its first record on.
    pub async fn topic_reader(&self) -> Result<Topic> {
        Topic::read(&self.services.kafka_bootstrap_servers, &self.topic).await
    }

    /// A client of the broker that shares no code with the tests' reader, for what an operator does to a topic.
    pub async fn kafka(&self) -> Result<rskafka::client::Client> {
        let servers = self.services.kafka_bootstrap_servers.split(',').map(str::to_owned).collect();
        Ok(rskafka::client::ClientBuilder::new(servers).build().await?)
    }

    /// A deployment on a copy of this one's database as it is now, with the same topic and cache, and nothing
    /// of it started. Nobody may be connected to the original.
    pub async fn on_a_copy(&self) -> Result<Deployment> {
        let mut other = Deployment::prepare(&self.services).await?;
        let name = |url: &str| url.rsplit_once('/').map(|(_, name)| name.to_owned());
        let original = name(&self.database_url).context("a URL with a database")?;
        let copy = format!("{}_copy", name(&other.database_url).context("a URL with a database")?);
        let (admin, connection) = tokio_postgres::connect(&self.services.database_url, NoTls).await?;
        tokio::spawn(connection);
        // The sessions of processes that were killed end a moment after them.
        let copied = async || {
            admin.batch_execute(&format!("create database {copy} template {original}")).await?;
            Ok(Some(()))
        };
        eventually("the database is copied", copied).await?;
        let (server, _) = self.database_url.rsplit_once('/').context("a URL with a database")?;
        other.database_url = format!("{server}/{copy}");
        other.topic.clone_from(&self.topic);
        other.cache_key_prefix.clone_from(&self.cache_key_prefix);
        Ok(other)
    }

    pub async fn redis(&self) -> Result<MultiplexedConnection> {
        let client = redis::Client::open(self.services.redis_url.as_str())?;
        Ok(client.get_multiplexed_async_connection().await?)
    }

    pub async fn database(&self) -> Result<tokio_postgres::Client> {
        let (client, connection) = tokio_postgres::connect(&self.database_url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Waits until every event is published and its row removed.
    pub async fn outbox_is_empty(&self) -> Result<()> {
        self.outbox_has_at_most(0).await
    }

    /// Waits until all but so many events are published and their rows removed.
    pub async fn outbox_has_at_most(&self, events: usize) -> Result<()> {
        let database = self.database().await?;
        eventually("the outbox is empty", async || {
            let row = database.query_one("select count(*) from outbox", &[]).await?;
            let rows: i64 = row.get(0);
            ensure!(rows <= events as i64, "{rows} rows");
            Ok(Some(()))
        })
        .await
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for process in [&self.sidecar, &self.application].into_iter().flatten() {
                eprintln!("{}: {}", process.name(), process.log_tail());
            }
            eprintln!("component: {}", self.component_log().unwrap_or_default());
        }
    }
}

fn variable(name: &str) -> Result<String> {
    let value = env::var(name).with_context(|| {
        format!("{name} is not set: run the tests with `cargo xtask test`, which sets it")
    })?;
    if matches!(name, "E2E_SIDECAR" | "E2E_HOST") {
        let is_on_path = !value.contains('/');
        ensure!(is_on_path || Path::new(&value).is_file(), "{name}={value} is not there");
    }
    Ok(value)
}
