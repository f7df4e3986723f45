//! `kafka-sidecar parked`: what an operator does with events that the broker refuses.
//!
//! Nothing is dropped that is not named, and what is dropped is printed whole.

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use crate::config::Config;
use crate::outbox::{Outbox, Parked};

/// Events that are listed at once.
const LISTED_MAX: u32 = 1_000;

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show which events are parked, why, and how many later ones of their tasks wait behind them
    List {
        /// Print one JSON object, whose shape README.md describes
        #[arg(long)]
        json: bool,
    },
    /// Publish parked events after all, as when the topic takes larger records now: those that are
    /// named, or every one with --all
    Retry(Chosen),
    /// Give parked events up: they never reach the topic, and the later ones of their tasks go on without
    /// them. Prints each, as JSON in a line of its own
    Drop {
        /// Ids of events
        #[arg(required = true)]
        ids: Vec<Uuid>,
    },
}

#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct Chosen {
    /// Ids of events, as `parked list` shows them
    #[arg(value_name = "EVENT_ID")]
    ids: Vec<Uuid>,
    /// Every event that is parked
    #[arg(long)]
    all: bool,
}

/// # Errors
/// When the database cannot be asked, or when an id is none of a parked event: then all others are done.
pub async fn run(config: &Config, command: &Command) -> Result<()> {
    let outbox = Outbox::new(config.database_url.expose(), config.database_timeout)?;
    let (done, named) = match command {
        Command::List { json } => return list(&outbox, *json).await,
        Command::Retry(Chosen { all: true, .. }) => {
            let retried = outbox.retry_parked(None).await?;
            println!("{} events are retried", retried.len());
            (retried, &[][..])
        }
        Command::Retry(Chosen { ids, .. }) => {
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

async fn list(outbox: &Outbox, json: bool) -> Result<()> {
    let parked = outbox.parked(LISTED_MAX).await?;
    let may_be_more = parked.len() == LISTED_MAX as usize;
    if json {
        println!("{}", json!({ "events": parked, "may_be_more": may_be_more }));
        return Ok(());
    }
    for Parked { id, event_type, task_id, version, bytes, parked_at, reason, waiting } in &parked {
        println!("{id}  {event_type} of task {task_id}, version {version}, {bytes} bytes");
        println!("    parked at {parked_at}: {reason}");
        println!("    {waiting} later events of the task wait");
    }
    match parked.len() {
        0 => {
            println!("no event is parked");
            return Ok(());
        }
        count if may_be_more => println!("{count} events, and there may be more"),
        count => println!("{count} events"),
    }
    println!(
        "when the cause is gone: `kafka-sidecar parked retry --all`, or `retry` with ids; \
         to give one up: `kafka-sidecar parked drop` with its id"
    );
    Ok(())
}
