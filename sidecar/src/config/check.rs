//! What each setting may be. A setting that would be left out of account, or that no attempt can
//! ever succeed with, is refused at the start. Reasons do not repeat values that hold secrets.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use fluent_uri::UriRef;
use redis::IntoConnectionInfo as _;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation, TargetSessionAttrs};
use tracing_subscriber::EnvFilter;

use super::Config;

/// Of a source, and of what is before a type. A quarter of what a record's headers are taken to be.
const CE_NAME_BYTES_MAX: usize = 128;

impl Config {
    /// # Errors
    /// For a setting that cannot be honoured, by its name.
    pub fn check(&self) -> Result<()> {
        database(self.database_url.expose()).context("DATABASE_URL")?;
        redis(self.redis_url.expose()).context("REDIS_URL")?;
        match &self.token {
            Some(token) => secret(token.expose()).context("SIDECAR_TOKEN"),
            None if self.command.is_none() => bail!(
                "SIDECAR_TOKEN is required: set it, or --token, to the secret that the component has as \
                 sidecar_token"
            ),
            None => Ok(()),
        }
    }
}

fn database(url: &str) -> Result<()> {
    let parsed = url.parse::<tokio_postgres::Config>();
    let config = parsed.context("it is no URL of PostgreSQL: postgres://user:password@host:port/database")?;
    ensure!(!config.get_hosts().is_empty() || !config.get_hostaddrs().is_empty(), "it names no host");
    let is_tls = match config.get_ssl_mode() {
        SslMode::Disable | SslMode::Prefer => config.get_ssl_negotiation() != SslNegotiation::Postgres,
        _ => true,
    };
    ensure!(
        !is_tls && config.get_channel_binding() != ChannelBinding::Require,
        "sslmode=require, sslnegotiation=direct and channel_binding=require are not supported: the sidecar does not \
         speak TLS with PostgreSQL. Leave them out and keep the way to PostgreSQL private"
    );
    ensure!(
        config.get_target_session_attrs() != TargetSessionAttrs::ReadOnly,
        "target_session_attrs=read-only: the sidecar writes"
    );
    Ok(())
}

fn redis(url: &str) -> Result<()> {
    let parsed = redis::parse_redis_url(url).context("it is no URL of Redis: redis://host:port")?;
    ensure!(
        !matches!(parsed.scheme(), "rediss" | "valkeys"),
        "{}:// is not supported: the sidecar does not speak TLS with Redis. Use redis:// and keep the way to Redis private",
        parsed.scheme()
    );
    let known: &[&str] = if parsed.has_host() { &["protocol"] } else { &["protocol", "db", "user", "pass"] };
    for (name, _) in parsed.query_pairs() {
        ensure!(known.contains(&&*name), "there is no option {name}");
    }
    ensure!(parsed.fragment().is_none(), "what follows its # has no meaning; write %23 within a password");
    let info = url.into_connection_info()?;
    // The component cannot name another one.
    ensure!(
        info.redis_settings().db() == 0,
        "the component caches in database 0, so this must not name another"
    );
    Ok(())
}

fn secret(token: &str) -> Result<()> {
    let is_sendable = token.chars().all(|character| character == ' ' || character.is_ascii_graphic());
    ensure!(
        is_sendable && token.trim() == token,
        "it has a character that no header takes, or a blank at an end: no forward could be right"
    );
    Ok(())
}

/// `host:port`, blanks around it cut.
pub fn broker(text: &str) -> Result<String, String> {
    let broker = text.trim();
    if broker.is_empty() {
        return Err("an entry is empty: is there a comma too many?".to_owned());
    }
    if broker.contains("://") {
        return Err(format!("{broker:?} has a scheme: write host:port"));
    }
    let wrong = || format!("{broker:?} is no host:port; separate several by commas");
    let (host, port) = broker.rsplit_once(':').ok_or_else(wrong)?;
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    // Colons belong to IPv6 addresses, and those into brackets.
    let is_host = match host.contains(':') {
        true => broker.parse::<SocketAddr>().is_ok(),
        false => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    if is_port && is_host { Ok(broker.to_owned()) } else { Err(wrong()) }
}

/// Empty means the default, as tracing's own programs take it.
pub fn log_filter(text: &str) -> Result<String, String> {
    let filter = if text.is_empty() { super::DEFAULT_LOG_FILTER } else { text };
    EnvFilter::try_new(filter).map(|_| filter.to_owned()).map_err(|error| error.to_string())
}

/// A URI-reference (RFC 3986), as CloudEvents has it, and short enough to be in every record.
pub fn ce_source(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > CE_NAME_BYTES_MAX {
        return Err(format!("a source has 1 to {CE_NAME_BYTES_MAX} bytes"));
    }
    match UriRef::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("it is no URI: {error}")),
    }
}

/// Names with a dot after each, so that the event's type is what follows the last dot.
pub fn ce_type_prefix(text: &str) -> Result<String, String> {
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    let names = text.strip_suffix('.');
    let is_prefix =
        text.len() <= CE_NAME_BYTES_MAX && names.is_some_and(|names| names.split('.').all(is_name));
    match text.is_empty() || is_prefix {
        true => Ok(text.to_owned()),
        false => Err("it has names of letters, digits, `-` and `_`, and a dot after each".to_owned()),
    }
}

/// The name of a topic as Kafka allows it (`org.apache.kafka.common.internals.Topic`).
pub fn topic(text: &str) -> Result<String, String> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match text {
        "" | "." | ".." => Err("it is no name of a topic".to_owned()),
        _ if text.len() > 249 => Err("a topic's name has 249 characters at most".to_owned()),
        _ if !text.chars().all(is_legal) => {
            Err("a topic's name has letters, digits, `.`, `_` and `-`".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn checked(arguments: &[&str]) -> Result<Config, String> {
        let arguments = ["kafka-sidecar"].iter().chain(arguments);
        let config = Config::try_parse_from(arguments).map_err(|error| error.to_string())?;
        config.check().map_err(|error| format!("{error:#}"))?;
        Ok(config)
    }

    fn with(option: &str, value: &str) -> Result<Config, String> {
        match option {
            "--token" => checked(&[option, value]),
            _ => checked(&["--token", "t", option, value]),
        }
    }

    #[test]
    fn settings_that_cannot_be_honoured_are_refused_by_name() {
        for (option, value, named) in [
            ("--database-url", "", "DATABASE_URL"),
            ("--database-url", "mysql://h/d", "DATABASE_URL: it is no URL of PostgreSQL"),
            ("--database-url", "postgres://u@h/d?sslmode=require", "sslmode=require"),
            ("--database-url", "postgres://u@h/d?sslmode=verify-full", "sslmode"),
            ("--database-url", "postgres://u@h/d?sslmode=prefer&sslrootcert=/ca.pem", "sslrootcert"),
            ("--database-url", "postgres://u@h/d?sslnegotiation=direct", "sslnegotiation=direct"),
            ("--database-url", "postgres://u@h/d?channel_binding=require", "channel_binding=require"),
            ("--database-url", "postgres://u@h/d?target_session_attrs=read-only", "read-only"),
            ("--database-url", "host=h user=u sslmode=require", "sslmode=require"),
            ("--redis-url", "", "REDIS_URL"),
            ("--redis-url", "127.0.0.1:6379", "REDIS_URL"),
            ("--redis-url", "http://h", "REDIS_URL: it is no URL of Redis"),
            ("--redis-url", "rediss://h", "rediss://"),
            ("--redis-url", "valkeys://h", "valkeys://"),
            ("--redis-url", "redis://h?ssl_cert_reqs=none", "ssl_cert_reqs"),
            ("--redis-url", "redis://h/#insecure", "REDIS_URL"),
            ("--redis-url", "redis://h/3", "database 0"),
            ("--bootstrap", "", "KAFKA_BOOTSTRAP_SERVERS"),
            ("--bootstrap", "a:9092,", "KAFKA_BOOTSTRAP_SERVERS"),
            ("--bootstrap", "a:9092,", "comma too many"),
            ("--bootstrap", "kafka://localhost", "KAFKA_BOOTSTRAP_SERVERS"),
            ("--bootstrap", "kafka://localhost:9092", "has a scheme"),
            ("--bootstrap", "a", "KAFKA_BOOTSTRAP_SERVERS"),
            ("--bootstrap", "a:0", "KAFKA_BOOTSTRAP_SERVERS"),
            ("--bootstrap", "a:9092 b:9092", "KAFKA_BOOTSTRAP_SERVERS"),
            ("--bootstrap", "a:9092;b:9092", "KAFKA_BOOTSTRAP_SERVERS"),
            ("--bootstrap", "SSL://a:9092", "KAFKA_BOOTSTRAP_SERVERS"),
            ("--kafka-topic", "", "KAFKA_TOPIC"),
            ("--kafka-topic", "..", "KAFKA_TOPIC"),
            ("--kafka-topic", "task events", "KAFKA_TOPIC"),
            ("--ce-source", "", "CE_SOURCE"),
            ("--ce-source", "two words", "CE_SOURCE"),
            ("--ce-source", "http://[::1", "CE_SOURCE"),
            ("--ce-source", "/t\u{e4}sks", "CE_SOURCE"),
            ("--ce-type-prefix", "com.example.tasks", "CE_TYPE_PREFIX"),
            ("--ce-type-prefix", ".", "CE_TYPE_PREFIX"),
            ("--ce-type-prefix", "com..example.", "CE_TYPE_PREFIX"),
            ("--ce-type-prefix", "com example.", "CE_TYPE_PREFIX"),
            ("--token", "secret\n", "SIDECAR_TOKEN"),
            ("--token", "se\u{e9}cret", "SIDECAR_TOKEN"),
            ("--log-filter", "kafka_sidecar=loud", "RUST_LOG"),
        ] {
            let option = option.replace("--bootstrap", "--kafka-bootstrap-servers");
            let refusal = with(&option, value).expect_err(value);
            assert!(refusal.contains(named), "{value}: {refusal}");
        }
    }

    #[test]
    fn settings_that_can_be_honoured_are_taken() {
        for (option, value) in [
            ("--database-url", "postgres://u:p@h1,h2/d?sslmode=prefer&target_session_attrs=read-write"),
            ("--database-url", "postgresql://u@[::1]:5433/d?sslmode=disable&connect_timeout=3"),
            ("--database-url", "host=/run/postgresql user=u"),
            ("--redis-url", "redis://:p%23@h:7000/0?protocol=resp3"),
            ("--redis-url", "unix:///run/redis.sock?pass=p"),
            ("--kafka-topic", "a.b_c-D9"),
            ("--ce-source", "https://example.com/api/tasks"),
            ("--ce-source", "urn:example:tasks"),
            ("--ce-source", "/api/tasks"),
            ("--ce-type-prefix", ""),
            ("--ce-type-prefix", "com.example.my-tasks.v1."),
            ("--token", "two words"),
        ] {
            with(option, value).unwrap_or_else(|refusal| panic!("{value}: {refusal}"));
        }
    }

    #[test]
    fn only_publishing_needs_the_token() {
        // Not `checked`: a token in the environment of the tests would be taken.
        let mut config = with("--token", "t").unwrap();
        config.token = None;
        let refusal = config.check().unwrap_err().to_string();
        assert!(refusal.contains("SIDECAR_TOKEN"), "{refusal}");
        config.command = Some(crate::Command::Migrate);
        config.check().unwrap();
    }

    #[test]
    fn an_empty_log_filter_is_the_default() {
        assert_eq!(with("--log-filter", "").unwrap().log_filter, super::super::DEFAULT_LOG_FILTER);
    }

    #[test]
    fn blanks_between_brokers_are_cut() {
        let config = with("--kafka-bootstrap-servers", "a:9092, b.example:9093 ,[::1]:9094").unwrap();
        assert_eq!(config.kafka_bootstrap_servers, ["a:9092", "b.example:9093", "[::1]:9094"]);
    }

    #[test]
    fn refusals_do_not_print_secrets() {
        for (option, value) in [
            ("--database-url", "postgres://u:hunter2@h/d?sslmode=require"),
            ("--database-url", "postgres://u:hunter2@h/d?nonsense=hunter2"),
            ("--redis-url", "rediss://:hunter2@h"),
            ("--redis-url", "redis://:hunter2@h/3"),
            ("--redis-url", "redis://:hunter2@h:port"),
            ("--token", "hunter2\n"),
        ] {
            let refusal = with(option, value).expect_err(value);
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }
}
