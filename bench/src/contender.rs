//! Who is measured: how each is started on its own database and topic, and stopped.
//!
//! All get the same services, as many PostgreSQL connections as they like (Spin's pool and the native
//! one have 64, the peer's two workers 30 each), and the machine for themselves while it is their turn.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use tokio::time::sleep;
use xtask::process::{Process, Signal};
use xtask::repository;
use xtask::services::ports::Port;
use xtask::spin;

use crate::fetch;
use crate::platform::Platform;

const TOKEN: &str = "token of the benchmark";
const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(40);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The component on minispin, with its sidecar.
    System,
    /// The same on the Spin CLI.
    Spin,
    /// The same requests without Wasm, with the same sidecar.
    Native,
    /// What people would use instead.
    Peer,
    /// A component that does nothing, on minispin.
    Hello,
    /// The same on the Spin CLI.
    SpinHello,
    /// The statements alone, from a loop.
    Statements,
}

/// A turn's conditions.
#[derive(Clone, Copy)]
pub struct Setup {
    pub tasks: i32,
    pub partitions: i32,
}

pub struct Contender {
    pub kind: Kind,
    pub setup: Setup,
    pub database: String,
    pub database_url: String,
    pub topic: String,
    pub base_url: String,
    application: Option<Process>,
    sidecar: Option<Sidecar>,
    _port: Port,
}

pub struct Sidecar {
    pub process: Process,
    pub url: String,
    _port: Port,
}

impl Kind {
    /// Everybody who can run here.
    pub fn all() -> Vec<Kind> {
        let mut all = vec![Kind::System, Kind::Native, Kind::Peer, Kind::Hello, Kind::Statements];
        if spin::version().is_some() {
            all.insert(1, Kind::Spin);
            all.push(Kind::SpinHello);
        }
        all
    }

    /// Those that serve the API.
    pub fn servers() -> Vec<Kind> {
        Kind::all().into_iter().filter(|kind| !kind.is_hello() && *kind != Kind::Statements).collect()
    }

    pub fn is_hello(self) -> bool {
        matches!(self, Kind::Hello | Kind::SpinHello)
    }

    fn is_on_spin(self) -> bool {
        matches!(self, Kind::Spin | Kind::SpinHello)
    }

    pub fn has_sidecar(self) -> bool {
        matches!(self, Kind::System | Kind::Spin | Kind::Native)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::System => "this system",
            Kind::Spin => "this system on spin up",
            Kind::Native => "native axum",
            Kind::Peer => "FastAPI",
            Kind::Hello => "hello component",
            Kind::SpinHello => "hello component on spin up",
            Kind::Statements => "statement alone",
        })
    }
}

impl Contender {
    /// Started on a new copy of the tables, and ready.
    pub async fn start(platform: &mut Platform, kind: Kind, setup: Setup) -> Result<Contender> {
        let mut contender = Contender::prepare(platform, kind, setup).await?;
        contender.start_sidecar(platform).await?;
        contender.start_application(platform).await?;
        Ok(contender)
    }

    /// With its tables and its topic, and nothing started yet.
    pub async fn prepare(platform: &mut Platform, kind: Kind, setup: Setup) -> Result<Contender> {
        let name = platform.name("turn");
        let database_url = platform.database(kind, &name, setup.tasks).await?;
        if kind == Kind::Peer {
            platform.create_topic(&name, setup.partitions).await?;
        }
        let port = Port::free()?;
        Ok(Contender {
            kind,
            setup,
            database: name.clone(),
            database_url,
            topic: name,
            base_url: format!("http://127.0.0.1:{}", port.number()),
            application: None,
            sidecar: None,
            _port: port,
        })
    }

    pub async fn start_sidecar(&mut self, platform: &Platform) -> Result<()> {
        if self.kind.has_sidecar() {
            let (url, topic) = (&self.database_url, &self.topic);
            self.sidecar = Some(start_sidecar(platform, url, topic, self.setup.partitions).await?);
        }
        Ok(())
    }

    /// Returns when a request was answered; says how long that took from the process's start.
    pub async fn start_application(&mut self, platform: &Platform) -> Result<Duration> {
        let Some(mut command) = self.command(platform)? else {
            return Ok(Duration::ZERO);
        };
        // With RUST_BACKTRACE=1 wasmtime looks for where it is at the end of every request: 6 % of its time.
        command.env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
        let log = platform.dir.join(format!("{}.log", self.topic));
        let started = Instant::now();
        let application =
            self.application.insert(Process::spawn(&self.kind.to_string(), &mut command, &log)?);
        let client = reqwest::Client::new();
        loop {
            let request = if self.kind.is_hello() {
                client.get(&self.base_url)
            } else {
                let body = serde_json::json!({ "title": "the first" });
                client.post(format!("{}/api/tasks", self.base_url)).json(&body)
            };
            if request.send().await.is_ok_and(|response| response.status().is_success()) {
                return Ok(started.elapsed());
            }
            ensure!(
                application.exit_status().is_none() && started.elapsed() < READY_LIMIT,
                "{} does not answer\n{}",
                self.kind,
                application.log_tail()
            );
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Its processes by name, without the services.
    pub fn processes(&self) -> Vec<(&'static str, &Process)> {
        let application = self.application.iter().map(|process| ("server", process));
        let sidecar = self.sidecar.iter().map(|sidecar| ("sidecar", &sidecar.process));
        application.chain(sidecar).collect()
    }

    /// For an error's message.
    pub fn log_tail(&self) -> String {
        let tails =
            self.processes().into_iter().map(|(name, process)| format!("{name}: {}", process.log_tail()));
        tails.collect::<Vec<_>>().join("\n")
    }

    pub async fn stop(self, platform: &Platform) -> Result<()> {
        for process in [self.application, self.sidecar.map(|sidecar| sidecar.process)].iter().flatten() {
            process.stop(Signal::TERM, STOP_LIMIT).await?;
        }
        platform.drop_database(&self.database).await
    }

    fn command(&self, platform: &Platform) -> Result<Option<Command>> {
        let listen = self.base_url.trim_start_matches("http://");
        let sidecar = self.sidecar.as_ref().map(|sidecar| sidecar.url.as_str()).unwrap_or_default();
        let root = repository::root();
        Ok(Some(match self.kind {
            Kind::System | Kind::Spin => {
                let mut command = up(self.kind, &root.join("spin.toml"), listen, platform)?;
                let (credentials, rest) =
                    self.database_url["postgres://".len()..].split_once('@').context("a URL with a user")?;
                let (user, password) = credentials.split_once(':').context("a user with a password")?;
                let (postgres, database) = rest.split_once('/').context("a URL with a database")?;
                for (name, value) in [
                    ("postgres_address", postgres),
                    ("postgres_user", user),
                    ("postgres_password", password),
                    ("postgres_database", database),
                    ("redis_address", platform.redis.url().trim_start_matches("redis://")),
                    ("cache_key_prefix", &self.topic),
                    ("sidecar_address", sidecar.trim_start_matches("http://")),
                    ("sidecar_token", TOKEN),
                ] {
                    command.arg("--variable").arg(format!("{name}={value}"));
                }
                command
            }
            Kind::Hello | Kind::SpinHello => {
                up(self.kind, &root.join("bench/hello/spin.toml"), listen, platform)?
            }
            Kind::Native => {
                let mut command = Command::new(program("bench-native")?);
                command
                    .env("LISTEN", listen)
                    .env("DATABASE_URL", &self.database_url)
                    .env("REDIS_URL", platform.redis.url())
                    .env("CACHE_KEY_PREFIX", &self.topic)
                    .env("SIDECAR_URL", sidecar)
                    .env("SIDECAR_TOKEN", TOKEN);
                command
            }
            Kind::Peer => {
                let mut command = peer(platform, &self.database_url)?;
                // As in its run.sh.
                command.env("KAFKA_TOPIC", &self.topic).args(["-m", "uvicorn", "app.main:app"]);
                let port = listen.rsplit(':').next().context("an address with a port")?;
                command.args(["--host", "127.0.0.1", "--port", port, "--workers", "2"]);
                command.args(["--loop", "uvloop", "--http", "httptools", "--no-access-log"]);
                command.args(["--log-level", "warning", "--backlog", "4096"]);
                command
            }
            Kind::Statements => return Ok(None),
        }))
    }
}

/// Started and ready, which is when it has migrated the database, and has its topic and its lanes.
pub async fn start_sidecar(
    platform: &Platform,
    database_url: &str,
    topic: &str,
    partitions: i32,
) -> Result<Sidecar> {
    let port = Port::free()?;
    let url = format!("http://127.0.0.1:{}", port.number());
    let mut command = Command::new(program("kafka-sidecar")?);
    command
        .env("SIDECAR_LISTEN", url.trim_start_matches("http://"))
        .env("SIDECAR_OPERATIONS_LISTEN", "127.0.0.1:0")
        .env("SIDECAR_TOKEN", TOKEN)
        .env("DATABASE_URL", database_url)
        .env("REDIS_URL", platform.redis.url())
        .env("CACHE_KEY_PREFIX", topic)
        .env("KAFKA_BOOTSTRAP_SERVERS", platform.kafka.bootstrap())
        .env("KAFKA_TOPIC", topic)
        .env("KAFKA_TOPIC_PARTITIONS", partitions.to_string());
    command.env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
    let log = platform.dir.join(format!("{topic}-sidecar.log"));
    let process = Process::spawn("the sidecar", &mut command, &log)?;
    let client = reqwest::Client::new();
    let deadline = Instant::now() + READY_LIMIT;
    let ready = format!("{url}/readyz");
    while !client.get(&ready).send().await.is_ok_and(|response| response.status().is_success()) {
        ensure!(
            process.exit_status().is_none() && Instant::now() < deadline,
            "the sidecar is not ready\n{}",
            process.log_tail()
        );
        sleep(POLL_INTERVAL).await;
    }
    Ok(Sidecar { process, url, _port: port })
}

/// Makes the tables of `kind` with its own program.
pub async fn migrate(platform: &mut Platform, kind: Kind, database_url: &str) -> Result<()> {
    if kind == Kind::Peer {
        let mut command = peer(platform, database_url)?;
        let output = command.args(["-m", "app.init_db"]).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the peer's init_db ended with {}\n{said}", output.status);
        return Ok(());
    }
    let topic = platform.name("migration");
    let sidecar = start_sidecar(platform, database_url, &topic, 1).await?;
    sidecar.process.stop(Signal::TERM, STOP_LIMIT).await?;
    Ok(())
}

/// A program that was built with this one.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.is_file(), "{} is not there: run this with `cargo xtask bench`", path.display());
    Ok(path)
}

fn up(kind: Kind, manifest: &Path, listen: &str, platform: &Platform) -> Result<Command> {
    let mut command = Command::new(if kind.is_on_spin() { "spin".into() } else { program("minispin")? });
    command.arg("up").arg("--from").arg(manifest).args(["--listen", listen]);
    command.arg("--log-dir").arg(platform.dir.join("component-logs"));
    if !kind.is_on_spin() {
        // Empty when a run begins, so that its first start shows what compiling costs.
        command.arg("--cache-dir").arg(platform.dir.join("compiled-code"));
    }
    Ok(command)
}

fn peer(platform: &Platform, database_url: &str) -> Result<Command> {
    let mut command = Command::new(fetch::peer_python()?);
    command
        .current_dir(repository::root().join("bench/peer"))
        .env_remove("PYTHONHOME")
        .env_remove("PYTHONPATH")
        .env("PYTHONNOUSERSITE", "1")
        // Compiled files are wanted, but not in the repository.
        .env("PYTHONPYCACHEPREFIX", platform.dir.join("pycache"))
        .env("DATABASE_URL", database_url.replacen("postgres://", "postgresql+asyncpg://", 1))
        .env("REDIS_URL", platform.redis.url())
        .env("KAFKA_BOOTSTRAP", platform.kafka.bootstrap());
    Ok(command)
}
