//! The command line of minispin: flags as Spin has them, an application, a listening socket, a signal.

use std::{
    env::{self, VarError},
    io::{IsTerminal, Write, stderr, stdout},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use minispin::{Application, CodeCache, Config, listen};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A request is taken in on one thread and often finished on another, which makes glibc's allocator wait for locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs a Spin application where the Spin CLI is not installed.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the application until SIGINT or SIGTERM.
    Up(Up),
}

#[derive(clap::Args)]
struct Up {
    /// The application's manifest.
    #[arg(short, long, value_name = "FILE", default_value = "spin.toml")]
    from: PathBuf,
    /// Address to serve on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", env = "SPIN_HTTP_LISTEN_ADDR", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Value of an application variable; wins over SPIN_VARIABLE_<NAME> and over the default.
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = parse_variable)]
    variables: Vec<(String, String)>,
    /// Folder for the components' stdout and stderr [default: .spin/logs beside the manifest]
    #[arg(short = 'L', long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// Folder for compiled components [default: wasmtime's]
    #[arg(long, value_name = "DIR", conflicts_with = "disable_cache")]
    cache_dir: Option<PathBuf>,
    /// Compile anew at every start.
    #[arg(long)]
    disable_cache: bool,
    /// Requests in flight; past it, 503.
    #[arg(long, value_name = "COUNT", default_value_t = Config::REQUESTS_MAX, value_parser = requests_max)]
    requests_max: usize,
    /// Connections at once, if the limit on open files allows so many; others wait.
    #[arg(long, value_name = "COUNT", default_value_t = Config::CONNECTIONS_MAX, value_parser = connections_max)]
    connections_max: usize,
    /// Seconds that a stop waits for what was begun.
    #[arg(long, value_name = "SECONDS", default_value_t = Config::SHUTDOWN_MAX_S)]
    shutdown_max_s: u64,
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("write it as name=value".into()),
    }
}

impl Up {
    fn config(self) -> Config {
        Config {
            variables: self.variables,
            log_dir: self.log_dir,
            cache: match (self.disable_cache, self.cache_dir) {
                (true, _) => CodeCache::Off,
                (false, Some(folder)) => CodeCache::Folder(folder),
                (false, None) => CodeCache::Default,
            },
            requests_max: self.requests_max,
            connections_max: self.connections_max,
            shutdown_max: Duration::from_secs(self.shutdown_max_s),
            ..Config::new(self.from)
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let Cli { command: Command::Up(up) } = Cli::parse();
    let filter = match env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text).context("RUST_LOG")?,
        Ok(_) | Err(VarError::NotPresent) => EnvFilter::new("minispin=info,warn"),
        Err(error) => return Err(error).context("RUST_LOG"),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .init();

    // Bound first: a port in use is known before the seconds that compiling may take.
    let listener = listen(up.listen)?;
    let address = listener.local_addr()?;
    // Listened for from here on, so that a signal during the start is not lost.
    let stop = stop_signal()?;
    let application = Application::load(&up.config())?;

    let mut stdout = stdout().lock();
    stdout.write_all(application.announcement(address).as_bytes())?;
    stdout.flush()?;
    drop(stdout);

    application.serve(listener, stop).await
}

fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn requests_max(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=Config::REQUESTS_MAX).contains(&count) => Ok(count),
        _ => Err(format!("must be a whole number from 1 to {}", Config::REQUESTS_MAX)),
    }
}

fn connections_max(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=1_000_000).contains(&count) => Ok(count),
        _ => Err("must be a whole number from 1 to 1000000".into()),
    }
}
