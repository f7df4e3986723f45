//! What others wrote: the load generator, and what the peer is made of. Fetched once, with their
//! ordinary clients.

use std::env::consts::{ARCH, OS};
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use xtask::once::filled;
use xtask::repository;

const REQUIREMENTS: &str = include_str!("../peer/requirements.txt");

/// The peer's Python, with its packages.
pub fn peer_python() -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    (REQUIREMENTS, OS, ARCH).hash(&mut hasher);
    let dir = repository::data_dir()?.join("services").join(format!("peer-{:016x}", hasher.finish()));
    filled(&dir, "peer", "FastAPI and its company (60 MB) through pip", |dir| {
        fs::write(dir.join("requirements.txt"), REQUIREMENTS)?;
        run(Command::new("python3").args(["-m", "venv", "venv"]).current_dir(dir))
            .context("python3 with its module venv is needed")?;
        let mut pip = Command::new(dir.join("venv/bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        run(pip.args(["-r", "requirements.txt"]).current_dir(dir))
    })?;
    Ok(dir.join("venv/bin/python"))
}

/// wrk: the installed one, or else Debian's package, unpacked beside the services.
pub fn wrk() -> Result<Command> {
    if Command::new("wrk").stdin(Stdio::null()).output().is_ok() {
        return Ok(Command::new("wrk"));
    }
    let dir = repository::data_dir()?.join("services").join(format!("wrk-{ARCH}"));
    filled(&dir, "wrk", "wrk (300 kB) through apt-get", |dir| {
        let packages = ["wrk", "libluajit-5.1-2"];
        run(Command::new("apt-get").arg("download").args(packages).current_dir(dir))
            .context("neither wrk nor apt-get is here: install wrk")?;
        for file in fs::read_dir(dir)? {
            let package = file?.path();
            if package.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(dir))?;
            }
        }
        Ok(())
    })?;
    let mut command = Command::new(dir.join("usr/bin/wrk"));
    command.env("LD_LIBRARY_PATH", libraries(&dir)?);
    Ok(command)
}

/// Debian keeps libraries in a folder for each kind of machine.
fn libraries(dir: &Path) -> Result<OsString> {
    let mut folders = Vec::new();
    for folder in fs::read_dir(dir.join("usr/lib"))? {
        folders.push(folder?.path());
    }
    Ok(std::env::join_paths(folders)?)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
