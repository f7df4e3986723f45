//! Configuration of the sidecar: the environment, read once and checked. `kafka-sidecar --help`
//! prints this file's comments; a value that makes no sense stops the start with a message that
//! names it.

mod check; // what each may be

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::builder::TypedValueParser as _;
use clap::{Parser, Subcommand};
use contract::cache::KeyPrefix;

use crate::record::Naming;
use crate::{parked, topic};

/// Kafka's default of `replica.lag.time.max.ms`.
const REPLICA_LAG_MAX: Duration = Duration::from_secs(30);

/// rskafka logs each failed request as an error; the sidecar reports what it makes of it.
const DEFAULT_LOG_FILTER: &str = "kafka_sidecar=info,rskafka=off,warn";

/// Publishes the task API's events to Kafka, in order, whatever crashes.
#[derive(Clone, Debug, Parser)]
#[command(name = "kafka-sidecar", version, next_help_heading = "Settings")]
// An operator writes `verify --database-url …` as well as `--database-url … verify`.
#[command(mut_args(|setting| setting.global(true)))]
pub struct Config {
    /// What to do instead of publishing.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Where the component's forwards come in.
    #[arg(long, env = "SIDECAR_LISTEN", value_name = "SIDECAR_LISTEN", default_value = "127.0.0.1:3001")]
    pub listen: SocketAddr,

    /// Where health checks and metrics are asked for, whatever goes on at SIDECAR_LISTEN, which has
    /// them too.
    #[arg(
        long,
        env = "SIDECAR_OPERATIONS_LISTEN",
        value_name = "SIDECAR_OPERATIONS_LISTEN",
        default_value = "127.0.0.1:3002"
    )]
    pub operations_listen: SocketAddr,

    /// The secret that the component sends with each forward. Required to publish; commands do not
    /// use it.
    #[arg(
        long, env = "SIDECAR_TOKEN", value_name = "SIDECAR_TOKEN", hide_env_values = true,
        value_parser = NonEmptyStringValueParser::new().map(Secret)
    )]
    pub token: Option<Secret>,

    /// The database of the component.
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://tasks:tasks@127.0.0.1:5432/tasks"
    )]
    pub database_url: Secret,

    /// Deadline of each statement, getting a connection for it included, in milliseconds.
    #[arg(
        long, env = "DATABASE_TIMEOUT_MS", value_name = "DATABASE_TIMEOUT_MS", default_value = "5000",
        value_parser = millis(100, 600_000)
    )]
    pub database_timeout: Duration,

    /// The Redis that the component caches in.
    #[arg(
        long,
        env = "REDIS_URL",
        value_name = "REDIS_URL",
        hide_env_values = true,
        default_value = "redis://127.0.0.1:6379"
    )]
    pub redis_url: Secret,

    /// What the component's keys in Redis begin with.
    #[arg(long, env = "CACHE_KEY_PREFIX", value_name = "CACHE_KEY_PREFIX", default_value = "tasks")]
    pub cache_key_prefix: KeyPrefix,

    /// Brokers to ask for the others, `host:port`, separated by commas.
    #[arg(
        long,
        env = "KAFKA_BOOTSTRAP_SERVERS",
        value_name = "KAFKA_BOOTSTRAP_SERVERS",
        default_value = "127.0.0.1:9092",
        value_delimiter = ',',
        value_parser = check::broker
    )]
    pub kafka_bootstrap_servers: Vec<String>,

    /// The topic of the events.
    #[arg(
        long, env = "KAFKA_TOPIC", value_name = "KAFKA_TOPIC", default_value = "task_events",
        value_parser = check::topic
    )]
    pub kafka_topic: String,

    /// Partitions of the topic, if it is missing and so created here.
    #[arg(
        long, env = "KAFKA_TOPIC_PARTITIONS", value_name = "KAFKA_TOPIC_PARTITIONS", default_value = "3",
        value_parser = clap::value_parser!(i32).range(1..=1_000)
    )]
    pub kafka_topic_partitions: i32,

    /// Replicas of each partition of a topic created here.
    #[arg(
        long, env = "KAFKA_TOPIC_REPLICATION_FACTOR", value_name = "KAFKA_TOPIC_REPLICATION_FACTOR",
        default_value = "1", value_parser = clap::value_parser!(i16).range(1..=32)
    )]
    pub kafka_topic_replication_factor: i16,

    /// Where the events come from: the header ce_source of each record. A URI-reference.
    /// CloudEvents recommends an absolute URI of your own, such as https://example.com/api/tasks.
    #[arg(
        long, env = "CE_SOURCE", value_name = "CE_SOURCE", default_value = contract::SOURCE,
        value_parser = check::ce_source
    )]
    pub ce_source: String,

    /// What the header ce_type of each record has before TASK_CREATED and the like. CloudEvents
    /// recommends a reversed domain name, here with a dot at its end: `com.example.tasks.`
    #[arg(
        long, env = "CE_TYPE_PREFIX", value_name = "CE_TYPE_PREFIX", default_value = "",
        value_parser = check::ce_type_prefix
    )]
    pub ce_type_prefix: String,

    /// Deadline of each produce request, in milliseconds. It is longer than a broker takes to find out that
    /// a follower has died (replica.lag.time.max.ms). All other requests have 10 s at most.
    #[arg(
        long, env = "KAFKA_TIMEOUT_MS", value_name = "KAFKA_TIMEOUT_MS", default_value = "35000",
        value_parser = millis(100, 600_000)
    )]
    pub kafka_timeout: Duration,

    /// How long an event of unknown fate waits for a new event before it is sent again, in milliseconds.
    /// With replicas, a record can be appended and not readable: at least the brokers'
    /// replica.lag.time.max.ms. The default is 0 for KAFKA_TOPIC_REPLICATION_FACTOR=1, otherwise 30000.
    #[arg(
        long, env = "KAFKA_REPLICATION_WAIT_MS", value_name = "KAFKA_REPLICATION_WAIT_MS",
        value_parser = millis(0, 600_000)
    )]
    pub kafka_replication_wait: Option<Duration>,

    /// How long reading a partition back waits for another producer's open transaction, in milliseconds.
    /// After that events may be published twice.
    #[arg(
        long, env = "KAFKA_TRANSACTION_WAIT_MS", value_name = "KAFKA_TRANSACTION_WAIT_MS",
        default_value = "10000", value_parser = millis(0, 600_000)
    )]
    pub kafka_transaction_wait: Duration,

    /// How old what is known of the topic's partitions may be, in milliseconds: partitions that were added, or a topic that
    /// was deleted, are noticed within this time.
    #[arg(
        long, env = "KAFKA_METADATA_MAX_AGE_MS", value_name = "KAFKA_METADATA_MAX_AGE_MS", default_value = "30000",
        value_parser = millis(100, 60_000)
    )]
    pub kafka_metadata_max_age: Duration,

    /// Bytes of one produce request at most; less than the broker's message.max.bytes.
    #[arg(
        long, env = "KAFKA_BATCH_BYTES_MAX", value_name = "KAFKA_BATCH_BYTES_MAX", default_value = "524288",
        value_parser = clap::value_parser!(u32).range(1_024..=104_857_600)
    )]
    pub kafka_batch_bytes_max: u32,

    /// Events of one produce request at most.
    #[arg(
        long, env = "KAFKA_BATCH_EVENTS_MAX", value_name = "KAFKA_BATCH_EVENTS_MAX", default_value = "1000",
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub kafka_batch_events_max: u32,

    /// From the beginning of one produce request to that of the partition's next, unless that is full, in
    /// milliseconds. An event that comes after a pause goes at once.
    #[arg(
        long, env = "KAFKA_LINGER_MS", value_name = "KAFKA_LINGER_MS", default_value = "5",
        value_parser = millis(0, 60_000)
    )]
    pub kafka_linger: Duration,

    /// Bytes of forwarded events that may wait for the broker; past it a forward is answered with 503.
    #[arg(
        long, env = "QUEUE_BYTES_MAX", value_name = "QUEUE_BYTES_MAX", default_value = "8388608",
        value_parser = clap::value_parser!(u32).range(4_194_304..=1_073_741_824)
    )]
    pub queue_bytes_max: u32,

    /// How often the outbox is looked through for events that nobody forwarded, in milliseconds.
    #[arg(
        long, env = "SWEEP_INTERVAL_MS", value_name = "SWEEP_INTERVAL_MS", default_value = "1000",
        value_parser = millis(10, 3_600_000)
    )]
    pub sweep_interval: Duration,

    /// How long to publish what is queued after SIGTERM; what is left then waits in the outbox.
    #[arg(
        long, env = "DRAIN_TIMEOUT_MS", value_name = "DRAIN_TIMEOUT_MS", default_value = "10000",
        value_parser = millis(0, 600_000)
    )]
    pub drain_timeout: Duration,

    /// What is logged, as JSON lines on standard error: levels by module.
    #[arg(
        long, env = "RUST_LOG", value_name = "RUST_LOG", default_value = DEFAULT_LOG_FILTER,
        value_parser = check::log_filter
    )]
    pub log_filter: String,
}

impl Config {
    pub fn naming(&self) -> Naming {
        Naming { source: self.ce_source.clone(), type_prefix: self.ce_type_prefix.clone() }
    }

    /// Zero if appended records can be read at once.
    pub fn replication_wait(&self) -> Duration {
        let default = match self.kafka_topic_replication_factor {
            1 => Duration::ZERO,
            _ => REPLICA_LAG_MAX,
        };
        self.kafka_replication_wait.unwrap_or(default)
    }
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Compare topic and database: what is missing, doubled, out of order, misplaced or unknown?
    /// Exit code 1 if anything is. Changes nothing, and may run at any time
    Verify {
        /// Print one JSON object, whose shape README.md describes
        #[arg(long)]
        json: bool,
    },
    /// Handle events that the broker refuses
    #[command(subcommand)]
    Parked(parked::Command),
    /// Apply the migrations and end: for a role that may, when the sidecar's own role may not
    Migrate,
    /// Handle the topic that the events of this database go to
    #[command(subcommand)]
    Topic(topic::Command),
}

fn millis(min: u64, max: u64) -> impl clap::builder::TypedValueParser<Value = Duration> {
    clap::value_parser!(u64).range(min..=max).map(Duration::from_millis)
}

/// A value that does not print.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Secret(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Config, String> {
        let arguments = ["kafka-sidecar", "--token", "s3cret"].iter().chain(arguments);
        Config::try_parse_from(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_may_come_after_a_command() {
        for command in [&["verify"][..], &["parked", "list"], &["topic", "show"], &["migrate"]] {
            let settings = ["--kafka-topic", "other", "--database-url", "postgres://u@h/d"];
            let config = parse(&[command, &settings].concat()).unwrap();
            assert_eq!(config.kafka_topic, "other");
            assert_eq!(config.database_url.expose(), "postgres://u@h/d");
        }
    }

    #[test]
    fn help_has_the_variable_and_the_default_of_each_setting() {
        let mut command = <Config as clap::CommandFactory>::command();
        let help = command.render_long_help().to_string();
        let settings = command.get_arguments().filter(|setting| setting.get_env().is_some());
        let mut count = 0;
        for setting in settings {
            let name = setting.get_env().unwrap().to_str().unwrap();
            assert!(help.contains(&format!("[env: {name}")), "{name}: {help}");
            for default in setting.get_default_values() {
                let default = default.to_str().unwrap();
                let default = if default.is_empty() { "\"\"" } else { default };
                let default = format!("[default: {default}]");
                assert!(help.contains(&default), "{name}: {help}");
            }
            count += 1;
        }
        assert!(count > 20, "{help}");
    }

    #[test]
    fn retry_without_an_id_mentions_all() {
        let error = parse(&["parked", "retry"]).unwrap_err();
        assert!(error.contains("--all"), "{error}");
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused_by_name() {
        for (arguments, name) in [
            (["--kafka-topic-partitions", "0"], "KAFKA_TOPIC_PARTITIONS"),
            (["--sweep-interval", "soon"], "SWEEP_INTERVAL_MS"),
            (["--listen", "3001"], "SIDECAR_LISTEN"),
            (["--token", ""], "SIDECAR_TOKEN"),
            (["--cache-key-prefix", "a{b}"], "CACHE_KEY_PREFIX"),
        ] {
            let error = parse(&arguments).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let config = format!("{:?}", parse(&["--redis-url", "redis://:hunter2@h"]).unwrap());
        assert!(!config.contains("s3cret") && !config.contains("hunter2"), "{config}");
    }
}
