use std::time::Duration;

use anyhow::Result;
use e2e::{Deployment, LIMIT};
use serde_json::json;

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
                for number in 0..REQUESTS_EACH {
                    let task = api.create(&json!({ "title": format!("{client}/{number}") })).await?;
                    assert!(api.list("?limit=1").await?[0]["version"] == 1);
                    assert_eq!(task["version"], 1);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for client in clients {
        client.await??;
    }
    let total = CLIENTS * REQUESTS_EACH;
    deployment.outbox_is_empty().await?;
    let records = topic.wait_for(|records| records.len() >= total, LIMIT + Duration::from_secs(60)).await?;
    let mut ids: Vec<_> = records.iter().map(|record| &record.key).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((records.len(), ids.len()), (total, total));
    Ok(())
}
