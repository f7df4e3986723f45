//! `kafka-sidecar parked`: what an operator does with events that the broker refuses.
//!
//! Nothing is dropped that is not named, and what is dropped is printed whole.

use anyhow::{Result, ensure};
use clap::Subcommand;
use uuid::Uuid;

use crate::config::Config;
use crate::outbox::{Outbox, Parked};

/// Events that are listed at once.
const LISTED_MAX: u32 = 1_000;

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show which events are parked, why, and how many later ones of their tasks wait behind them
    List,
    /// Publish parked events after all, as when the topic takes larger records now
    Retry {
        /// Ids of events
        #[arg(required_unless_present = "all")]
        ids: Vec<Uuid>,
        /// Every event that is parked
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
    /// Give parked events up: they never reach the topic, and the later ones of their tasks go on without
    /// them. Prints each, as JSON in a line of its own
    Drop {
        /// Ids of events
        #[arg(required = true)]
        ids: Vec<Uuid>,
    },
}

/// # Errors
/// When the database cannot be asked, or when an id is none of a parked event: then all others are done.
pub async fn run(config: &Config, command: &Command) -> Result<()> {
    let outbox = Outbox::new(config.database_url.expose(), config.database_timeout)?;
    let (done, named) = match command {
        Command::List => return list(&outbox).await,
        Command::Retry { all: true, .. } => {
            let retried = outbox.retry_parked(None).await?;
            println!("{} events are retried", retried.len());
            (retried, &[][..])
        }
        Command::Retry { ids, .. } => {
            let retried = outbox.retry_parked(Some(ids)).await?;
            println!("{} events are retried", retried.len());
            (retried, ids.as_slice())
        }
        Command::Drop { ids } => {
            let dropped = outbox.drop_parked(ids).await?;
            for event in &dropped {
                println!("{}", serde_json::to_string(event)?);
            }
            eprintln!("{} events are dropped", dropped.len());
            (dropped.into_iter().map(|event| event.event_id).collect(), ids.as_slice())
        }
    };
    if !done.is_empty() {
        outbox.wake_publisher(true).await?;
    }
    let not_parked: Vec<String> =
        named.iter().filter(|id| !done.contains(id)).map(ToString::to_string).collect();
    ensure!(not_parked.is_empty(), "no parked event has the id {}", not_parked.join(", "));
    Ok(())
}

async fn list(outbox: &Outbox) -> Result<()> {
    let parked = outbox.parked(LISTED_MAX).await?;
    for Parked { id, event_type, task_id, version, bytes, parked_at, reason, waiting } in &parked {
        println!("{id}  {event_type} of task {task_id}, version {version}, {bytes} bytes");
        println!("    parked at {parked_at}: {reason}");
        println!("    {waiting} later events of the task wait");
    }
    match parked.len() {
        0 => println!("no event is parked"),
        count if count == LISTED_MAX as usize => println!("{count} events, and there may be more"),
        count => println!("{count} events"),
    }
    Ok(())
}
