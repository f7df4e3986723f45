use anyhow::Result;
use e2e::{Deployment, LIMIT, answer};
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn a_created_task_is_stored_answered_and_published() -> Result<()> {
    let deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    let body = json!({
        "title": " Grüße, \"quoted\" 😀 ", "description": "a\nb\tc", "status": "in_progress",
        "priority": "high", "due_at": "2026-12-24T18:00:00.1234567+01:00", "tags": ["home", "{\"a,b"],
    });
    let request = deployment.api.post("/api/tasks").header("traceparent", traceparent);
    let request = request.header("tracestate", "a=1, b=2").header("tracestate", "c=3").json(&body);
    let created = answer(request).await?;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    assert_eq!(created.header("content-type"), Some("application/json"));
    let task = created.json()?;
    let id: Uuid = task["id"].as_str().unwrap().parse()?;
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(created.header("location"), Some(format!("/api/tasks/{id}").as_str()));
    assert_eq!(
        task,
        json!({
            "id": id, "title": "Grüße, \"quoted\" 😀", "description": "a\nb\tc", "status": "in_progress",
            "priority": "high", "due_at": "2026-12-24T17:00:00.123456Z", "tags": ["home", "{\"a,b"],
            "version": 1, "created_at": task["created_at"], "updated_at": task["created_at"],
        })
    );

    // Twice: from the database, then from the cache.
    for _ in 0..2 {
        let read = answer(deployment.api.get(&format!("/api/tasks/{id}"))).await?;
        assert_eq!((read.status, read.json()?), (StatusCode::OK, task.clone()));
    }
    assert_eq!(deployment.api.list("").await?, std::slice::from_ref(&task));
    let row = deployment.database().await?.query_one("select title, version from tasks", &[]).await?;
    assert_eq!((row.get::<_, &str>(0), row.get::<_, i64>(1)), ("Grüße, \"quoted\" 😀", 1));

    let records = topic.wait_for(|records| !records.is_empty(), LIMIT).await?;
    let [record] = &records[..] else { panic!("one record: {records:?}") };
    assert_eq!(record.key, id.to_string());
    assert_eq!(
        serde_json::from_str::<Value>(&record.value)?,
        json!({ "event_type": "TASK_CREATED", "data": task })
    );
    let time = task["created_at"].as_str().unwrap();
    for (name, value) in [
        ("content-type", "application/json"),
        ("ce_specversion", "1.0"),
        ("ce_type", "TASK_CREATED"),
        ("ce_source", "/api/tasks"),
        ("ce_subject", &id.to_string()),
        ("ce_partitionkey", &id.to_string()),
        ("ce_time", time),
        ("ce_sequence", "0000000001"),
        ("traceparent", traceparent),
        ("tracestate", "a=1,b=2,c=3"),
    ] {
        assert_eq!(record.header(name), Some(value), "{name}");
    }
    Uuid::parse_str(record.header("ce_id").unwrap())?;
    deployment.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_a_description_has_null_everywhere() -> Result<()> {
    let deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    assert_eq!((&task["description"], &task["status"]), (&Value::Null, &json!("todo")));
    assert_eq!(
        (&task["due_at"], &task["priority"], &task["tags"]),
        (&Value::Null, &json!("normal"), &json!([]))
    );
    let read = answer(deployment.api.get(&format!("/api/tasks/{}", task["id"].as_str().unwrap()))).await?;
    assert_eq!(read.json()?, task);
    let records = topic.wait_for(|records| !records.is_empty(), LIMIT).await?;
    assert_eq!(serde_json::from_str::<Value>(&records[0].value)?["data"], task);
    assert_eq!((records[0].header("traceparent"), records[0].header("tracestate")), (None, None));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_published_once_and_on_the_partition_of_their_task() -> Result<()> {
    let deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let mut created = Vec::new();
    for number in 0..50 {
        let task = deployment.api.create(&json!({ "title": format!("task {number}") })).await?;
        created.push(task["id"].as_str().unwrap().to_owned());
    }
    deployment.outbox_is_empty().await?;
    let records = topic.wait_for(|records| records.len() >= 50, LIMIT).await?;
    let mut published: Vec<_> = records.iter().map(|record| record.key.clone()).collect();
    published.sort();
    created.sort();
    assert_eq!(published, created);
    let mut partitions: Vec<_> = records.iter().map(|record| record.partition).collect();
    partitions.sort_unstable();
    partitions.dedup();
    assert_eq!(partitions, [0, 1, 2]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_sidecar_publishes_what_it_took_and_exits_in_order() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    for number in 0..20 {
        deployment.api.create(&json!({ "title": format!("task {number}") })).await?;
    }
    let status = deployment.stop_sidecar().await?;
    assert!(status.success(), "{status}");
    // What it did not take any more is published after the next start, and nothing twice.
    deployment.start_sidecar(&[])?;
    deployment.outbox_is_empty().await?;
    let records = topic.wait_for(|records| records.len() >= 20, LIMIT).await?;
    assert_eq!(records.len(), 20);
    Ok(())
}

/// What was committed while the sidecar was away comes from the outbox alone.
#[tokio::test(flavor = "multi_thread")]
async fn every_write_keeps_its_trace_in_the_outbox() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    deployment.stop_sidecar().await?;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let sent = async |method: &str, path: &str, headers: &[(&str, &str)], body: Value| {
        let request = deployment.api.request(method, path)?.header("traceparent", traceparent);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answered = answer(request.json(&body)).await?;
        anyhow::ensure!(answered.status.is_success(), "{method} {headers:?}: {answered:?}");
        anyhow::Ok(answered)
    };
    let (one, many) = (json!({ "title": "traced" }), json!([{ "title": "traced" }]));
    let (tasks, batch) = ("/api/tasks", "/api/tasks:batch");
    let task = sent("POST", tasks, &[("tracestate", "write=create")], one.clone()).await?.json()?;
    let once = |state| [("tracestate", state), ("idempotency-key", "a key")];
    sent("POST", tasks, &once("write=create-once"), one).await?;
    sent("POST", batch, &[("tracestate", "write=batch")], many.clone()).await?;
    sent("POST", batch, &once("write=batch-once"), many).await?;
    let path = format!("{tasks}/{}", task["id"].as_str().unwrap());
    let mut shown =
        sent("PATCH", &path, &[("tracestate", "write=patch")], json!({ "title": "b" })).await?.json()?;
    shown["title"] = json!("c");
    sent("PUT", &path, &[("tracestate", "write=replace")], shown).await?;
    sent("PUT", &path, &[("tracestate", "write=put")], json!({ "title": "d" })).await?;
    // Nothing of the last one is left in the session.
    sent("PATCH", &path, &[], json!({ "title": "e" })).await?;
    sent("DELETE", &path, &[("tracestate", "write=delete")], Value::Null).await?;

    deployment.start_sidecar(&[])?;
    let records = topic.wait_for(|records| records.len() >= 9, LIMIT).await?;
    let mut states: Vec<_> = records.iter().map(|record| record.header("tracestate")).collect();
    states.sort_unstable();
    let expected = [
        None,
        Some("write=batch"),
        Some("write=batch-once"),
        Some("write=create"),
        Some("write=create-once"),
        Some("write=delete"),
        Some("write=patch"),
        Some("write=put"),
        Some("write=replace"),
    ];
    assert_eq!(states, expected);
    assert!(records.iter().all(|record| record.header("traceparent") == Some(traceparent)));
    Ok(())
}
