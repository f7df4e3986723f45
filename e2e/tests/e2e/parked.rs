//! Events that the broker refuses: one that is larger than the topic takes, among others that are not.

use anyhow::{Context as _, Result, ensure};
use e2e::{Deployment, LIMIT, Told, answer, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};

const MESSAGE_BYTES_MAX: &str = "8000";

/// More than the topic takes, and as much as the API does.
fn too_large() -> String {
    "ü".repeat(10_000)
}

async fn text(deployment: &Deployment, path: &str) -> Result<String> {
    Ok(answer(deployment.sidecar_api()?.get(path)).await?.body)
}

/// Waits until so many events are parked, by the readiness check's word.
async fn parked(deployment: &Deployment, events: u64) -> Result<()> {
    let api = deployment.sidecar_api()?;
    eventually("the events are parked", async || {
        let ready = answer(api.get("/readyz")).await?;
        // That something waits for a decision takes no sidecar out of service.
        ensure!(ready.status == StatusCode::OK, "{}", ready.body);
        let state = &ready.json()?["checks"]["parked"];
        let is_parked = if events == 0 { state == "ok" } else { state["parked"]["events"] == events };
        ensure!(is_parked, "{state}");
        Ok(Some(()))
    })
    .await
}

/// A task whose second version is refused and whose third one waits behind it; and other tasks on all partitions,
/// before and after.
async fn poisoned(deployment: &Deployment) -> Result<String> {
    deployment.set_topic_config("max.message.bytes", MESSAGE_BYTES_MAX).await?;
    let others = |count| -> Vec<Value> { (0..count).map(|n| json!({ "title": n.to_string() })).collect() };
    let batch = deployment.api.post("/api/tasks:batch").json(&others(40));
    assert_eq!(answer(batch).await?.status, StatusCode::CREATED);
    let task = deployment.api.create(&json!({ "title": "poisoned" })).await?;
    let id = task["id"].as_str().context("an id")?.to_owned();
    deployment.api.patch(&id, &json!({ "description": too_large() })).await?;
    deployment.api.patch(&id, &json!({ "description": "small again" })).await?;
    let batch = deployment.api.post("/api/tasks:batch").json(&others(40));
    assert_eq!(answer(batch).await?.status, StatusCode::CREATED);
    Ok(id)
}

async fn versions(deployment: &Deployment, id: &str, count: usize) -> Result<Vec<u64>> {
    let topic = deployment.topic_reader().await?;
    let of_task = |records: &[e2e::TopicRecord]| -> Vec<u64> {
        let values = records.iter().filter(|record| record.key == id).map(|record| &record.value);
        let values = values.map(|value| serde_json::from_str::<Value>(value).expect("JSON"));
        values.map(|value| value["data"]["version"].as_u64().expect("a version")).collect()
    };
    let records = topic.wait_for(|records| of_task(records).len() >= count, LIMIT).await?;
    Ok(of_task(&records))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_is_parked_and_only_its_own_tasks_later_ones_wait() -> Result<()> {
    let deployment = Deployment::start().await?;
    let id = poisoned(&deployment).await?;
    parked(&deployment, 1).await?;
    let topic = deployment.topic_reader().await?;
    topic.wait_for(|records| records.len() >= 81, LIMIT).await?;
    let database = deployment.database().await?;
    eventually("two rows are left", async || {
        let rows: i64 = database.query_one("select count(*) from outbox", &[]).await?.get(0);
        ensure!(rows == 2, "{rows} rows");
        Ok(Some(()))
    })
    .await?;
    assert_eq!(versions(&deployment, &id, 1).await?, [1]);
    let metrics = text(&deployment, "/metrics").await?;
    assert!(metrics.lines().any(|line| line == "outbox_parked_events 1"), "{metrics}");

    let list = String::from_utf8(deployment.operate(&["parked", "list"]).await?.stdout)?;
    assert!(list.contains("MessageTooLarge") && list.contains(&format!("of task {id}, version 2")), "{list}");
    assert!(list.contains("1 later events of the task wait"), "{list}");
    assert!(list.contains("parked retry --all"), "{list}");
    let json = deployment.operate(&["parked", "list", "--json"]).await?.stdout;
    let json: Value = serde_json::from_slice(&json)?;
    let event = &json["events"][0];
    let expected = json!({
        "may_be_more": false,
        "events": [{
            "event_id": event["event_id"], "event_type": "TASK_UPDATED", "task_id": id, "version": 2,
            "bytes": event["bytes"], "parked_at": event["parked_at"], "reason": event["reason"],
            "later_events": 1,
        }],
    });
    assert_eq!(json, expected);
    let reason = event["reason"].as_str().context("a reason")?;
    assert!(reason.contains("MessageTooLarge") && event["bytes"].as_i64() > Some(8_000), "{json}");
    // What waits is not missing.
    let (code, report) = deployment.verify().await?;
    assert_eq!(code, Some(0), "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_event_is_retried_and_what_waits_behind_it_goes_too() -> Result<()> {
    let deployment = Deployment::start().await?;
    let id = poisoned(&deployment).await?;
    parked(&deployment, 1).await?;
    deployment.set_topic_config("max.message.bytes", "1000000").await?;
    let retried = deployment.operate(&["parked", "retry", "--all"]).await?;
    assert!(retried.status.success(), "{retried:?}");
    deployment.outbox_is_empty().await?;
    assert_eq!(versions(&deployment, &id, 3).await?, [1, 2, 3]);
    parked(&deployment, 0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_event_is_retried_in_vain_and_then_dropped_by_name() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let id = poisoned(&deployment).await?;
    parked(&deployment, 1).await?;
    assert!(deployment.operate(&["parked", "retry", "--all"]).await?.status.success());
    parked(&deployment, 1).await?;
    // A sidecar that knows nothing of it finds the same.
    deployment.kill_sidecar().await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;

    let event_id = eventually("the event is parked again", async || {
        let list = String::from_utf8(deployment.operate(&["parked", "list"]).await?.stdout)?;
        Ok(list
            .contains("MessageTooLarge")
            .then(|| list.split_whitespace().next().map(ToOwned::to_owned))
            .flatten())
    })
    .await?;
    let no_event = deployment.operate(&["parked", "drop", &id]).await?;
    assert!(!no_event.status.success());
    assert!(String::from_utf8(no_event.stderr)?.contains(&id));
    let dropped = deployment.operate(&["parked", "drop", &event_id]).await?;
    assert!(dropped.status.success(), "{dropped:?}");
    let event: Value = serde_json::from_slice(&dropped.stdout)?;
    assert_eq!(event["event"]["data"]["description"], too_large());
    deployment.outbox_is_empty().await?;
    assert_eq!(versions(&deployment, &id, 2).await?, [1, 3]);

    let (code, report) = deployment.verify().await?;
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains(&format!("task {id}, version 2")), "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_no_event_is_parked_and_everything_else_goes() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let mut told = Told::default();
    deployment.kill_sidecar().await?;
    let database = deployment.database().await?;
    let spoilt = deployment.api.create(&json!({ "title": "spoilt" })).await?;
    let spoilt = spoilt["id"].as_str().context("an id")?;
    told.note(&deployment.api.create(&json!({ "title": "another" })).await?)?;
    // As somebody who writes SQL may leave it.
    database
        .execute("update outbox set payload = 'no JSON' where aggregateid::text = $1", &[&spoilt])
        .await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    parked(&deployment, 1).await?;
    let topic = deployment.topic_reader().await?;
    let records = topic.wait_for(|records| records.len() >= told.events(), LIMIT).await?;
    told.are_once_and_in_order(&records)?;

    let list = String::from_utf8(deployment.operate(&["parked", "list"]).await?.stdout)?;
    assert!(list.contains("a payload that is not JSON") && list.contains(spoilt), "{list}");
    let event_id = list.split_whitespace().next().context("an id")?.to_owned();
    let dropped = deployment.operate(&["parked", "drop", &event_id]).await?;
    assert!(dropped.status.success(), "{dropped:?}");
    assert_eq!(serde_json::from_slice::<Value>(&dropped.stdout)?["event"], "no JSON");
    deployment.outbox_is_empty().await
}
