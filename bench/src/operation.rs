//! What is asked of the contenders, and what a right answer looks like.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::contender::{Contender, Kind};

const ATTEMPTS: u32 = 10;
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Hello,
    /// The same 100 tasks, again and again.
    GetCached,
    /// Another task each time.
    Get,
    /// The newest 20 tasks, again and again.
    ListCached,
    /// About 20 tasks, while somebody's writes keep dropping the lists.
    List,
    Create,
    /// Another title for another task each time.
    Update,
}

impl Operation {
    /// Updates come last: FastAPI has none, and what they leave to be written would slow the creations of the others.
    pub fn of(kind: Kind) -> Vec<Operation> {
        use Operation::{Create, Get, GetCached, Hello, List, ListCached, Update};
        match kind {
            Kind::System | Kind::Spin => vec![GetCached, Get, ListCached, List, Create, Update],
            // Its own hello tells what the cache costs without Wasm.
            Kind::Native => vec![Hello, GetCached, Get, ListCached, List, Create, Update],
            // It keeps no single tasks in its cache, and has no way to change one.
            Kind::Peer => vec![GetCached, ListCached, List, Create],
            Kind::Hello | Kind::SpinHello => vec![Hello],
            Kind::Statements => vec![Get, List, Create, Update],
        }
    }

    /// As `load.lua` knows it.
    pub fn id(self) -> &'static str {
        match self {
            Operation::Hello => "hello",
            Operation::GetCached => "get_cached",
            Operation::Get => "get",
            Operation::ListCached => "list_cached",
            Operation::List => "list",
            Operation::Update => "update",
            Operation::Create => "create",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Hello => "hello",
            Operation::GetCached => "get, cached",
            Operation::Get => "get, not cached",
            Operation::ListCached => "list, cached",
            Operation::List => "list, not cached",
            Operation::Update => "update",
            Operation::Create => "create",
        })
    }
}

/// Of a seeded task.
pub fn task_id(number: u32) -> String {
    format!("01900000-0000-7000-8000-{number:012x}")
}

/// Asks, and holds the answer to what it must be: the load itself sees only statuses. More than once, if need be: a server
/// may still be at work on what the load has asked for before it ended, and make a newer task than the one asked for here.
pub async fn probe(contender: &Contender, operation: Operation) -> Result<()> {
    let mut answer = ask(contender, operation).await;
    for _ in 1..ATTEMPTS {
        if answer.is_ok() {
            break;
        }
        tokio::time::sleep(ATTEMPT_INTERVAL).await;
        answer = ask(contender, operation).await;
    }
    answer
        .with_context(|| format!("{}: wrong answer to {operation}\n{}", contender.kind, contender.log_tail()))
}

async fn ask(contender: &Contender, operation: Operation) -> Result<()> {
    let client = Client::builder().timeout(Duration::from_secs(30)).build()?;
    let tasks = format!("{}/api/tasks", contender.base_url);
    let task = format!("{tasks}/{}", task_id(7));
    match operation {
        Operation::Hello => {
            let answer = client.get(&contender.base_url).send().await?.text().await?;
            ensure!(answer == "hello, world\n", "{answer}");
        }
        Operation::GetCached | Operation::Get => {
            let found = answer(client.get(&task).send().await?, StatusCode::OK).await?;
            ensure!(found["id"] == task_id(7) && found["status"] == "todo", "{found}");
        }
        Operation::ListCached | Operation::List => {
            let found = answer(client.get(format!("{tasks}?limit=20")).send().await?, StatusCode::OK).await?;
            ensure!(found.as_array().is_some_and(|tasks| tasks.len() == 20), "{found}");
        }
        Operation::Update => {
            let title = format!("probed {}", uuid::Uuid::now_v7());
            let request = client.patch(&task).json(&json!({ "title": title }));
            let changed = answer(request.send().await?, StatusCode::OK).await?;
            ensure!(changed["title"] == *title, "{changed}");
            let read = answer(client.get(&task).send().await?, StatusCode::OK).await?;
            ensure!(read == changed, "changed to {changed}, but read is {read}");
        }
        Operation::Create => {
            let request = client.post(&tasks).json(&json!({ "title": "probed" }));
            let made = answer(request.send().await?, StatusCode::CREATED).await?;
            ensure!(made["title"] == "probed" && made["status"] == "todo", "{made}");
            let list = answer(client.get(format!("{tasks}?limit=1")).send().await?, StatusCode::OK).await?;
            ensure!(list[0]["id"] == made["id"], "made {made}, but the newest is {list}");
        }
    }
    Ok(())
}

async fn answer(response: Response, expected: StatusCode) -> Result<Value> {
    let status = response.status();
    let body = response.text().await?;
    ensure!(status == expected, "{status}: {body}");
    serde_json::from_str(&body).with_context(|| format!("not JSON: {body}"))
}
