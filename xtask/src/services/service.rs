//! What the services have in common: a port that they keep, a process, and a probe that says when they are ready.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::ports::Port;
use super::probe::Probe;
use crate::process::Process;

/// A JVM on a machine that compiles with all its cores takes its time.
const READY_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const DROP_LIMIT: Duration = Duration::from_secs(3);
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
const TOO_SOON_INTERVAL: Duration = Duration::from_millis(500);
const PORT_ATTEMPTS_MAX: u32 = 5;
/// What PostgreSQL, Redis and Java say alike when a port is taken.
const PORT_TAKEN: &str = "Address already in use";

/// A service that answered when it was started. Dropping it kills it.
pub struct Service {
    port: Port,
    recipe: Recipe,
    process: Process,
}

/// How to start a service, and how to talk to it.
pub(super) struct Recipe {
    pub(super) name: &'static str,
    pub(super) command: Command,
    pub(super) log: PathBuf,
    pub(super) probe: Probe,
    pub(super) stop_signal: Signal,
    /// Where a kill would leave something in the system that is no process, as PostgreSQL its shared memory.
    pub(super) drop_signal: Option<Signal>,
    /// What it says when it was started too soon after a kill, and must be started again.
    pub(super) too_soon: Option<&'static str>,
}

impl Service {
    /// Where `port` is `None` a free one is chosen, and another if someone takes it before the service does.
    pub(super) async fn start(
        port: Option<u16>,
        dir: &Path,
        recipe: impl Fn(u16) -> Result<Recipe>,
    ) -> Result<Service> {
        for attempt in 1.. {
            let claimed = match port {
                Some(number) => Port::exactly(number)?,
                None => Port::free()?,
            };
            let mut recipe = recipe(claimed.number())?;
            let _ = fs::remove_file(&recipe.log); // the log of an earlier start
            match recipe.start().await {
                Ok(process) => return Ok(Service { port: claimed, recipe, process }),
                Err(Failure::PortTaken(_)) if port.is_none() && attempt < PORT_ATTEMPTS_MAX => {}
                Err(failure) => {
                    return Err(failure.into_error())
                        .with_context(|| format!("starting {} in {}", recipe.name, dir.display()));
                }
            }
        }
        unreachable!("the loop has no end of its own")
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// The process behind it, to watch for its end.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Lets it finish in its own way. An error if it had to be killed after 30 s.
    pub async fn stop(&self) -> Result<ExitStatus> {
        self.process.stop(self.recipe.stop_signal, STOP_LIMIT).await
    }

    /// SIGKILL; returns when it is gone.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await
    }

    /// SIGSTOP: connections stay open, new ones are accepted by the system, and nobody answers.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Goes on after `pause`.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// Stops it if it runs, and starts it again with the same port and data. Returns when it answers.
    pub async fn restart(&mut self) -> Result<()> {
        if self.process.exit_status().is_none() {
            self.stop().await?;
        }
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            match self.recipe.start().await {
                Ok(process) => {
                    self.process = process;
                    return Ok(());
                }
                Err(Failure::TooSoon(_)) if Instant::now() < deadline => sleep(TOO_SOON_INTERVAL).await,
                Err(failure) => {
                    return Err(failure.into_error())
                        .with_context(|| format!("restarting {}", self.recipe.name));
                }
            }
        }
    }
}

/// Why a service did not start.
enum Failure {
    PortTaken(Error),
    TooSoon(Error),
    Other(Error),
}

impl Failure {
    fn into_error(self) -> Error {
        match self {
            Failure::PortTaken(error) | Failure::TooSoon(error) | Failure::Other(error) => error,
        }
    }
}

impl Recipe {
    async fn start(&mut self) -> Result<Process, Failure> {
        let process = Process::spawn(self.name, &mut self.command, &self.log).map_err(Failure::Other)?;
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let answer = self.probe.answers().await;
            if let Some(status) = process.exit_status() {
                let error = anyhow!("{} ended at once ({status})\n{}", self.name, process.log_tail());
                let said = |text: &str| process.output().is_ok_and(|output| output.contains(text));
                return Err(match self.too_soon {
                    Some(too_soon) if said(too_soon) => Failure::TooSoon(error),
                    _ if said(PORT_TAKEN) => Failure::PortTaken(error),
                    _ => Failure::Other(error),
                });
            }
            match answer {
                Ok(()) => return Ok(process),
                Err(error) if Instant::now() > deadline => {
                    let tail = process.log_tail();
                    let error =
                        error.context(format!("{} is not ready after {READY_LIMIT:?}\n{tail}", self.name));
                    return Err(Failure::Other(error));
                }
                Err(_) => sleep(PROBE_INTERVAL).await,
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(signal) = self.recipe.drop_signal {
            self.process.stop_blocking(signal, DROP_LIMIT);
        }
    }
}
