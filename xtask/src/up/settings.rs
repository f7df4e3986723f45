//! What `up` is told on the command line and in the environment, and what the application is told in turn.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use crate::host::HostName;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// PostgreSQL, Redis, Kafka and the sidecar from docker-compose.yml, the application on this machine
    #[arg(long)]
    pub(super) docker: bool,
    /// Where the application listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    pub(super) listen: SocketAddr,
    /// Who runs the application [default: spin if it is on the PATH, else minispin]
    #[arg(long)]
    pub(super) host: Option<HostName>,
    /// Port of PostgreSQL [default: 5432 if free, else any]
    #[arg(long, value_name = "PORT", env = "XTASK_POSTGRES_PORT")]
    pub(super) postgres_port: Option<u16>,
    /// Port of Redis [default: 6379 if free, else any]
    #[arg(long, value_name = "PORT", env = "XTASK_REDIS_PORT")]
    pub(super) redis_port: Option<u16>,
    /// Port of Kafka [default: 9092 if free, else any]
    #[arg(long, value_name = "PORT", env = "XTASK_KAFKA_PORT")]
    pub(super) kafka_port: Option<u16>,
    /// Port of the sidecar [default: 3001 if free, else any]
    #[arg(long, value_name = "PORT", env = "XTASK_SIDECAR_PORT")]
    pub(super) sidecar_port: Option<u16>,
    /// A PostgreSQL that runs already: none is started
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub(super) database_url: Option<String>,
    /// A Redis that runs already: none is started
    #[arg(long, value_name = "URL", env = "REDIS_URL", hide_env_values = true)]
    pub(super) redis_url: Option<String>,
    /// A Kafka that runs already: none is started
    #[arg(long, value_name = "HOST:PORT,…", env = "KAFKA_BOOTSTRAP_SERVERS")]
    pub(super) kafka_bootstrap_servers: Option<String>,
    /// Where the sidecar publishes
    #[arg(long, value_name = "TOPIC", env = "KAFKA_TOPIC", default_value = "task_events")]
    pub(super) kafka_topic: String,
}

impl Options {
    /// The URLs that were given are such as the application can use: said before anything is built.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(url) = &self.database_url {
            database(url)?;
        }
        if let Some(url) = &self.redis_url {
            redis(url)?;
        }
        Ok(())
    }
}

/// Where everything is, once it runs.
pub(super) struct Addresses {
    pub(super) database_url: String,
    pub(super) redis_url: String,
    /// `host:port` of the sidecar.
    pub(super) sidecar: String,
    pub(super) sidecar_token: String,
}

impl Addresses {
    /// The application's variables, as environment: command lines, with their secrets, are there for everybody to read.
    pub(super) fn variables(&self) -> Result<Vec<(String, String)>> {
        let (database, user, password) = database(&self.database_url)?;
        let redis = redis(&self.redis_url)?;
        let redis_auth = match redis.credentials {
            "" => String::new(),
            credentials => format!("{credentials}@"),
        };
        let variables = [
            ("postgres_address", database.address.as_str()),
            ("postgres_user", user),
            ("postgres_password", password),
            ("postgres_database", database.path),
            ("postgres_options", database.options),
            ("redis_address", &redis.address),
            ("redis_auth", &redis_auth),
            ("sidecar_address", &self.sidecar),
            ("sidecar_token", &self.sidecar_token),
        ];
        Ok(variables
            .map(|(name, value)| (format!("SPIN_VARIABLE_{}", name.to_uppercase()), value.to_owned()))
            .into())
    }
}

/// With user and password.
fn database(url: &str) -> Result<(Parts<'_>, &str, &str)> {
    let parts = split("DATABASE_URL", url, &["postgres", "postgresql"], 5432)?;
    let (user, password) = parts.credentials.split_once(':').unwrap_or((parts.credentials, ""));
    ensure!(!user.is_empty() && !parts.path.is_empty(), "DATABASE_URL must name a user and a database");
    Ok((parts, user, password))
}

fn redis(url: &str) -> Result<Parts<'_>> {
    let parts = split("REDIS_URL", url, &["redis"], 6379)?;
    ensure!(
        matches!(parts.path, "" | "0") && parts.options.is_empty(),
        "REDIS_URL ends in a database or in options, which the application does not take: leave them out"
    );
    Ok(parts)
}

/// The parts of a URL as they stand in it: the manifest puts them together again, percent signs and all.
struct Parts<'url> {
    credentials: &'url str,
    address: String,
    path: &'url str,
    options: &'url str,
}

fn split<'url>(name: &str, url: &'url str, schemes: &[&str], default_port: u16) -> Result<Parts<'url>> {
    let (scheme, rest) = url.split_once("://").with_context(|| format!("{name} is no URL"))?;
    ensure!(schemes.contains(&scheme), "{name} begins with {scheme}://, not with {}://", schemes[0]);
    let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
    let (credentials, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    ensure!(!address.is_empty() && !address.contains(','), "{name} must name one host");
    // A colon within brackets is part of an IPv6 address.
    let has_port = address.rfind(':') > address.rfind(']');
    let address = if has_port { address.to_owned() } else { format!("{address}:{default_port}") };
    Ok(Parts { credentials, address, path, options })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(database_url: &str, redis_url: &str) -> Result<Vec<(String, String)>> {
        let [database_url, redis_url] = [database_url, redis_url].map(str::to_owned);
        let (sidecar, sidecar_token) = ("127.0.0.1:3001".to_owned(), "secret".to_owned());
        Addresses { database_url, redis_url, sidecar, sidecar_token }.variables()
    }

    fn value<'a>(variables: &'a [(String, String)], name: &str) -> &'a str {
        &variables.iter().find(|(known, _)| known == name).unwrap().1
    }

    #[test]
    fn urls_become_variables_without_losing_their_escapes() {
        let variables = variables(
            "postgresql://me:p%40ss:w@db.example/tasks?sslmode=disable",
            "redis://:s%2F@cache:7000/0",
        );
        let variables = variables.unwrap();
        for (name, expected) in [
            ("SPIN_VARIABLE_POSTGRES_ADDRESS", "db.example:5432"),
            ("SPIN_VARIABLE_POSTGRES_USER", "me"),
            ("SPIN_VARIABLE_POSTGRES_PASSWORD", "p%40ss:w"),
            ("SPIN_VARIABLE_POSTGRES_DATABASE", "tasks"),
            ("SPIN_VARIABLE_POSTGRES_OPTIONS", "sslmode=disable"),
            ("SPIN_VARIABLE_REDIS_ADDRESS", "cache:7000"),
            ("SPIN_VARIABLE_REDIS_AUTH", ":s%2F@"),
            ("SPIN_VARIABLE_SIDECAR_TOKEN", "secret"),
        ] {
            assert_eq!(value(&variables, name), expected, "{name}");
        }
    }

    #[test]
    fn an_ipv6_address_gets_the_default_port_and_keeps_its_own() {
        let without = variables("postgres://u:p@[::1]/d", "redis://[::1]:7000").unwrap();
        assert_eq!(value(&without, "SPIN_VARIABLE_POSTGRES_ADDRESS"), "[::1]:5432");
        assert_eq!(value(&without, "SPIN_VARIABLE_REDIS_ADDRESS"), "[::1]:7000");
        assert_eq!(value(&without, "SPIN_VARIABLE_REDIS_AUTH"), "");
    }

    #[test]
    fn urls_that_the_application_cannot_take_are_refused_by_name() {
        let database = "postgres://u:p@h/d";
        for (database_url, redis_url, name) in [
            ("mysql://u:p@h/d", "redis://h", "DATABASE_URL"),
            ("postgres://u:p@h1,h2/d", "redis://h", "DATABASE_URL"),
            ("postgres://h/d", "redis://h", "DATABASE_URL"),
            (database, "rediss://h", "REDIS_URL"),
            (database, "redis://h/3", "REDIS_URL"),
            (database, "127.0.0.1:6379", "REDIS_URL"),
        ] {
            let refusal = variables(database_url, redis_url).unwrap_err().to_string();
            assert!(refusal.contains(name), "{refusal}");
        }
    }
}
