//! The Spin CLI, where a new enough one is installed.

use std::process::{Command, Stdio};

/// The component is built on WASI 0.3, which Spin has since this version.
const SPIN_MIN: (u32, u32) = (4, 1);

/// What the Spin CLI on the PATH says of its version, if it can run the component.
pub fn version() -> Option<String> {
    let spin = Command::new("spin").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let said = String::from_utf8_lossy(&spin.ok()?.stdout).trim().to_owned();
    is_new_enough(&said).then_some(said)
}

/// Of `spin 4.1.0 (d8c7a5b 2026-08-25)`.
fn is_new_enough(said: &str) -> bool {
    let Some(version) = said.strip_prefix("spin ") else { return false };
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= SPIN_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spin_is_used_from_4_1_on() {
        assert!(is_new_enough("spin 4.1.0 (d8c7a5b 2026-08-25)"));
        assert!(is_new_enough("spin 4.10.2"));
        assert!(is_new_enough("spin 5.0.0-pre0 (abc)"));
        assert!(!is_new_enough("spin 4.0.3 (d8c7a5b 2026-04-01)"));
        assert!(!is_new_enough("spin 3.6.2"));
        assert!(!is_new_enough("Spin, a 3D editor 9.1"));
        assert!(!is_new_enough(""));
    }
}
