//! Who runs the component: the Spin CLI where a new enough one is installed, else minispin.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cargo;

/// The component is built on WASI 0.3, which Spin has since this version.
const SPIN_MIN: (u32, u32) = (4, 1);

pub(super) enum Host {
    Spin { version: String },
    Minispin,
}

impl Host {
    pub(super) fn find() -> Host {
        let spin = Command::new("spin").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
        match spin.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()) {
            Ok(version) if parse(&version).is_some_and(|version| version >= SPIN_MIN) => {
                Host::Spin { version }
            }
            _ => Host::Minispin,
        }
    }

    /// Serves `manifest` at `listen`. Prints `Serving http://…` once it does.
    pub(super) fn command(&self, manifest: &Path, listen: SocketAddr) -> Command {
        let mut command = match self {
            Host::Spin { .. } => Command::new("spin"),
            Host::Minispin => Command::new(cargo::program("minispin")),
        };
        command.arg("up").arg("--from").arg(manifest).args(["--listen", &listen.to_string()]);
        command
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Host::Spin { version } => f.write_str(version),
            Host::Minispin => f.write_str("minispin"),
        }
    }
}

/// Major and minor version in `spin 4.1.0 (d8c7a5b 2026-08-25)`.
fn parse(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix("spin ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spin_is_used_from_4_1_on() {
        let new_enough = |version: &str| parse(version).is_some_and(|version| version >= SPIN_MIN);
        assert!(new_enough("spin 4.1.0 (d8c7a5b 2026-08-25)"));
        assert!(new_enough("spin 4.10.2"));
        assert!(new_enough("spin 5.0.0-pre0 (abc)"));
        assert!(!new_enough("spin 4.0.3 (d8c7a5b 2026-04-01)"));
        assert!(!new_enough("spin 3.6.2"));
        assert!(!new_enough("Spin, a 3D editor 9.1"));
        assert!(!new_enough(""));
    }
}
