use anyhow::Result;
use e2e::{Deployment, LIMIT, answer, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_where_the_event_is() -> Result<()> {
    let deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let request =
        deployment.api.post("/api/tasks").header("prefer", "wait=20").json(&json!({ "title": "a" }));
    let created = answer(request).await?;
    assert_eq!(
        (created.status, created.header("preference-applied")),
        (StatusCode::CREATED, Some("wait=20"))
    );
    let records = topic.wait_for(|records| records.len() == 1, LIMIT).await?;
    let receipt = format!(
        "topic=\"{}\", partition={}, offset={}",
        deployment.topic, records[0].partition, records[0].offset
    );
    assert_eq!(created.header("event-receipt"), Some(receipt.as_str()));

    let id = created.json()?["id"].as_str().unwrap().to_owned();
    let path = format!("/api/tasks/{id}");
    for (method, body, status) in
        [("PATCH", Some(json!({ "title": "b" })), StatusCode::OK), ("DELETE", None, StatusCode::NO_CONTENT)]
    {
        let mut request = deployment.api.request(method, &path)?.header("prefer", "wait=20");
        if let Some(body) = body {
            request = request.json(&body);
        }
        let written = answer(request).await?;
        assert_eq!(written.status, status, "{written:?}");
        assert!(
            written.header("event-receipt").is_some_and(|receipt| receipt.starts_with("topic=")),
            "{written:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_waited_long_enough_is_told_that_the_event_is_pending() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    deployment.kill_sidecar().await?;
    let request = deployment.api.post("/api/tasks").header("prefer", "wait=1").json(&json!({ "title": "a" }));
    let created = answer(request).await?;
    assert_eq!((created.status, created.header("event-receipt")), (StatusCode::CREATED, Some("pending")));

    let id = created.json()?["id"].as_str().unwrap().to_owned();
    let path = format!("/api/tasks/{id}/events");
    let pending = answer(deployment.api.get(&path)).await?.json()?;
    let [event] = pending.as_array().unwrap().as_slice() else { panic!("one event: {pending}") };
    assert_eq!((&event["event_type"], &event["version"]), (&json!("TASK_CREATED"), &json!(1)));
    deployment.start_sidecar(&[])?;
    eventually("nothing is pending", async || {
        Ok((answer(deployment.api.get(&path)).await?.json()? == json!([])).then_some(()))
    })
    .await?;
    let nowhere =
        answer(deployment.api.get("/api/tasks/00000000-0000-7000-8000-000000000000/events")).await?;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_little_gets_little() -> Result<()> {
    let deployment = Deployment::start().await?;
    let minimal = ("prefer", "return=minimal");
    let request =
        deployment.api.post("/api/tasks").header(minimal.0, minimal.1).json(&json!({ "title": "a" }));
    let created = answer(request).await?;
    assert_eq!((created.status, created.body.as_str()), (StatusCode::NO_CONTENT, ""));
    assert_eq!(created.header("preference-applied"), Some("return=minimal"));
    let location = created.header("location").unwrap();
    let request = deployment.api.request("PATCH", location)?.header(minimal.0, minimal.1);
    let changed = answer(request.json(&json!({ "title": "b" }))).await?;
    assert_eq!((changed.status, changed.header("etag")), (StatusCode::NO_CONTENT, Some("\"2\"")));
    let read: Value = answer(deployment.api.get(location)).await?.json()?;
    assert_eq!(read["title"], "b");
    Ok(())
}
