//! Connections to PostgreSQL, 64 per address and component as in Spin. Waiting for one has no deadline, which
//! is what turns hoarded connections into a hang; a pool that gave up would hide that from the tests.

use std::sync::{Mutex, PoisonError};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use tokio_postgres::{
    Config, NoTls,
    config::{Host, SslMode},
};

use super::{Component, Error};
use crate::allowed_hosts::Destination;

/// Connections per address.
const CONNECTIONS_MAX: usize = 64;
/// Addresses whose pools are kept; the one not used for longest goes first.
const POOLS_MAX: usize = 16;

/// The pools of a component by address, the one used last at the end.
#[derive(Default)]
pub struct Pools(Mutex<Vec<(String, Pool)>>);

impl Pools {
    /// Waits for a free connection to `address`, which `config` was parsed from.
    pub(super) async fn take(&self, address: &str, config: Config) -> Result<Object, Error> {
        let pool = self.pool(address, config)?;
        pool.get().await.map_err(|error| Error::ConnectionFailed(format!("{:#}", anyhow::Error::new(error))))
    }

    fn pool(&self, address: &str, config: Config) -> Result<Pool, Error> {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = pools.iter().position(|(other, _)| other == address);
        let entry = match known {
            Some(index) => pools.remove(index),
            None => (address.to_owned(), new_pool(config)?),
        };
        let pool = entry.1.clone();
        pools.push(entry);
        if pools.len() > POOLS_MAX {
            pools.remove(0);
        }
        Ok(pool)
    }
}

fn new_pool(config: Config) -> Result<Pool, Error> {
    let clean = ManagerConfig { recycling_method: RecyclingMethod::Clean };
    Pool::builder(Manager::from_config(config, NoTls, clean))
        .max_size(CONNECTIONS_MAX)
        .build()
        .map_err(|error| Error::ConnectionFailed(error.to_string()))
}

/// Parses the address and checks it against the component's allowed hosts.
pub(super) fn check(component: &Component, address: &str) -> Result<Config, Error> {
    let failed = Error::ConnectionFailed;
    let config: Config = address.parse().map_err(|error: tokio_postgres::Error| failed(error.to_string()))?;
    if !matches!(config.get_ssl_mode(), SslMode::Disable | SslMode::Prefer) {
        return Err(failed(
            "the address asks for TLS, which minispin does not have: use sslmode=disable, or run with Spin"
                .into(),
        ));
    }
    let ports = config.get_ports();
    for (index, host) in config.get_hosts().iter().enumerate() {
        let Host::Tcp(host) = host else {
            return Err(failed("Unix sockets are not supported on WebAssembly".into()));
        };
        check_host(component, host, ports.get(index).or(ports.first()))?;
    }
    // An address given besides the host is what is connected to, so it has to be allowed as well.
    for (index, address) in config.get_hostaddrs().iter().enumerate() {
        let host = Destination::literal(*address);
        check_host(component, &host, ports.get(index).or(ports.first()))?;
    }
    Ok(config)
}

fn check_host(component: &Component, host: &str, port: Option<&u16>) -> Result<(), Error> {
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let url = format!("postgres://{host}{port}");
    let destination = Destination::parse(&url, "postgres")
        .map_err(|problem| Error::ConnectionFailed(format!("address {url}: {problem}")))?;
    match component.permits(&destination) {
        true => Ok(()),
        false => Err(Error::ConnectionFailed(format!("address {url} is not permitted"))),
    }
}
