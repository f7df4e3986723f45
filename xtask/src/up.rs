//! `cargo xtask up`: build, services, sidecar, application; then wait; then stop them in the opposite order.
//!
//! Invariant: whatever ends this, a signal, an error or a child that died, nothing that it started is left running, and the
//! application stops before the sidecar, the sidecar before the services, so that what was accepted is published.

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use xtask::process::{Process, Signal};
use xtask::progress::say;
use xtask::repository;
use xtask::services::ports::Port;
use xtask::services::{KafkaVersion, fetch_all};

use crate::cargo::{self, build_application, cargo};
use crate::host::Host;
use services::Services;
use settings::Addresses;
pub(crate) use settings::Options;

mod settings; // command line and environment
mod services; // PostgreSQL, Redis, Kafka, or Docker's
mod http; // are you ready?

/// Bootstrap servers and topic, for `consume`.
const TOPIC: &str = "topic";
const SIDECAR_PORT: u16 = 3001;
const SIDECAR_OPERATIONS_PORT: u16 = 3002;
const START_LIMIT: Duration = Duration::from_secs(60);
/// More than either gives to the requests and events that it still has.
const STOP_LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let mut stop = StopSignals::new()?;
    let dir = dir()?;
    let _lock = lock(&dir)?;
    let _ = fs::remove_file(dir.join(TOPIC)); // of an earlier run

    let running = tokio::select! {
        running = start(&options, &dir) => running?,
        () = stop.next() => {
            say("Stopped", "before everything was running");
            return Ok(ExitCode::FAILURE);
        }
    };
    running.describe(&options);

    let died = tokio::select! {
        died = running.first_to_die() => Some(died),
        () = stop.next() => None,
    };
    if let Some(died) = &died {
        eprintln!("error: {died}");
    }
    let stopped = tokio::select! {
        stopped = running.stop() => stopped,
        () = stop.next() => bail!("stopped a second time: what was still running is killed"),
    };
    Ok(if died.is_none() && stopped { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Bootstrap servers and topic of the `up` that is running now.
pub(crate) fn running_topic() -> Result<Option<(String, String)>> {
    let dir = dir()?;
    if lock(&dir).is_ok() {
        return Ok(None);
    }
    let written =
        fs::read_to_string(dir.join(TOPIC)).context("`cargo xtask up` has not come as far as Kafka yet")?;
    Ok(written.split_once('\n').map(|(bootstrap, topic)| (bootstrap.to_owned(), topic.to_owned())))
}

struct Running {
    // Fields are dropped, and so killed, in this order.
    application: Process,
    sidecar: Option<Process>,
    services: Services,
    url: String,
    host: Host,
    /// Of the sidecar's pages for operators.
    operations_url: String,
}

async fn start(options: &Options, dir: &Path) -> Result<Running> {
    // Said now rather than after minutes of building.
    options.check()?;
    TcpListener::bind(options.listen)
        .with_context(|| format!("{} is in use: choose another address with --listen", options.listen))?;
    let host = Host::find(options.host)?;
    tokio::try_join!(build(options, &host), fetch(options))?;

    let token = token()?;
    let services = Services::start(options, dir, &token).await?;
    fs::write(dir.join(TOPIC), format!("{}\n{}", services.bootstrap_servers, options.kafka_topic))?;
    let (sidecar, sidecar_address, operations_url) = if options.docker {
        let operations_url = format!("http://127.0.0.1:{SIDECAR_OPERATIONS_PORT}");
        (None, format!("127.0.0.1:{SIDECAR_PORT}"), operations_url)
    } else {
        let (sidecar, address, operations_url) = start_sidecar(options, dir, &services, &token).await?;
        (Some(sidecar), address, operations_url)
    };
    http::wait_for(&["200"], &sidecar_address, "/readyz", sidecar.as_ref(), START_LIMIT)
        .await
        .context("waiting for the sidecar to be ready")?;

    let addresses = Addresses {
        database_url: services.database_url.clone(),
        redis_url: services.redis_url.clone(),
        sidecar: sidecar_address,
        sidecar_token: token,
    };
    let (application, url) = start_application(options, dir, &host, &addresses).await?;
    Ok(Running { application, sidecar, services, url, host, operations_url })
}

async fn build(options: &Options, host: &Host) -> Result<()> {
    build_application().await?;
    let sidecar = (!options.docker).then_some("kafka-sidecar");
    let minispin = matches!(host, Host::Minispin).then_some("minispin");
    let programs: Vec<_> = sidecar.into_iter().chain(minispin).flat_map(|name| ["--bin", name]).collect();
    if programs.is_empty() {
        return Ok(());
    }
    // Of the whole workspace, as the tests are: which packages are named decides on the features of their dependencies, and
    // so on whether wasmtime is compiled once for both.
    cargo(["build", "--workspace", "--release"].into_iter().chain(programs)).await
}

async fn fetch(options: &Options) -> Result<()> {
    let all_given = options.database_url.is_some()
        && options.redis_url.is_some()
        && options.kafka_bootstrap_servers.is_some();
    if options.docker || all_given {
        return Ok(());
    }
    fetch_all(&[KafkaVersion::V4_4]).await
}

async fn start_sidecar(
    options: &Options,
    dir: &Path,
    services: &Services,
    token: &str,
) -> Result<(Process, String, String)> {
    let started = Instant::now();
    let port = match options.sidecar_port {
        Some(port) => Port::exactly(port)?,
        None => Port::preferably(SIDECAR_PORT)?,
    };
    let operations_port = Port::preferably(SIDECAR_OPERATIONS_PORT)?;
    let mut command = Command::new(cargo::program("kafka-sidecar"));
    command
        .env("SIDECAR_LISTEN", format!("127.0.0.1:{}", port.number()))
        .env("SIDECAR_OPERATIONS_LISTEN", format!("127.0.0.1:{}", operations_port.number()))
        .env("SIDECAR_TOKEN", token)
        .env("DATABASE_URL", &services.database_url)
        .env("REDIS_URL", &services.redis_url)
        .env("KAFKA_BOOTSTRAP_SERVERS", &services.bootstrap_servers)
        .env("KAFKA_TOPIC", &options.kafka_topic);
    let sidecar = spawn("the sidecar", &mut command, &dir.join("sidecar.log"))?;
    let url = sidecar.wait_for_line("listening on ", START_LIMIT).await?;
    say("Started", format_args!("the sidecar at {url} in {:.1} s", started.elapsed().as_secs_f32()));
    let address = url.strip_prefix("http://").context("the sidecar named no address")?.to_owned();
    let operations_url = sidecar.wait_for_line("operations on ", START_LIMIT).await?;
    Ok((sidecar, address, operations_url))
}

async fn start_application(
    options: &Options,
    dir: &Path,
    host: &Host,
    addresses: &Addresses,
) -> Result<(Process, String)> {
    let started = Instant::now();
    let mut command = host.command(&repository::root().join("spin.toml"), options.listen);
    command.current_dir(repository::root()).arg("--log-dir").arg(dir.join("component-logs"));
    command.envs(addresses.variables()?);
    let application = spawn("the application", &mut command, &dir.join("application.log"))?;
    let url = application.wait_for_line("Serving ", START_LIMIT).await?;
    let address =
        url.strip_prefix("http://").context("the application named no address")?.trim_end_matches('/');
    // Where a token is needed, this request has none, and 401 is the answer.
    http::wait_for(&["200", "401"], address, "/api/tasks?limit=1", Some(&application), START_LIMIT)
        .await
        .context("waiting for the application to answer")?;
    say("Started", format_args!("the application on {host} in {:.1} s", started.elapsed().as_secs_f32()));
    Ok((application, format!("http://{address}")))
}

fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
    let _ = fs::remove_file(log); // of an earlier run
    Process::spawn(name, command, log)
}

impl Running {
    fn describe(&self, options: &Options) {
        let Running { url, host, operations_url, services, .. } = self;
        let (postgres, redis) = services.shown();
        let topic = &options.kafka_topic;
        let access = match std::env::var("SPIN_VARIABLE_API_TOKEN_HASHES") {
            Ok(hashes) if !hashes.is_empty() => "with a bearer token",
            _ => {
                "open to whoever reaches it; SPIN_VARIABLE_API_TOKEN_HASHES names tokens' hashes to close it"
            }
        };
        println!(
            "
    API          {url}/api/tasks (on {host})
    for people   {url}/docs
    sidecar      {operations_url}/readyz
    PostgreSQL   {postgres}
    Redis        {redis}
    Kafka        {}, topic {topic}
    logs         .data/up/
    access       {access}

Create a task:

    curl -i {url}/api/tasks -H 'Content-Type: application/json' -d '{{\"title\": \"Try it\"}}'

See its event, in another terminal, through Kafka's own console consumer:

    cargo xtask consume

Ctrl-C stops everything; the data stays for the next time.
",
            services.bootstrap_servers
        );
    }

    /// Nobody who runs here ends by himself, unless something is wrong.
    async fn first_to_die(&self) -> String {
        let application = Some(&self.application);
        let [postgres, redis, kafka] = self.services.processes();
        let died = tokio::select! {
            died = ended(application) => died,
            died = ended(self.sidecar.as_ref()) => died,
            died = ended(postgres) => died,
            died = ended(redis) => died,
            died = ended(kafka) => died,
        };
        let status = died.exited().await;
        format!("{} ended by itself ({status}): stopping the rest\n{}", died.name(), died.log_tail())
    }

    /// In order; true if all ended in their own way.
    async fn stop(&self) -> bool {
        let mut well = true;
        let mut note = |name: &str, result: Result<()>| {
            well &= result.is_ok();
            match result {
                Ok(()) => say("Stopped", name),
                Err(error) => eprintln!("error: stopping {name}: {error:#}"),
            }
        };
        note("the application", self.application.stop(Signal::TERM, STOP_LIMIT).await.map(drop));
        if let Some(sidecar) = &self.sidecar {
            note("the sidecar", sidecar.stop(Signal::TERM, STOP_LIMIT).await.map(drop));
        }
        for (name, result) in self.services.stop().await {
            note(name, result);
        }
        well
    }
}

async fn ended(process: Option<&Process>) -> &Process {
    match process {
        Some(process) => {
            process.exited().await;
            process
        }
        None => std::future::pending().await,
    }
}

/// Ctrl-C, `kill`, and the terminal that is closed.
struct StopSignals([Signals; 3]);

impl StopSignals {
    fn new() -> Result<StopSignals> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(StopSignals([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let StopSignals([interrupt, terminate, hangup]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn dir() -> Result<PathBuf> {
    let dir = repository::data_dir()?.join("up");
    repository::create_dir(&dir)?;
    Ok(dir)
}

fn lock(dir: &Path) -> Result<File> {
    let file = File::create(dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("`cargo xtask up` runs already in this repository: stop that one first")
        }
        Err(TryLockError::Error(error)) => Err(error).context("locking .data/up"),
    }
}

/// `SIDECAR_TOKEN`, or a new secret for each run.
fn token() -> Result<String> {
    if let Ok(given) = std::env::var("SIDECAR_TOKEN") {
        return Ok(given);
    }
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("making a token")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
