use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use kafka_sidecar::{Command, Config, Listeners};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A batch is tens of thousands of small pieces, made by one thread and freed by another: with glibc's allocator two fifths of
/// what a long backlog costs the sidecar.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc is to do, under the name where it looks: one arena, for two threads do not need to keep more to themselves.
#[expect(unsafe_code, reason = "nothing else in the program has this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; 10] = b"narenas:1\0";

/// Two threads, however many processors there are: PostgreSQL and Kafka need them more, and memory does not grow with them.
#[tokio::main(worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    let config = Config::parse();
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(EnvFilter::try_new(&config.log_filter)?)
        .with_writer(std::io::stderr)
        .init();

    config.check()?;
    match &config.command {
        Some(Command::Verify { json }) => {
            let json = *json;
            return kafka_sidecar::verify(config, json).await;
        }
        Some(Command::Parked(command)) => {
            kafka_sidecar::parked(&config, command).await?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Migrate) => {
            kafka_sidecar::migrate(&config).await?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Topic(command)) => {
            kafka_sidecar::topic(&config, command).await?;
            return Ok(ExitCode::SUCCESS);
        }
        None => {}
    }

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let listeners = Listeners::bind(&config).await?;
    // The addresses are told on standard output, since port 0 leaves the choice to the system.
    println!("listening on http://{}", listeners.ingest.local_addr()?);
    println!("operations on http://{}", listeners.operations.local_addr()?);
    kafka_sidecar::run(listeners, config, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}
