//! Who runs the component: Spin, or minispin.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use xtask::spin;

use crate::cargo;

/// What can be asked for.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum HostName {
    Minispin,
    Spin,
}

pub(crate) enum Host {
    Minispin,
    Spin { version: String },
}

impl Host {
    /// The one that is asked for; if none is, Spin where it is installed.
    pub(crate) fn find(name: Option<HostName>) -> Result<Host> {
        let spin = spin::version().map(|version| Host::Spin { version });
        match name {
            Some(HostName::Minispin) => Ok(Host::Minispin),
            Some(HostName::Spin) => spin.context("there is no Spin CLI on the PATH, or it is older than 4.1"),
            None => Ok(spin.unwrap_or(Host::Minispin)),
        }
    }

    /// What takes `up` and its arguments.
    pub(crate) fn program(&self) -> PathBuf {
        match self {
            Host::Minispin => cargo::program("minispin"),
            Host::Spin { .. } => "spin".into(),
        }
    }

    /// Serves `manifest` at `listen`. Prints `Serving http://…` once it does.
    pub(crate) fn command(&self, manifest: &Path, listen: SocketAddr) -> Command {
        let mut command = Command::new(self.program());
        command.arg("up").arg("--from").arg(manifest).args(["--listen", &listen.to_string()]);
        command
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Spin { version } => f.write_str(version),
            Host::Minispin => f.write_str("minispin"),
        }
    }
}
