//! One child process: a process group of its own, a log file, and an end that is always noticed.
//!
//! Invariant: when a `Process` is dropped, the child, its group and its descendants are dead, and the child is reaped.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::watchdog;

mod family; // children of children

const LOG_TAIL_LINES: usize = 25;
const LOG_TAIL_BYTES_MAX: u64 = 16 * 1024;
/// How often a condition is looked at for which nothing can wake us: a log line, a child of a child.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// SIGKILL takes effect at once; only a process that the kernel holds in a disk operation takes longer.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A running child. Killed when dropped; `stop` is the polite way.
pub struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    /// Length of the log when this child started: what stands before is another child's.
    log_start_bytes: u64,
    exit: watch::Receiver<Option<ExitStatus>>,
    /// Disconnected when the child has been reaped, for those who wait without a runtime.
    reaped: Mutex<mpsc::Receiver<()>>,
    /// Groups of descendants that `pause` stopped.
    paused: Mutex<Vec<Pid>>,
}

impl Process {
    /// Starts `command` in a process group of its own, so that Ctrl-C reaches us alone. Its output is appended to `log`.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        let output = open_log(log)?;
        command.stdout(output);
        Process::spawn_with_stdout(name, command, log)
    }

    /// As `spawn`, but the standard output goes where `command` says.
    pub fn spawn_with_stdout(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        let output = open_log(log)?;
        let log_start_bytes = output.metadata()?.len();
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}: is `{program}` installed and executable?"))?;
        let pid = Pid::from_raw(child.id().cast_signed()).context("the child has no process id")?;
        let (exit_sender, exit) = watch::channel(None);
        let (reaped_sender, reaped) = mpsc::channel();
        let watched = watchdog::started(pid);
        thread::Builder::new().name(format!("wait {name}")).spawn(move || {
            // Waits without reaping: until then the number of the process, and of its group, means no other one.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = watchdog::ended(pid);
            // `signal` holds the channel's lock while it sends.
            exit_sender.send_modify(|exit| *exit = child.wait().ok());
            drop(reaped_sender);
        })?;
        let process = Process {
            name: name.to_owned(),
            pid,
            log: log.to_owned(),
            log_start_bytes,
            exit,
            reaped: Mutex::new(reaped),
            paused: Mutex::default(),
        };
        watched?;
        Ok(process)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Returns when the child has ended, by itself or not.
    pub async fn exited(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(status) => status.expect("waited for it"),
            Err(_) => std::future::pending().await, // the waiting thread never ends without a status
        }
    }

    /// The first line of output that starts with `prefix`, without the prefix.
    pub async fn wait_for_line(&self, prefix: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let exited = self.exit_status();
            let output = self.output()?;
            let complete = &output[..output.rfind('\n').map_or(0, |end| end + 1)];
            if let Some(rest) = complete.lines().find_map(|line| line.strip_prefix(prefix)) {
                return Ok(rest.to_owned());
            }
            if let Some(status) = exited {
                bail!("{} ended ({status}) before it was ready\n{}", self.name, self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("{} did not print `{prefix}…` within {limit:?}\n{}", self.name, self.log_tail());
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Sends `signal` to the child's process group; nothing happens if the child has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // The lock keeps the child from being reaped meanwhile.
        let exit = self.exit.borrow();
        if exit.is_none() {
            kill_process_group(self.pid, signal)
                .with_context(|| format!("sending {signal:?} to {}", self.name))?;
        }
        Ok(())
    }

    /// Asks with `signal`, and kills what has not ended after `limit`. An error if it had to be killed.
    pub async fn stop(&self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        self.resume()?;
        self.signal(signal)?;
        match timeout(limit, self.exited()).await {
            Ok(status) => Ok(status),
            Err(_) => {
                self.kill().await?;
                bail!("{} did not stop within {limit:?} and was killed\n{}", self.name, self.log_tail());
            }
        }
    }

    /// SIGKILL, to the children of the child as well; returns when they are gone.
    pub async fn kill(&self) -> Result<()> {
        let descendants = self.kill_all()?;
        self.exited().await;
        let gone = async {
            while descendants.iter().any(|pid| family::alive(*pid)) {
                sleep(POLL_INTERVAL).await;
            }
        };
        timeout(KILL_LIMIT, gone).await.with_context(|| format!("children of {} do not die", self.name))
    }

    /// SIGSTOP: connections stay open, and nobody answers on them.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        // The parent stands still, so that no new child escapes. PostgreSQL's are groups of their own.
        let mut paused = self.paused.lock().expect("no panic while holding the list");
        for pid in family::descendants(self.pid)? {
            // One that ended meanwhile needs no signal.
            if kill_process_group(pid, Signal::STOP).is_ok() {
                watchdog::started(pid)?;
                paused.push(pid);
            }
        }
        Ok(())
    }

    /// SIGCONT, after `pause`; nothing happens without.
    pub fn resume(&self) -> Result<()> {
        for pid in self.paused.lock().expect("no panic while holding the list").drain(..) {
            let _ = kill_process_group(pid, Signal::CONT);
            watchdog::ended(pid)?;
        }
        self.signal(Signal::CONT)
    }

    /// All that the child wrote to its log.
    pub fn output(&self) -> Result<String> {
        read_from(&self.log, self.log_start_bytes)
    }

    /// The last lines that the child wrote, for an error message.
    pub fn log_tail(&self) -> String {
        let tail = self.log.metadata().map_or(0, |log| log.len().saturating_sub(LOG_TAIL_BYTES_MAX));
        let output = read_from(&self.log, tail.max(self.log_start_bytes)).unwrap_or_default();
        let lines: Vec<_> = output.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!("last lines of {}:\n    {}", self.log.display(), last.join("\n    "))
    }

    /// For `Drop` of those who own a process that wants to be asked: `signal`, and true if it ended within `limit`.
    pub(crate) fn stop_blocking(&self, signal: Signal, limit: Duration) -> bool {
        self.resume().is_ok() && self.signal(signal).is_ok() && self.reaped_within(limit)
    }

    fn reaped_within(&self, limit: Duration) -> bool {
        let reaped = self.reaped.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        reaped.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected)
    }

    fn kill_all(&self) -> Result<Vec<Pid>> {
        // Stopped first, or a child could be born between the look at the list and the signal.
        self.signal(Signal::STOP)?;
        let descendants =
            if self.exit_status().is_none() { family::descendants(self.pid)? } else { Vec::new() };
        self.signal(Signal::KILL)?;
        for pid in &descendants {
            let _ = rustix::process::kill_process(*pid, Signal::KILL);
        }
        Ok(descendants)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill_all();
        self.reaped_within(KILL_LIMIT);
        let _ = self.resume(); // takes what was paused off the watchdog's list
    }
}

fn open_log(log: &Path) -> Result<File> {
    File::options().create(true).append(true).open(log).with_context(|| format!("opening {}", log.display()))
}

fn read_from(path: &Path, start_bytes: u64) -> Result<String> {
    let mut file = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    file.seek(SeekFrom::Start(start_bytes))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
