//! Ports of this machine that nobody uses, and that no two services of this repository choose at once.
//!
//! They lie below the range that the system gives to outgoing connections. In that range a port may be taken the moment
//! its service restarts, and a client that keeps dialling a stopped service can end up connected to itself.

use std::collections::hash_map::RandomState;
use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

use crate::repository;

const RANGE: Range<u16> = 20_000..32_000;
const ATTEMPTS_MAX: u32 = 100;

/// A port and the right to use it, among all processes that work in this repository, until it is dropped.
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    pub fn number(&self) -> u16 {
        self.number
    }

    /// That very port, or why not.
    pub fn exactly(number: u16) -> Result<Port> {
        match claim(number)? {
            Some(port) => Ok(port),
            None => bail!("port {number} of 127.0.0.1 is in use: stop who uses it, or choose another one"),
        }
    }

    /// Any port that is free.
    pub fn free() -> Result<Port> {
        for _ in 0..ATTEMPTS_MAX {
            let number = RANGE.start + (random() % RANGE.len() as u64) as u16;
            if let Some(port) = claim(number)? {
                return Ok(port);
            }
        }
        bail!("found no free port in {RANGE:?} in {ATTEMPTS_MAX} attempts")
    }

    /// The port that everybody expects, if it is free, else any.
    pub fn preferably(number: u16) -> Result<Port> {
        match claim(number)? {
            Some(port) => Ok(port),
            None => Port::free(),
        }
    }
}

fn claim(number: u16) -> Result<Option<Port>> {
    ensure!(number != 0, "port 0 is no port that a service can be reached at");
    let dir = repository::data_dir()?.join("ports");
    repository::create_dir(&dir)?;
    let lock = File::create(dir.join(number.to_string())).context("claiming a port")?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error).context("claiming a port"),
    }
    // The listener goes before the service comes: nothing has connected to it, so the port is free again at once.
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok().then_some(Port { number, _lock: lock }))
}

/// The standard library's only source of randomness: the seed of its hash maps.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_not_given_out() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = listener.local_addr().unwrap().port();
        assert!(Port::exactly(taken).is_err());
        assert_ne!(Port::preferably(taken).unwrap().number(), taken);
    }

    #[test]
    fn a_claimed_port_is_given_out_once() {
        let first = Port::free().unwrap();
        assert!(Port::exactly(first.number()).is_err());
        let number = first.number();
        drop(first);
        assert_eq!(Port::exactly(number).unwrap().number(), number);
    }
}
