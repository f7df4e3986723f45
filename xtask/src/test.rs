//! `cargo xtask test`: format, lints, and every test there is, on services that it starts for that.
//!
//! Invariant: the exit code is 0 only if every step ran and succeeded; the services end with this process, however it ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use xtask::progress::say;
use xtask::repository;
use xtask::services::{Kafka, KafkaVersion, Postgres, Redis, fetch_all};
use xtask::tools::Tools;

use crate::cargo::{self, build_application, build_component, cargo, program};
use crate::host::{Host, HostName};

/// Most tests wait for a service most of the time: more of them than there are cores.
const TEST_THREADS: &str = "4";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Broker to test with: 4.4 (KRaft), 3.0 (with ZooKeeper), or all, which is everything with 4.4 and then the
    /// end-to-end tests again with 3.0
    #[arg(long, default_value = "all", value_parser = ["4.4", "3.0", "all"])]
    kafka: String,
    /// Who runs the component in the end-to-end tests: minispin, or the Spin CLI on the PATH
    #[arg(long, default_value = "minispin")]
    host: HostName,
    /// Run only the tests whose names contain one of these, without checking format, lints and
    /// dependencies
    filters: Vec<String>,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let data_dir = repository::data_dir()?;
    let lock = File::create(data_dir.join("test.lock"))?;
    if lock.try_lock().is_err() {
        bail!("`cargo xtask test` runs already in this repository: wait for it, or stop it");
    }
    let host = Host::find(Some(options.host))?.program();
    let brokers = match options.kafka.as_str() {
        "all" => vec![KafkaVersion::V4_4, KafkaVersion::V3_0],
        version => vec![version.parse()?],
    };

    if options.filters.is_empty() {
        step("format", cargo(["fmt", "--all", "--check"])).await?;
        step("lints", lints()).await?;
    }
    // Fetching waits for the network and compiling for the processors.
    let (programs, (), tools) =
        tokio::try_join!(step("build", build()), fetch_all(&brokers), Tools::fetch())?;
    if options.filters.is_empty() {
        step("dependencies", dependencies(&tools)).await?;
    }

    let dir = data_dir.join("test");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    let started = Instant::now();
    let postgres = Postgres::start(&dir.join("postgres"), None).await?;
    let redis = Redis::start(&dir.join("redis"), None).await?;
    say("Started", format_args!("PostgreSQL and Redis in {:.1} s", started.elapsed().as_secs_f32()));

    for (round, version) in brokers.into_iter().enumerate() {
        let kafka = Kafka::start(version, &dir.join(format!("kafka-{version}")), None).await?;
        let mut tests = cargo::command();
        tests.args(["test", "--workspace", "--release"]);
        if round > 0 {
            // The second round only needs the end-to-end tests. It names the whole workspace all the
            // same: other packages would mean other features of dependencies, compiled again.
            tests.args(["--test", "e2e"]);
        }
        tests.arg("--").args(&options.filters);
        tests.env("DATABASE_URL", postgres.url()).env("REDIS_URL", redis.url());
        tests.env("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap()).env("E2E_KAFKA", version.to_string());
        tests.env("E2E_HOST", &host);
        programs.tell(&mut tests);
        if std::env::var_os("RUST_TEST_THREADS").is_none() {
            tests.env("RUST_TEST_THREADS", TEST_THREADS);
        }
        step(&format!("tests with Kafka {version}"), cargo::run(&mut tests)).await?;
        kafka.stop_all().await?;
    }
    redis.stop().await?;
    postgres.stop().await?;
    // The logs of all those deployments, their databases too, are of interest only after a failure.
    fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    say("Passed", "everything");
    Ok(ExitCode::SUCCESS)
}

/// In the release profile like everything else here: build scripts and procedural macros, wasmtime's among them, are then
/// compiled once, for lints, programs and tests together.
async fn lints() -> Result<()> {
    cargo(["clippy", "--workspace", "--all-targets", "--release", "--", "-D", "warnings"]).await
}

/// deny.toml says what may come in. Advisories are not part of it: a new one would fail a commit that
/// changed nothing.
async fn dependencies(tools: &Tools) -> Result<()> {
    let mut deny = Command::from(tools.cargo_deny());
    deny.args(["--workspace", "--all-features", "--locked", "check", "bans", "licenses", "sources"]);
    let status = deny.kill_on_drop(true).status().await.context("starting cargo-deny")?;
    ensure!(status.success(), "cargo-deny ended with {status}: change the dependency or deny.toml");
    Ok(())
}

/// What the tests run, for they do not build it.
struct Programs {
    minispin_guest: PathBuf,
}

async fn build() -> Result<Programs> {
    build_application().await?;
    let minispin_guest = build_component("minispin-guest").await?;
    // Programs and tests at once: what the tests alone depend on adds features to what both depend on, which would
    // otherwise be compiled once with and once without them. Not all targets: components link as Wasm alone.
    cargo(["build", "--workspace", "--release", "--bins", "--tests"]).await?;
    Ok(Programs { minispin_guest })
}

impl Programs {
    fn tell(&self, tests: &mut Command) {
        let Programs { minispin_guest } = self;
        let variables: [(&str, &Path); 2] =
            [("E2E_SIDECAR", &program("kafka-sidecar")), ("MINISPIN_GUEST", minispin_guest)];
        tests.envs(variables);
    }
}

async fn step<T>(name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    say("Step", name);
    let started = Instant::now();
    let done = work
        .await
        .with_context(|| format!("{name}: failed after {:.1} s", started.elapsed().as_secs_f32()))?;
    say("Done", format_args!("{name} in {:.1} s", started.elapsed().as_secs_f32()));
    Ok(done)
}
