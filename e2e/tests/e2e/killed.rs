use anyhow::{Context as _, Result};
use e2e::{Deployment, LIMIT, Told, eventually};
use serde_json::json;
use xtask::process::Signal;

/// The host's sessions that wait for a lock, and those that are in a transaction and do nothing.
async fn sessions(database: &tokio_postgres::Client) -> Result<(i64, i64)> {
    let query = "select count(*) filter (where wait_event_type = 'Lock'),
                        count(*) filter (where state like 'idle in transaction%' and pid <> pg_backend_pid())
                 from pg_stat_activity where datname = current_database() and application_name = ''";
    let row = database.query_one(query, &[]).await?;
    Ok((row.get(0), row.get(1)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_host_is_killed_is_done_with_its_event_and_leaves_no_transaction() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let task = deployment.api.create(&json!({ "title": "before" })).await?;
    let id = task["id"].as_str().context("an id")?.to_owned();
    deployment.outbox_is_empty().await?;
    let database = deployment.database().await?;
    let holder = deployment.database().await?;
    holder.batch_execute("set application_name = 'the test'; begin; select * from tasks for update").await?;

    let writing = tokio::spawn({
        let (api, id) = (deployment.api.clone(), id.clone());
        async move { api.patch(&id, &json!({ "title": "during" })).await }
    });
    eventually(
        "the write waits for the lock",
        async || Ok((sessions(&database).await?.0 == 1).then_some(())),
    )
    .await?;
    // It can take no answer any more, and its connections are open: the database carries out what
    // it was asked for.
    deployment.application()?.signal(Signal::STOP)?;
    holder.batch_execute("rollback").await?;
    eventually("the write is committed", async || {
        let versions = database.query_one("select max(version) from tasks", &[]).await?;
        Ok((versions.get::<_, i64>(0) == 2).then_some(()))
    })
    .await?;
    deployment.kill_application().await?;
    assert!(writing.await?.is_err(), "nobody can have answered");
    eventually("nothing of the host is left", async || {
        Ok((sessions(&database).await? == (0, 0)).then_some(()))
    })
    .await?;

    deployment.start_application().await?;
    let written = deployment.api.read(&id).await?;
    assert_eq!((&written["title"], &written["version"]), (&json!("during"), &json!(2)));
    let mut told = Told::default();
    told.note(&deployment.api.patch(&id, &json!({ "title": "after" })).await?.json()?)?;
    assert_eq!(told.events(), 3);
    deployment.outbox_is_empty().await?;
    let topic = deployment.topic_reader().await?;
    let records = topic.wait_for(|records| records.len() >= told.events(), LIMIT).await?;
    told.are_once_and_in_order(&records)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_given_up_leaves_no_transaction_to_the_next_one() -> Result<()> {
    let mut deployment = Deployment::prepare(&e2e::Services::shared()?).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    deployment.start_application_with(&[("postgres_timeout_ms", "300")]).await?;
    let task = deployment.api.create(&json!({ "title": "before" })).await?;
    let id = task["id"].as_str().context("an id")?;
    let database = deployment.database().await?;
    let holder = deployment.database().await?;
    holder.batch_execute("set application_name = 'the test'; begin; select * from tasks for update").await?;
    let given_up = deployment.api.patch(id, &json!({ "title": "during" })).await?;
    assert_eq!(given_up.status.as_u16(), 503, "{given_up:?}");
    holder.batch_execute("rollback").await?;
    eventually("the statement is done", async || Ok((sessions(&database).await? == (0, 0)).then_some(())))
        .await?;

    // Whoever gets that connection next writes and commits as ever.
    let mut told = Told::default();
    for number in 0..5 {
        told.note(&deployment.api.create(&json!({ "title": format!("task {number}") })).await?)?;
    }
    told.note(&deployment.api.read(id).await?)?;
    told.note(&deployment.api.patch(id, &json!({ "title": "after" })).await?.json()?)?;
    deployment.outbox_is_empty().await?;
    let topic = deployment.topic_reader().await?;
    let records = topic.wait_for(|records| records.len() >= told.events(), LIMIT).await?;
    told.are_once_and_in_order(&records)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_row_that_somebody_keeps_locked_is_given_up_by_the_database_as_well() -> Result<()> {
    let deployment = Deployment::start().await?;
    let task = deployment.api.create(&json!({ "title": "before" })).await?;
    let id = task["id"].as_str().context("an id")?;
    let database = deployment.database().await?;
    let holder = deployment.database().await?;
    holder.batch_execute("set application_name = 'the test'; begin; select * from tasks for update").await?;
    let deletion = deployment.api.request("DELETE", &format!("/api/tasks/{id}"))?;
    let during = json!({ "title": "during" });
    let (patched, deleted) = tokio::join!(deployment.api.patch(id, &during), e2e::answer(deletion));
    for refused in [patched?, deleted?] {
        assert_eq!(refused.status.as_u16(), 503, "{refused:?}");
        assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    }
    // The lock is still held.
    assert_eq!(sessions(&database).await?, (0, 0), "sessions that wait, and open transactions");
    deployment.api.create(&json!({ "title": "another" })).await?;

    holder.batch_execute("rollback").await?;
    assert_eq!(deployment.api.read(id).await?, task, "nothing was changed");
    let changed = deployment.api.patch(id, &json!({ "title": "after" })).await?;
    assert_eq!(changed.status.as_u16(), 200, "{changed:?}");
    Ok(())
}
