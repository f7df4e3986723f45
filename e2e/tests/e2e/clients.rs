use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::{Deployment, LIMIT};
use serde_json::{Value, json};

/// More than any pool on the way has places: the host's for PostgreSQL has 64.
const CLIENTS: usize = 512;
const REQUESTS_EACH: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn many_keep_alive_clients_at_once_are_all_served() -> Result<()> {
    let deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let api = deployment.api.clone();
            tokio::spawn(async move {
                let mut tasks = Vec::new();
                for number in 0..REQUESTS_EACH {
                    let title = format!("{client}/{number}");
                    let task = api.create(&json!({ "title": title })).await?;
                    assert_eq!(task["title"], title, "another client's answer");
                    assert_eq!(api.list("?limit=1").await?.len(), 1);
                    tasks.push(task);
                }
                for task in &tasks {
                    assert_eq!(api.read(task["id"].as_str().context("an id")?).await?, *task);
                }
                anyhow::Ok(tasks)
            })
        })
        .collect();
    let mut created = BTreeMap::new();
    for client in clients {
        for task in client.await?? {
            created.insert(task["id"].as_str().context("an id")?.to_owned(), task);
        }
    }
    assert_eq!(created.len(), CLIENTS * REQUESTS_EACH, "each has an id of its own");
    let total = CLIENTS * REQUESTS_EACH;
    deployment.outbox_is_empty().await?;
    let records = topic.wait_for(|records| records.len() >= total, LIMIT + Duration::from_secs(60)).await?;
    let published: BTreeMap<_, _> = records
        .iter()
        .map(|record| Ok((record.key.clone(), serde_json::from_str::<Value>(&record.value)?["data"].take())))
        .collect::<Result<_>>()?;
    assert_eq!(records.len(), total);
    assert!(published == created, "what is on the topic is not what was created");
    Ok(())
}
