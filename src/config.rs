//! Configuration of the component: Spin variables, read once per instance.
//! `spin.toml` holds the defaults; README.md has the table.

use std::time::Duration;

use spin_sdk::variables;
use thiserror::Error;

use crate::deadline::{TimedOut, within};

/// A host that cannot tell a variable within this time is broken.
const VARIABLE_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Config {
    pub database_url: Secret,
    /// For opening a connection and for each statement.
    pub postgres_timeout: Duration,
    pub redis_url: Secret,
    /// For opening a connection and for each command.
    pub redis_timeout: Duration,
    /// How long an instance leaves Redis alone after a command that timed out.
    pub redis_pause: Duration,
    pub cache_key_prefix: String,
    /// How long a cached answer lives at most.
    pub cache_ttl: Duration,
    pub sidecar_url: String,
    pub sidecar_token: Secret,
    /// For each forward.
    pub sidecar_timeout: Duration,
    /// For a request's body to arrive.
    pub body_timeout: Duration,
}

/// A value that does not print.
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("variable {name}: {source}")]
    Variable {
        name: &'static str,
        #[source]
        source: variables::Error,
    },
    #[error("variable {name}: no answer from the host")]
    Host {
        name: &'static str,
        #[source]
        source: TimedOut,
    },
    #[error("variable {name} is {value:?}, but must be a whole number from {min} to {max}")]
    Number { name: &'static str, value: String, min: u64, max: u64 },
}

impl Config {
    pub async fn load() -> Result<Config, ConfigError> {
        Ok(Config {
            database_url: Secret(text("database_url").await?),
            postgres_timeout: millis("postgres_timeout_ms", 10..=60_000).await?,
            redis_url: Secret(text("redis_url").await?),
            redis_timeout: millis("redis_timeout_ms", 10..=10_000).await?,
            redis_pause: millis("redis_pause_ms", 0..=60_000).await?,
            cache_key_prefix: text("cache_key_prefix").await?,
            cache_ttl: Duration::from_secs(number("cache_ttl_s", 1..=86_400).await?),
            sidecar_url: text("sidecar_url").await?,
            sidecar_token: Secret(text("sidecar_token").await?),
            sidecar_timeout: millis("sidecar_timeout_ms", 10..=60_000).await?,
            body_timeout: millis("body_timeout_ms", 10..=600_000).await?,
        })
    }
}

async fn text(name: &'static str) -> Result<String, ConfigError> {
    within(VARIABLE_TIMEOUT, variables::get(name))
        .await
        .map_err(|source| ConfigError::Host { name, source })?
        .map_err(|source| ConfigError::Variable { name, source })
}

async fn millis(name: &'static str, range: std::ops::RangeInclusive<u64>) -> Result<Duration, ConfigError> {
    number(name, range).await.map(Duration::from_millis)
}

async fn number(name: &'static str, range: std::ops::RangeInclusive<u64>) -> Result<u64, ConfigError> {
    let value = text(name).await?;
    match value.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(ConfigError::Number { name, value, min: *range.start(), max: *range.end() }),
    }
}
