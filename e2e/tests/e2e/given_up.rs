//! D7: the server ends what a request left behind, and nothing of it takes effect later.

use anyhow::Result;
use e2e::{Deployment, answer, eventually};
use reqwest::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use crate::interleavings::hold;

const CLIENTS: usize = 48;

/// The component's sessions that do something, or wait in order to do something.
const ACTIVE: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and application_name = '' and state = 'active' and pid <> pg_backend_pid()";

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_outlives_its_request_for_long() -> Result<()> {
    let deployment = Deployment::start().await?;
    let watcher = deployment.database().await?;
    let holder = hold(&deployment).await?;
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let api = deployment.api.clone();
        clients.spawn(async move {
            let create = api.post("/api/tasks").json(&json!({ "title": number.to_string() }));
            // One in four is a statement of its own.
            let is_keyed = number % 4 == 0;
            answer(if is_keyed { create.header("idempotency-key", number.to_string()) } else { create }).await
        });
    }
    while let Some(answered) = clients.join_next().await {
        assert_eq!(answered??.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    eventually("the component's sessions are at rest", async || {
        let active: i64 = watcher.query_one(ACTIVE, &[]).await?.get(0);
        Ok((active == 0).then_some(()))
    })
    .await?;
    holder.batch_execute("rollback").await?;
    deployment.api.create(&json!({ "title": "after" })).await?;
    let titles = watcher.query("select title from tasks", &[]).await?;
    let titles: Vec<String> = titles.iter().map(|row| row.get(0)).collect();
    assert_eq!(titles, ["after"], "nothing that was given up took effect");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_own_options_are_kept() -> Result<()> {
    let options = "options=-c%20application_name%3Dmine%20-c%20lock_timeout%3D100";
    let deployment = Deployment::start_with(&[("postgres_options", options)]).await?;
    let holder = hold(&deployment).await?;
    let refused = answer(deployment.api.post("/api/tasks").json(&json!({ "title": "refused" }))).await?;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(deployment.component_log()?.contains("lock timeout"), "{}", deployment.component_log()?);
    let named = "select count(*) from pg_stat_activity where application_name = 'mine'
                 and datname = current_database()";
    assert!(holder.query_one(named, &[]).await?.get::<_, i64>(0) > 0);
    Ok(())
}
