//! Configuration of the component, read once per instance from one Spin variable, `settings`.
//! `spin.toml` fills it in and holds the defaults; docs/configuration.md has the table.

use std::ops::RangeInclusive;
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
    #[error("variable settings: {0}")]
    Variable(#[source] variables::Error),
    #[error("variable settings: no answer from the host")]
    Host(#[source] TimedOut),
    #[error("variable settings has no line for {0}; take it from the spin.toml of this version")]
    Missing(&'static str),
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
        let settings = within(VARIABLE_TIMEOUT, variables::get("settings")).await;
        let settings = settings.map_err(ConfigError::Host)?.map_err(ConfigError::Variable)?;
        Config::parse(&Settings(&settings))
    }

    fn parse(settings: &Settings) -> Result<Config, ConfigError> {
        Ok(Config {
            database_url: Secret(settings.text("database_url")?.to_owned()),
            postgres_timeout: settings.millis("postgres_timeout_ms", 10..=60_000)?,
            redis_url: Secret(settings.text("redis_url")?.to_owned()),
            redis_timeout: settings.millis("redis_timeout_ms", 10..=10_000)?,
            redis_pause: settings.millis("redis_pause_ms", 0..=60_000)?,
            cache_key_prefix: settings.prefix("cache_key_prefix")?,
            cache_ttl: Duration::from_secs(settings.number("cache_ttl_s", 1..=86_400)?),
            sidecar_url: settings.text("sidecar_url")?.to_owned(),
            sidecar_token: Secret(settings.text("sidecar_token")?.to_owned()),
            sidecar_timeout: settings.millis("sidecar_timeout_ms", 10..=60_000)?,
            body_timeout: settings.millis("body_timeout_ms", 10..=600_000)?,
            require_if_match: settings.boolean("require_if_match")?,
            api_tokens: settings.hashes("api_token_hashes")?,
            cors_origins: origins("cors_origins", &settings.list("cors_origins")?)?,
        })
    }
}

/// Lines of `name=value`.
struct Settings<'a>(&'a str);

impl<'a> Settings<'a> {
    fn text(&self, name: &'static str) -> Result<&'a str, ConfigError> {
        let pairs = self.0.lines().filter_map(|line| line.split_once('='));
        let mut values = pairs.filter(|(found, _)| *found == name).map(|(_, value)| value);
        values.next().ok_or(ConfigError::Missing(name))
    }

    fn prefix(&self, name: &'static str) -> Result<KeyPrefix, ConfigError> {
        self.text(name)?.parse().map_err(|source| ConfigError::Prefix { name, source })
    }

    fn boolean(&self, name: &'static str) -> Result<bool, ConfigError> {
        let value = self.text(name)?;
        value.parse().map_err(|_not_a_bool| ConfigError::Bool { name, value: value.to_owned() })
    }

    /// Separated by commas; empty for none.
    fn list(&self, name: &'static str) -> Result<Vec<&'a str>, ConfigError> {
        let items = self.text(name)?.split(',').map(str::trim);
        Ok(items.filter(|item| !item.is_empty()).collect())
    }

    fn hashes(&self, name: &'static str) -> Result<Arc<[TokenHash]>, ConfigError> {
        let hash = |text: &&str| {
            let mut hash = TokenHash::default();
            hex::decode_to_slice(text, &mut hash).map_err(|_not_a_hash| ConfigError::Hash { name })?;
            Ok(hash)
        };
        self.list(name)?.iter().map(hash).collect()
    }

    fn millis(&self, name: &'static str, range: RangeInclusive<u64>) -> Result<Duration, ConfigError> {
        self.number(name, range).map(Duration::from_millis)
    }

    fn number(&self, name: &'static str, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let value = self.text(name)?;
        match value.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => {
                let (min, max) = range.into_inner();
                Err(ConfigError::Number { name, value: value.to_owned(), min, max })
            }
        }
    }
}

/// As browsers send them (RFC 6454, section 6.2): any other spelling would never match.
fn origins(name: &'static str, items: &[&str]) -> Result<Origins, ConfigError> {
    let origin = |item: &&str| {
        let is_origin = item.parse::<Uri>().is_ok_and(|uri| {
            let scheme_and_authority = uri.scheme().zip(uri.authority());
            scheme_and_authority.is_some_and(|(scheme, authority)| *item == format!("{scheme}://{authority}"))
        });
        match HeaderValue::from_str(item) {
            Ok(value) if is_origin => Ok(value),
            _ => Err(ConfigError::Origin { name, value: (*item).to_owned() }),
        }
    };
    match items {
        ["*"] => Ok(Origins::Any),
        items => Ok(Origins::Of(items.iter().map(origin).collect::<Result<_, _>>()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins_of(items: &[&str]) -> Option<Origins> {
        origins("cors_origins", items).ok()
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

    /// The manifest's lines, with their default values.
    fn manifest() -> String {
        let manifest = include_str!("../spin.toml");
        let (_, settings) = manifest.split_once("settings = \"\"\"\n").unwrap();
        let (settings, _) = settings.split_once("\"\"\"").unwrap();
        let mut settings = settings.to_owned();
        for line in manifest.lines() {
            if let Some((name, rest)) = line.split_once(" = { default = \"")
                && let Some((value, _)) = rest.split_once('"')
            {
                settings = settings.replace(&format!("{{{{ {name} }}}}"), value);
            }
        }
        settings
    }

    #[test]
    fn the_manifest_has_a_valid_line_for_every_setting() {
        let settings = manifest();
        assert!(!settings.contains("{{"), "{settings}");
        let config = Config::parse(&Settings(&settings)).unwrap();
        assert_eq!(config.database_url.expose(), "postgres://tasks:tasks@127.0.0.1:5432/tasks?");
        assert_eq!(config.redis_url.expose(), "redis://127.0.0.1:6379");
        for line in settings.lines().filter(|line| !line.is_empty()) {
            let without = settings.replace(&format!("{line}\n"), "");
            let missing = Config::parse(&Settings(&without)).err().unwrap().to_string();
            assert!(missing.contains(line.split_once('=').unwrap().0), "{missing}");
        }
    }

    #[test]
    fn a_value_may_have_equal_signs() {
        let settings = manifest().replace("sidecar_token=", "sidecar_token=a=b==");
        let config = Config::parse(&Settings(&settings)).unwrap();
        assert_eq!(config.sidecar_token.expose(), "a=b==local-development-only");
    }
}
