use anyhow::Result;
use e2e::{Deployment, LIMIT, answer};
use reqwest::StatusCode;
use serde_json::{Value, json};
use xtask::services::TopicRecord;

fn told(record: &TopicRecord) -> Result<(String, String, Value)> {
    let mut envelope: Value = serde_json::from_str(&record.value)?;
    let event_type = envelope["event_type"].as_str().unwrap().to_owned();
    assert_eq!(record.header("ce_type"), Some(event_type.as_str()));
    Ok((event_type, record.header("ce_sequence").unwrap().to_owned(), envelope["data"].take()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_a_version_and_an_event_in_order() -> Result<()> {
    let deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let first = deployment.api.create(&json!({ "title": "a", "description": "b", "tags": ["x"] })).await?;
    let id = first["id"].as_str().unwrap();
    let path = format!("/api/tasks/{id}");

    let patched = deployment.api.patch(id, &json!({ "status": "done", "description": null })).await?;
    assert_eq!((patched.status, patched.header("etag")), (StatusCode::OK, Some("\"2\"")));
    let second = patched.json()?;
    let mut expected = first.clone();
    expected["status"] = "done".into();
    expected["description"] = Value::Null;
    expected["version"] = 2.into();
    expected["updated_at"] = second["updated_at"].clone();
    assert_eq!(second, expected);
    assert!(second["updated_at"].as_str() >= first["updated_at"].as_str());
    assert_eq!(deployment.api.read(id).await?, second);

    let replace = deployment.api.request("PUT", &path)?.json(&json!({ "title": "c", "priority": "low" }));
    let third = answer(replace).await?.json()?;
    let fields = ["title", "description", "status", "priority", "due_at", "tags", "version"];
    let values: Vec<_> = fields.iter().map(|field| third[field].clone()).collect();
    assert_eq!(
        values,
        [json!("c"), Value::Null, json!("todo"), json!("low"), Value::Null, json!([]), json!(3)]
    );

    let deleted = answer(deployment.api.request("DELETE", &path)?).await?;
    assert_eq!((deleted.status, deleted.body.as_str()), (StatusCode::NO_CONTENT, ""));
    for method in ["GET", "DELETE"] {
        let gone = answer(deployment.api.request(method, &path)?).await?;
        assert_eq!(gone.status, StatusCode::NOT_FOUND, "{method}");
    }
    assert_eq!(deployment.api.patch(id, &json!({ "title": "d" })).await?.status, StatusCode::NOT_FOUND);

    let records = topic.wait_for(|records| records.len() >= 4, LIMIT).await?;
    let told: Vec<_> = records.iter().map(told).collect::<Result<_>>()?;
    let event = |name: &str, version, data: &Value| (name.to_owned(), format!("{version:010}"), data.clone());
    assert_eq!(
        told,
        [
            event("TASK_CREATED", 1, &first),
            event("TASK_UPDATED", 2, &second),
            event("TASK_UPDATED", 3, &third),
            event("TASK_DELETED", 4, &third),
        ]
    );
    deployment.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_changes_nothing_makes_no_version_and_no_event() -> Result<()> {
    let deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let due = "2026-12-24T18:00:00Z";
    let task = deployment.api.create(&json!({ "title": "a", "due_at": due, "tags": ["x", "y"] })).await?;
    let id = task["id"].as_str().unwrap();
    for patch in [
        json!({}),
        json!({ "title": " a " }),
        json!({ "due_at": "2026-12-24T19:00:00+01:00", "tags": ["x", "y"] }),
    ] {
        let same = deployment.api.patch(id, &patch).await?;
        assert_eq!((same.status, same.json()?), (StatusCode::OK, task.clone()), "{patch}");
    }
    // An event of the two other patches would be on the topic before this one's.
    deployment.api.patch(id, &json!({ "tags": ["y", "x"] })).await?;
    let records = topic.wait_for(|records| records.len() >= 2, LIMIT).await?;
    let sequences: Vec<_> = records.iter().map(|record| record.header("ce_sequence").unwrap()).collect();
    assert_eq!(sequences, ["0000000001", "0000000002"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_once_are_counted_one_by_one() -> Result<()> {
    const CLIENTS: u64 = 8;
    const CHANGES: u64 = 12;
    let deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let task = deployment.api.create(&json!({ "title": "start" })).await?;
    let id = task["id"].as_str().unwrap().to_owned();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (api, id) = (deployment.api.clone(), id.clone());
            tokio::spawn(async move {
                for change in 0..CHANGES {
                    let changed = api.patch(&id, &json!({ "title": format!("{client}/{change}") })).await?;
                    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for client in clients {
        client.await??;
    }
    let total = CLIENTS * CHANGES + 1;
    assert_eq!(deployment.api.read(&id).await?["version"], total);
    let records = topic.wait_for(|records| records.len() >= total as usize, LIMIT).await?;
    let sequences: Vec<u64> = records
        .iter()
        .map(|record| record.header("ce_sequence").unwrap().parse())
        .collect::<Result<_, _>>()?;
    assert_eq!(sequences, (1..=total).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_change_is_refused_and_changes_nothing() -> Result<()> {
    let deployment = Deployment::start().await?;
    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    let id = task["id"].as_str().unwrap();
    let path = format!("/api/tasks/{id}");
    for (method, content_type, body, expected) in [
        ("PATCH", "application/json", r#"{"title":null}"#, StatusCode::UNPROCESSABLE_ENTITY),
        ("PATCH", "application/json", r#"{"version":7}"#, StatusCode::UNPROCESSABLE_ENTITY),
        ("PATCH", "application/json-patch+json", "[]", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("PUT", "application/merge-patch+json", r#"{"title":"b"}"#, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("PUT", "application/json", r#"{"status":"done"}"#, StatusCode::UNPROCESSABLE_ENTITY),
        ("PUT", "application/json", "nonsense", StatusCode::BAD_REQUEST),
    ] {
        let request = deployment.api.request(method, &path)?.header("content-type", content_type);
        let refused = answer(request.body(body)).await?;
        assert_eq!(refused.status, expected, "{method} {content_type} {body}: {refused:?}");
        let accepted = ["accept", "accept-patch"].map(|name| refused.header(name));
        match (expected, method) {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "PATCH") => {
                assert_eq!(accepted, [None, Some("application/merge-patch+json, application/json")]);
            }
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, _) => assert_eq!(accepted, [Some("application/json"), None]),
            _ => assert_eq!(accepted, [None, None]),
        }
    }
    assert_eq!(deployment.api.read(id).await?, task);
    Ok(())
}
