use anyhow::Result;
use e2e::{Deployment, LIMIT, answer};
use reqwest::StatusCode;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_tasks_are_made_and_published_at_once() -> Result<()> {
    let deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let tasks: Vec<_> = (0..500)
        .map(|number| json!({ "title": format!("task {number}"), "priority": "high", "tags": ["a", "b c"], "due_at": "2027-01-01T00:00:00Z" }))
        .collect();
    let made =
        answer(deployment.api.post("/api/tasks:batch").header("prefer", "wait=30").json(&tasks)).await?;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!(made.header("event-receipt"), Some("published=500"));
    let made = made.json()?;
    let made = made.as_array().unwrap();
    let titles: Vec<_> = made.iter().map(|task| task["title"].clone()).collect();
    assert_eq!(titles, tasks.iter().map(|task| task["title"].clone()).collect::<Vec<_>>());
    let newest: Vec<Value> = made.iter().rev().take(100).cloned().collect();
    assert_eq!(deployment.api.list("?limit=100").await?, newest);
    let records = topic.wait_for(|records| records.len() >= 500, LIMIT).await?;
    assert_eq!(records.len(), 500);
    deployment.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_one_bad_task_makes_none() -> Result<()> {
    let deployment = Deployment::start().await?;
    let body = json!([{ "title": "good" }, { "title": "" }, { "title": "good", "tags": [1] }]);
    let refused = answer(deployment.api.post("/api/tasks:batch").json(&body)).await?;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let problem = refused.json()?;
    let places: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(places, ["/1/title", "/2/tags/0"]);
    for body in [json!([]), json!(vec![json!({ "title": "a" }); 501]), json!({ "title": "a" })] {
        let refused = answer(deployment.api.post("/api/tasks:batch").json(&body)).await?;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(deployment.api.list("").await?.len(), 0);
    Ok(())
}
