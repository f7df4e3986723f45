//! PostgreSQL 18, with the durability that it comes with: what it has acknowledged survives a kill.

use std::fs::{self, Permissions};
use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::task::spawn_blocking;

use super::artifacts::{self, fetched};
use super::probe::Probe;
use super::service::{Recipe, Service};
use crate::repository;

/// Enough for the pool of the host (64), a sidecar, and tests that open connections of their own beside them.
const CONNECTIONS_MAX: u32 = 300;

/// A server with the superuser `tasks` (password `tasks`) and the database `tasks`.
pub struct Postgres {
    service: Service,
    data: PathBuf,
}

impl Postgres {
    /// Keeps its data in `dir`, which it creates if need be; it must lie in `repository::data_dir()`. `None`: a free port.
    pub async fn start(dir: &Path, port: Option<u16>) -> Result<Postgres> {
        let programs = fetched(artifacts::POSTGRES).await?.join("bin");
        repository::create_dir(dir)?;
        must_be_reachable(dir)?;
        let data = dir.join("data");
        if !data.is_dir() {
            let (programs, data) = (programs.clone(), data.clone());
            spawn_blocking(move || initialize(&programs, &data))
                .await?
                .with_context(|| format!("creating a database in {}", dir.display()))?;
        }
        let recipe = |port: u16| {
            let mut command = unprivileged(&programs.join("postgres"))?;
            command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
            for setting in [
                "listen_addresses=127.0.0.1",
                // Their paths have a low limit in length, and nobody needs them.
                "unix_socket_directories=",
                // In the data directory instead of /dev/shm, where a kill would leave it.
                "dynamic_shared_memory_type=mmap",
                &format!("max_connections={CONNECTIONS_MAX}"),
            ] {
                command.args(["-c", setting]);
            }
            Ok(Recipe {
                name: "PostgreSQL",
                command,
                log: dir.join("postgres.log"),
                probe: Probe::Postgres { url: url(port, "tasks") },
                stop_signal: Signal::INT, // its "fast shutdown": does not wait for clients to leave
                drop_signal: Some(Signal::QUIT),
                too_soon: Some("pre-existing shared memory block"),
            })
        };
        let service = Service::start(port, dir, recipe).await?;
        Ok(Postgres { service, data })
    }

    /// Copies all data, as a disk's snapshot would: while no process writes.
    ///
    /// # Errors
    /// Where the data cannot be copied; the server goes on all the same.
    pub async fn copy_data(&self) -> Result<()> {
        let copy = self.copy();
        let _ = fs::remove_dir_all(&copy);
        self.pause()?;
        // Not with std::fs: owners and modes must stay.
        let mut cp = Command::new("cp");
        cp.arg("-a").arg(&self.data).arg(&copy).stdin(Stdio::null());
        let copied = spawn_blocking(move || cp.output()).await;
        self.resume()?;
        succeeded("cp", &copied?.context("starting cp")?)
    }

    /// Puts the copy of `copy_data` in the place of the data, with the server stopped; `restart` then starts it. What was
    /// committed since the copy is lost.
    ///
    /// # Errors
    /// Where the server runs, or there is no copy.
    pub fn restore_copy(&self) -> Result<()> {
        ensure!(self.process().exit_status().is_some(), "PostgreSQL still runs");
        let copy = self.copy();
        // It names the process that ran when the copy was made.
        fs::remove_file(copy.join("postmaster.pid"))?;
        fs::remove_dir_all(&self.data)?;
        fs::rename(&copy, &self.data)?;
        Ok(())
    }

    fn copy(&self) -> PathBuf {
        self.data.with_extension("copy")
    }

    /// As superuser, of the database `tasks`.
    pub fn url(&self) -> String {
        url(self.port(), "tasks")
    }
}

impl Deref for Postgres {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl DerefMut for Postgres {
    fn deref_mut(&mut self) -> &mut Service {
        &mut self.service
    }
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://tasks:tasks@127.0.0.1:{port}/{database}")
}

/// Under another name until it is complete: an interrupted start leaves nothing that looks like a database.
fn initialize(programs: &Path, data: &Path) -> Result<()> {
    let unfinished = data.with_extension("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir(&unfinished)?;
    fs::set_permissions(&unfinished, Permissions::from_mode(0o700))?;
    if let Some((user, group)) = repository::unprivileged_user()? {
        chown(&unfinished, Some(user), Some(group))?;
    }
    let initdb = unprivileged(&programs.join("initdb"))?
        .arg("-D")
        .arg(&unfinished)
        // The same order of text on every machine, whatever its locales.
        .args(["--encoding=UTF8", "--locale-provider=builtin", "--locale=C", "--builtin-locale=C.UTF-8"])
        .args(["--username=tasks", "--auth-local=trust", "--auth-host=scram-sha-256"])
        .stdin(Stdio::null())
        .output()
        .context("starting initdb")?;
    succeeded("initdb", &initdb)?;

    let mut single = unprivileged(&programs.join("postgres"))?
        .arg("--single")
        .arg("-D")
        .arg(&unfinished)
        .arg("postgres")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting postgres")?;
    let mut input = single.stdin.take().context("postgres has no standard input")?;
    // One statement a line.
    input.write_all(b"alter role tasks password 'tasks'\ncreate database tasks\n")?;
    drop(input);
    succeeded("postgres --single", &single.wait_with_output()?)?;
    fs::rename(&unfinished, data)?;
    Ok(())
}

fn unprivileged(program: &Path) -> Result<Command> {
    let mut command = Command::new(program);
    // The directory of whoever calls may be closed to the user that this runs as.
    command.current_dir("/");
    // The caller's PGDATA, PGPORT or PGOPTIONS are meant for another server.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    if let Some((user, group)) = repository::unprivileged_user()? {
        must_be_reachable(program.parent().context("a program lies in a directory")?)?;
        command.uid(user).gid(group);
    }
    Ok(command)
}

fn must_be_reachable(dir: &Path) -> Result<()> {
    ensure!(
        repository::unprivileged_user()?.is_none() || repository::reachable(dir)?,
        "PostgreSQL refuses to run as root and runs as nobody, who cannot reach {}: use a directory under {}",
        dir.display(),
        repository::data_dir()?.display()
    );
    Ok(())
}

fn succeeded(what: &str, output: &Output) -> Result<()> {
    ensure!(
        output.status.success(),
        "{what} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
