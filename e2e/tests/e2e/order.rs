use anyhow::Result;
use e2e::{Deployment, LIMIT, answer};
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

/// What a change of a task leaves in the outbox; the API of today only creates, so it is written here.
async fn commit(deployment: &Deployment, task: Uuid, version: i64) -> Result<Value> {
    commit_as(deployment, Uuid::now_v7(), task, version).await
}

async fn commit_as(deployment: &Deployment, id: Uuid, task: Uuid, version: i64) -> Result<Value> {
    let event_type = if version == 1 { "TASK_CREATED" } else { "TASK_UPDATED" };
    let time = "2026-01-01T00:00:00.000000Z";
    let data = json!({
        "id": task, "title": "a", "description": null, "status": "todo", "priority": "normal", "due_at": null,
        "tags": [], "version": version, "created_at": time, "updated_at": time,
    });
    let payload = json!({ "event_type": event_type, "data": data });
    let statement = "
        insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time)
        values (($1::text)::uuid, 'task', ($2::text)::uuid, $3, $4, $5, now())";
    let (id_text, task_text, payload_text) = (id.to_string(), task.to_string(), payload.to_string());
    let database = deployment.database().await?;
    database.execute(statement, &[&id_text, &task_text, &event_type, &payload_text, &version]).await?;
    Ok(json!({
        "specversion": "1.0", "id": id, "type": event_type, "source": "/api/tasks", "subject": task,
        "time": time, "sequence": format!("{version:010}"),
        "partitionkey": task, "datacontenttype": "application/json", "data": payload,
    }))
}

async fn forward(deployment: &Deployment, events: &[Value]) -> Result<()> {
    let request = deployment
        .sidecar_api()?
        .post("/events")
        .bearer_auth(deployment.sidecar_token())
        .header("content-type", "application/cloudevents-batch+json")
        .body(serde_json::to_vec(events)?);
    let taken = answer(request).await?;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
    Ok(())
}

async fn versions(deployment: &Deployment, count: usize) -> Result<Vec<String>> {
    let topic = deployment.topic_reader().await?;
    let records = topic.wait_for(|records| records.len() >= count, LIMIT).await?;
    Ok(records.iter().map(|record| record.header("ce_sequence").unwrap().to_owned()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_forwarded_before_older_ones_waits_for_them() -> Result<()> {
    let mut deployment = Deployment::prepare(&e2e::Services::shared()?).await?;
    // No sweep in this test's time: what is published was forwarded, or fetched to close a gap.
    deployment.start_sidecar(&[("SWEEP_INTERVAL_MS", "3600000")])?;
    deployment.sidecar_is_ready().await?;
    let task = Uuid::now_v7();
    let mut events = Vec::new();
    for version in 1..=4 {
        events.push(commit(&deployment, task, version).await?);
    }
    forward(&deployment, &events[3..]).await?;
    forward(&deployment, &[events[1].clone(), events[0].clone(), events[2].clone()]).await?;
    deployment.outbox_is_empty().await?;
    assert_eq!(versions(&deployment, 4).await?, ["0000000001", "0000000002", "0000000003", "0000000004"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_forwarded_twice_is_published_once() -> Result<()> {
    let deployment = Deployment::start().await?;
    let task = Uuid::now_v7();
    let first = commit(&deployment, task, 1).await?;
    for _ in 0..3 {
        forward(&deployment, std::slice::from_ref(&first)).await?;
    }
    deployment.outbox_is_empty().await?;
    let second = commit(&deployment, task, 2).await?;
    forward(&deployment, &[first, second]).await?;
    deployment.outbox_is_empty().await?;
    assert_eq!(versions(&deployment, 2).await?, ["0000000001", "0000000002"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_swept_in_the_order_of_each_tasks_versions() -> Result<()> {
    let mut deployment = Deployment::prepare(&e2e::Services::shared()?).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    deployment.kill_sidecar().await?;
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    // The ids of these events are not in the order of their versions.
    for version in [3, 1, 2] {
        commit(&deployment, one, version).await?;
        commit(&deployment, other, version).await?;
    }
    deployment.start_sidecar(&[])?;
    deployment.outbox_is_empty().await?;
    let topic = deployment.topic_reader().await?;
    let records = topic.wait_for(|records| records.len() >= 6, LIMIT).await?;
    for task in [one, other] {
        let of_task = records.iter().filter(|record| record.key == task.to_string());
        let versions: Vec<_> = of_task.map(|record| record.header("ce_sequence").unwrap()).collect();
        assert_eq!(versions, ["0000000001", "0000000002", "0000000003"]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_committed_long_after_its_id_was_made_is_found() -> Result<()> {
    let mut deployment = Deployment::prepare(&e2e::Services::shared()?).await?;
    deployment.start_sidecar(&[("SWEEP_INTERVAL_MS", "100")])?;
    deployment.sidecar_is_ready().await?;
    // Of the year 2024, in an outbox whose sweep has come as far as today.
    commit(&deployment, Uuid::now_v7(), 1).await?;
    deployment.outbox_is_empty().await?;
    commit_as(&deployment, "018cc251-f400-7000-8000-000000000001".parse()?, Uuid::now_v7(), 1).await?;
    deployment.outbox_is_empty().await?;
    assert_eq!(versions(&deployment, 2).await?.len(), 2);
    Ok(())
}
