//! What is compiled, by the same cargo that runs this, its output shown as it comes.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use xtask::progress::say;
use xtask::repository;

const WASM_TARGET: &str = "wasm32-wasip2";

/// cargo with `arguments`, in the repository. Killed if the caller gives up on it.
pub(crate) async fn cargo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<()> {
    let mut command = command();
    command.args(arguments);
    run(&mut command).await
}

/// cargo, to be given arguments and environment.
pub(crate) fn command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository::root()).kill_on_drop(true);
    // This program was itself started by cargo, whose words about the package xtask are not meant for other packages.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) async fn run(command: &mut Command) -> Result<()> {
    let status = command.status().await.context("starting cargo")?;
    let arguments: Vec<_> = command.as_std().get_args().map(OsStr::to_string_lossy).collect();
    ensure!(status.success(), "`cargo {}` ended with {status}", arguments.join(" "));
    Ok(())
}

/// The components of the application, where `spin.toml` expects them.
pub(crate) async fn build_application() -> Result<()> {
    for package in ["task-api", "api-docs"] {
        build_component(package).await?;
    }
    Ok(())
}

/// A component, where `spin.toml` expects it whatever `CARGO_TARGET_DIR` says.
pub(crate) async fn build_component(package: &str) -> Result<PathBuf> {
    add_wasm_target().await?;
    let target_dir = repository::root().join("target");
    let mut command = command();
    command
        .args(["build", "--profile", "guest", "--target", WASM_TARGET, "--package", package, "--target-dir"])
        .arg(&target_dir);
    run(&mut command).await?;
    Ok(target_dir.join(WASM_TARGET).join("guest").join(format!("{}.wasm", package.replace('-', "_"))))
}

/// Where the release build of the program `name` lies.
pub(crate) fn program(name: &str) -> PathBuf {
    let target_dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    repository::root().join(target_dir).join("release").join(name)
}

/// rustup adds it by itself only where it reads `rust-toolchain.toml`, which other installations of Rust do not.
async fn add_wasm_target() -> Result<()> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", WASM_TARGET])
        .current_dir(repository::root())
        .stderr(Stdio::null())
        .output()
        .await
        .context("starting rustc")?;
    let libraries = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if fs::read_dir(libraries).is_ok_and(|mut files| files.next().is_some()) {
        return Ok(());
    }
    say("Adding", format_args!("the Rust target {WASM_TARGET}"));
    let status = Command::new("rustup")
        .args(["target", "add", WASM_TARGET])
        .current_dir(repository::root())
        .status()
        .await
        .with_context(|| {
            format!("no rustup here to add the Rust target {WASM_TARGET}: install that target")
        })?;
    ensure!(status.success(), "`rustup target add {WASM_TARGET}` ended with {status}");
    Ok(())
}
