//! Redis without persistence: the application keeps nothing there that PostgreSQL has not.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use rustix::process::Signal;

use super::artifacts::{self, fetched};
use super::probe::Probe;
use super::service::{Recipe, Service};
use crate::repository;

/// A server without password. It forgets everything when it stops.
pub struct Redis {
    service: Service,
}

impl Redis {
    /// Keeps its log in `dir`, which must lie in `repository::data_dir()`. `None`: a free port.
    pub async fn start(dir: &Path, port: Option<u16>) -> Result<Redis> {
        Redis::start_with(dir, port, &[]).await
    }

    /// The same with further settings, as on its command line.
    pub async fn start_with(dir: &Path, port: Option<u16>, settings: &[&str]) -> Result<Redis> {
        let server = fetched(artifacts::REDIS).await?.join("redis-server");
        repository::create_dir(dir)?;
        let recipe = |port: u16| {
            let mut command = Command::new(&server);
            command.current_dir(dir).args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--save", "", "--appendonly", "no"]);
            command.args(["--maxmemory", "256mb", "--maxmemory-policy", "allkeys-lru"]);
            command.args(settings);
            Ok(Recipe {
                name: "Redis",
                command,
                log: dir.join("redis.log"),
                probe: Probe::Redis { port },
                stop_signal: Signal::TERM,
                drop_signal: None,
                too_soon: None,
            })
        };
        Ok(Redis { service: Service::start(port, dir, recipe).await? })
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }
}

impl Deref for Redis {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl DerefMut for Redis {
    fn deref_mut(&mut self) -> &mut Service {
        &mut self.service
    }
}
