//! Configuration of the component: Spin variables, read once per instance.
//! `spin.toml` holds the defaults, and docs/configuration.md has the table.

use std::sync::Arc;
use std::time::Duration;

use contract::cache::{InvalidPrefix, KeyPrefix};
use http::{HeaderValue, Uri};
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
    /// How long the readers of an instance leave Redis alone after a command that failed.
    pub redis_pause: Duration,
    pub cache_key_prefix: KeyPrefix,
    /// How long a cached answer lives at most.
    pub cache_ttl: Duration,
    pub sidecar_url: String,
    pub sidecar_token: Secret,
    /// For each forward.
    pub sidecar_timeout: Duration,
    /// For a request's body to arrive.
    pub body_timeout: Duration,
    /// Writes must say with If-Match which version they are meant for.
    pub require_if_match: bool,
    /// Hashes of the bearer tokens that open the API; none: it is open.
    pub api_tokens: Arc<[TokenHash]>,
    /// Origins whose pages may use the API.
    pub cors_origins: Origins,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origins {
    Any,
    /// Of nobody, if there are none.
    Of(Vec<HeaderValue>),
}

/// SHA-256 of a token.
pub type TokenHash = [u8; 32];

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
    #[error("variable {name} is {value:?}, but must be true or false")]
    Bool { name: &'static str, value: String },
    #[error(
        "variable {name} has {value:?}, but must be * alone, or origins such as https://app.example separated by commas"
    )]
    Origin { name: &'static str, value: String },
    #[error("variable {name}: {source}")]
    Prefix {
        name: &'static str,
        #[source]
        source: InvalidPrefix,
    },
    #[error("variable {name} must be SHA-256 hashes of 64 hexadecimal digits, separated by commas")]
    Hash { name: &'static str },
}

impl Config {
    pub async fn load() -> Result<Config, ConfigError> {
        Ok(Config {
            database_url: Secret(text("database_url").await?),
            postgres_timeout: millis("postgres_timeout_ms", 10..=60_000).await?,
            redis_url: Secret(text("redis_url").await?),
            redis_timeout: millis("redis_timeout_ms", 10..=10_000).await?,
            redis_pause: millis("redis_pause_ms", 0..=60_000).await?,
            cache_key_prefix: prefix("cache_key_prefix").await?,
            cache_ttl: Duration::from_secs(number("cache_ttl_s", 1..=86_400).await?),
            sidecar_url: text("sidecar_url").await?,
            sidecar_token: Secret(text("sidecar_token").await?),
            sidecar_timeout: millis("sidecar_timeout_ms", 10..=60_000).await?,
            body_timeout: millis("body_timeout_ms", 10..=600_000).await?,
            require_if_match: boolean("require_if_match").await?,
            api_tokens: hashes("api_token_hashes").await?,
            cors_origins: origins("cors_origins", &list("cors_origins").await?)?,
        })
    }
}

async fn text(name: &'static str) -> Result<String, ConfigError> {
    within(VARIABLE_TIMEOUT, variables::get(name))
        .await
        .map_err(|source| ConfigError::Host { name, source })?
        .map_err(|source| ConfigError::Variable { name, source })
}

async fn prefix(name: &'static str) -> Result<KeyPrefix, ConfigError> {
    text(name).await?.parse().map_err(|source| ConfigError::Prefix { name, source })
}

async fn boolean(name: &'static str) -> Result<bool, ConfigError> {
    let value = text(name).await?;
    value.parse().map_err(|_not_a_bool| ConfigError::Bool { name, value })
}

/// Separated by commas; empty for none.
async fn list(name: &'static str) -> Result<Vec<String>, ConfigError> {
    let value = text(name).await?;
    Ok(value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
}

/// As browsers send them (RFC 6454, section 6.2): any other spelling would never match.
fn origins(name: &'static str, items: &[String]) -> Result<Origins, ConfigError> {
    let origin = |item: &String| {
        let is_origin = item.parse::<Uri>().is_ok_and(|uri| {
            let scheme_and_authority = uri.scheme().zip(uri.authority());
            scheme_and_authority.is_some_and(|(scheme, authority)| *item == format!("{scheme}://{authority}"))
        });
        match HeaderValue::from_str(item) {
            Ok(value) if is_origin => Ok(value),
            _ => Err(ConfigError::Origin { name, value: item.clone() }),
        }
    };
    match items {
        [any] if any == "*" => Ok(Origins::Any),
        items => Ok(Origins::Of(items.iter().map(origin).collect::<Result<_, _>>()?)),
    }
}

async fn hashes(name: &'static str) -> Result<Arc<[TokenHash]>, ConfigError> {
    let hash = |text: &String| {
        let mut hash = TokenHash::default();
        hex::decode_to_slice(text, &mut hash).map_err(|_not_a_hash| ConfigError::Hash { name })?;
        Ok(hash)
    };
    list(name).await?.iter().map(hash).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn origins_of(items: &[&str]) -> Option<Origins> {
        let items: Vec<_> = items.iter().map(|&item| item.to_owned()).collect();
        origins("cors_origins", &items).ok()
    }

    #[test]
    fn origins_are_taken_as_browsers_send_them_and_nothing_else() {
        assert_eq!(origins_of(&[]), Some(Origins::Of(Vec::new())));
        assert_eq!(origins_of(&["*"]), Some(Origins::Any));
        let (one, other) = ("https://app.example", "http://localhost:5173");
        let both = [one, other].map(HeaderValue::from_static).to_vec();
        assert_eq!(origins_of(&[one, other]), Some(Origins::Of(both)));
        for bad in ["https://app.example/", "app.example", "https://", "https://app.example/path", "a b"] {
            assert_eq!(origins_of(&[bad]), None, "{bad}");
        }
        assert_eq!(origins_of(&[one, "*"]), None, "all of them, or these");
    }
}
