//! `cargo xtask consume`: what stands on the topic, told by Kafka's own console consumer.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result};
use xtask::services::console_consumer;

use crate::up;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only what comes from now on, instead of everything from the first record on
    #[arg(long)]
    latest: bool,
    /// Stop after this many records
    #[arg(long, value_name = "COUNT")]
    max_messages: Option<u32>,
    /// Brokers of another Kafka than that of the running `up`
    #[arg(long, value_name = "HOST:PORT,…", env = "KAFKA_BOOTSTRAP_SERVERS")]
    kafka_bootstrap_servers: Option<String>,
    /// Topic there
    #[arg(long, value_name = "TOPIC", env = "KAFKA_TOPIC", default_value = "task_events")]
    kafka_topic: String,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let (bootstrap, topic) = match options.kafka_bootstrap_servers {
        Some(bootstrap) => (bootstrap, options.kafka_topic),
        None => up::running_topic()?
            .context("nothing runs here: start `cargo xtask up` in another terminal first")?,
    };
    let mut command = console_consumer(&bootstrap, &topic).await?;
    if !options.latest {
        command.arg("--from-beginning");
    }
    if let Some(count) = options.max_messages {
        command.args(["--max-messages", &count.to_string()]);
    }
    // From here on this process is the console consumer: Ctrl-C, pipes and its exit code are its own.
    Err(command.exec()).context("starting `java`: install a JDK 17 or later, or set JAVA_HOME")
}
