//! The statements alone: a loop on connections of its own, each with the statement prepared once, and
//! nothing before or after. No server that runs them can be faster. As pgbench does it, but with the
//! very texts and values that the component sends, which pgbench has no way to make.

use std::time::{Duration, Instant};

use anyhow::Result;
use contract::timestamp;
use tokio::task::JoinSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::operation::{Operation, task_id};
use crate::platform::connect;
use crate::stats::percentile;
use crate::wrk::{Load, Outcome};

/// More clients share these, as they do in the servers' pools.
pub const CONNECTIONS_MAX: u32 = 64;

const INSERT_TASK: &str = include_str!("../../src/store/insert_task.sql");
const CHANGE_TASK: &str = include_str!("../../src/store/change_task.sql");
const READ_TASK: &str = include_str!("../../src/store/read_task.sql");
const LIST_TASKS: &str = include_str!("../../src/store/list_tasks.sql");

pub async fn run(database_url: &str, load: Load<'_>) -> Result<Outcome> {
    let connections = load.clients.min(CONNECTIONS_MAX);
    let mut ready = Vec::new();
    for number in 0..connections {
        let client = connect(database_url).await?;
        let statement = client.prepare(&text(load.operation)).await?;
        ready.push((client, statement, number));
    }
    let started = Instant::now();
    let end = started + Duration::from_secs(load.seconds.into());
    let mut loops = JoinSet::new();
    for (client, statement, number) in ready {
        let (operation, first, tasks) = (load.operation, load.first + number, load.tasks.cast_unsigned());
        loops.spawn(async move {
            let mut times_us = Vec::new();
            let mut number = first;
            while Instant::now() < end {
                let started = Instant::now();
                ask(&client, &statement, operation, number % tasks).await?;
                times_us.push(started.elapsed().as_secs_f64() * 1e6);
                number += connections;
            }
            anyhow::Ok(times_us)
        });
    }
    let mut times_us = Vec::new();
    while let Some(done) = loops.join_next().await {
        times_us.extend(done??);
    }
    let duration_us = started.elapsed().as_secs_f64() * 1e6;
    times_us.sort_by(f64::total_cmp);
    Ok(Outcome::without_errors(
        times_us.len() as u64,
        duration_us,
        percentile(&times_us, 50.0),
        percentile(&times_us, 99.0),
        times_us.last().copied().unwrap_or_default(),
    ))
}

fn text(operation: Operation) -> String {
    match operation {
        Operation::Create => INSERT_TASK.to_owned(),
        Operation::Update => CHANGE_TASK.to_owned(),
        Operation::List | Operation::ListCached => LIST_TASKS
            .replace("{key_text}", "created_at::text")
            .replace("{key}", "created_at")
            .replace("{type}", "timestamptz")
            .replace("{direction}", "desc")
            .replace("{after}", "<"),
        Operation::Get | Operation::GetCached | Operation::Hello => READ_TASK.to_owned(),
    }
}

async fn ask(client: &Client, statement: &Statement, operation: Operation, number: u32) -> Result<()> {
    let (no_text, no_id, no_ids) = (None::<&str>, None::<Uuid>, None::<Vec<i64>>);
    let now = timestamp::to_text(&timestamp::now());
    let (task, event) = (Uuid::now_v7(), Uuid::now_v7());
    match operation {
        Operation::Create => {
            let description = "A weekly matter, described at some length, as people do it";
            let payload = format!(
                r#"{{"event_type":"TASK_CREATED","data":{{"id":"{task}","title":"Write the report","description":"{description}","status":"todo","priority":"normal","due_at":null,"tags":[],"version":1,"created_at":"{now}","updated_at":"{now}"}}}}"#
            );
            let parameters: [&(dyn ToSql + Sync); 12] = [
                &task,
                &"Write the report",
                &description,
                &"todo",
                &1_i16,
                &no_text,
                &Vec::<String>::new(),
                &now,
                &event,
                &"TASK_CREATED",
                &payload,
                &no_text,
            ];
            client.execute(statement, &parameters).await?;
        }
        Operation::Update => {
            let id = Uuid::parse_str(&task_id(number))?;
            let title = format!("Changed for {event}");
            let parameters: [&(dyn ToSql + Sync); 18] = [
                &id,
                &event,
                &now,
                &no_text,
                &no_ids,
                &no_ids,
                &true,
                &title,
                &false,
                &no_text,
                &false,
                &no_text,
                &false,
                &None::<i16>,
                &false,
                &no_text,
                &false,
                &None::<Vec<String>>,
            ];
            client.query_one(statement, &parameters).await?;
        }
        Operation::List | Operation::ListCached => {
            let (no_tags, limit, offset) = (None::<Vec<String>>, 20_i64, i64::from(number % 111));
            let parameters: [&(dyn ToSql + Sync); 9] =
                [&no_text, &None::<i16>, &no_tags, &no_text, &no_text, &no_text, &no_id, &limit, &offset];
            client.query_one(statement, &parameters).await?;
        }
        Operation::Get | Operation::GetCached | Operation::Hello => {
            client.query_one(statement, &[&Uuid::parse_str(&task_id(number))?]).await?;
        }
    }
    Ok(())
}
