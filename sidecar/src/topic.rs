//! `kafka-sidecar topic`: which topic the events of this database go to, and how to move to another one.

use anyhow::{Result, ensure};
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;

use crate::config::Config;
use crate::outbox::Outbox;

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show the topic
    Show,
    /// Publish to another topic from now on, all events that are still in the outbox included. No sidecar may publish
    /// meanwhile. The records that are on the old topic stay there
    Set {
        /// The topic, which is then to be KAFKA_TOPIC of every sidecar
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
    },
}

/// # Errors
/// When the database cannot be asked, or when a sidecar publishes.
pub async fn run(config: &Config, command: &Command) -> Result<()> {
    let outbox = Outbox::new(config.database_url.expose(), config.database_timeout)?;
    let before = outbox.topic().await?;
    match command {
        Command::Show => {
            println!("{}", before.as_deref().unwrap_or("no topic yet: the first sidecar chooses it"));
        }
        Command::Set { name } => {
            let lock = outbox.publishers_lock(before.as_ref().unwrap_or(name)).await?;
            ensure!(
                lock.is_some(),
                "a sidecar publishes: stop every sidecar first; after a crash the lock is free within ten seconds"
            );
            outbox.set_topic(name).await?;
            println!("the events go to the topic {name} now: start every sidecar with KAFKA_TOPIC={name}");
        }
    }
    Ok(())
}
