use anyhow::Result;
use e2e::{Answer, Api, Deployment, answer};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

async fn create(api: &Api, key: &str, task: &Value) -> Result<Answer> {
    answer(api.post("/api/tasks").header("idempotency-key", key).json(task)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_with_the_same_key_makes_one_task() -> Result<()> {
    let deployment = Deployment::start().await?;
    let first = create(&deployment.api, "\"k-1\"", &json!({ "title": "a" })).await?;
    assert_eq!(first.status, StatusCode::CREATED);
    let id = first.json()?["id"].as_str().unwrap().to_owned();
    // The first answer comes again, whatever has become of the task.
    deployment.api.patch(&id, &json!({ "title": "b" })).await?;
    let again = create(&deployment.api, "k-1", &json!({ "title": "a" })).await?;
    assert_eq!(
        (again.status, &again.body, again.header("location"), again.header("etag")),
        (first.status, &first.body, first.header("location"), first.header("etag"))
    );
    assert_eq!(deployment.api.list("").await?.len(), 1);

    let other = create(&deployment.api, "k-1", &json!({ "title": "c" })).await?;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{other:?}");
    assert_eq!(other.json()?["errors"][0]["header"], "Idempotency-Key");
    let fastapi = deployment.api.post("/api/tasks").header("accept", "application/json");
    let fastapi = answer(fastapi.header("idempotency-key", "k-1").json(&json!({ "title": "c" }))).await?;
    assert_eq!(fastapi.json()?["detail"][0]["loc"], json!(["header", "Idempotency-Key"]));
    let new = create(&deployment.api, "k-2", &json!({ "title": "c" })).await?;
    assert_eq!(new.status, StatusCode::CREATED);
    let bad = create(&deployment.api, "", &json!({ "title": "c" })).await?;
    assert_eq!(
        (bad.status, &bad.json()?["errors"][0]["header"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("Idempotency-Key"))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_at_once_makes_one_task() -> Result<()> {
    let deployment = Deployment::start().await?;
    let requests: Vec<_> = (0..12)
        .map(|_| {
            let api = deployment.api.clone();
            tokio::spawn(async move { create(&api, "at-once", &json!({ "title": "a" })).await })
        })
        .collect();
    all_say_the_same(requests).await?;
    assert_eq!(deployment.api.list("").await?.len(), 1);
    deployment.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_in_work_elsewhere_is_a_conflict() -> Result<()> {
    let deployment = Deployment::start().await?;
    // Another request that has taken the key and is not committed: the second one waits for it, and
    // does not see what it leaves.
    let mut other = deployment.database().await?;
    let transaction = other.transaction().await?;
    let take = "insert into idempotency_keys (key, fingerprint, task_id, response, created_at)
                values ('in-work', 'f', '00000000-0000-7000-8000-000000000000', '{}', now())";
    transaction.execute(take, &[]).await?;
    let api = deployment.api.clone();
    let waiting = tokio::spawn(async move { create(&api, "in-work", &json!({ "title": "a" })).await });
    let watcher = deployment.database().await?;
    e2e::eventually("the second request waits for the first", async || {
        let blocked = "select count(*) from pg_stat_activity where datname = current_database()
                       and wait_event_type = 'Lock'";
        Ok((watcher.query_one(blocked, &[]).await?.get::<_, i64>(0) > 0).then_some(()))
    })
    .await?;
    transaction.commit().await?;
    assert_eq!(waiting.await??.status, StatusCode::CONFLICT);
    assert_eq!(deployment.api.list("").await?.len(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_has_had_its_24_hours_is_new_again() -> Result<()> {
    let deployment = Deployment::start().await?;
    create(&deployment.api, "old", &json!({ "title": "a" })).await?;
    let age = "update idempotency_keys set created_at = created_at - interval '25 hours'";
    deployment.database().await?.execute(age, &[]).await?;
    let new = create(&deployment.api, "old", &json!({ "title": "b" })).await?;
    assert_eq!((new.status, &new.json()?["title"]), (StatusCode::CREATED, &json!("b")));
    assert_eq!(deployment.api.list("").await?.len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_removes_keys_that_have_had_their_time() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    create(&deployment.api, "old", &json!({ "title": "a" })).await?;
    create(&deployment.api, "young", &json!({ "title": "b" })).await?;
    let database = deployment.database().await?;
    let age = "update idempotency_keys set created_at = created_at - interval '25 hours' where key = 'old'";
    database.execute(age, &[]).await?;
    deployment.stop_sidecar().await?;
    deployment.start_sidecar(&[])?; // it looks at once, and then every minute
    e2e::eventually("the old key is gone", async || {
        let rows = database.query("select key from idempotency_keys", &[]).await?;
        let keys: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        Ok((keys == ["young"]).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_the_same_key_makes_its_tasks_once() -> Result<()> {
    let deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let ask = async |key: &str, body: &Value| {
        answer(deployment.api.post("/api/tasks:batch").header("idempotency-key", key).json(body)).await
    };
    let first = ask("k", &json!([{ "title": "a" }, { "title": "b" }])).await?;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let again = ask("\"k\"", &json!([{ "title": "a" }, { "title": "b" }])).await?;
    assert_eq!((again.status, &again.body), (StatusCode::CREATED, &first.body));
    let other = ask("k", &json!([{ "title": "a" }])).await?;
    assert_eq!(
        (other.status, &other.json()?["errors"][0]["header"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("Idempotency-Key"))
    );
    assert_eq!(deployment.api.list("").await?.len(), 2);

    // Of another path it is another key.
    let one = create(&deployment.api, "k", &json!({ "title": "c" })).await?;
    assert_eq!(one.status, StatusCode::CREATED, "{one:?}");
    let records = topic.wait_for(|records| records.len() >= 3, e2e::LIMIT).await?;
    assert_eq!(records.len(), 3);
    deployment.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_at_once_makes_its_tasks_once() -> Result<()> {
    let deployment = Deployment::start().await?;
    let tasks: Vec<_> = (0..500).map(|number| json!({ "title": number.to_string() })).collect();
    let requests: Vec<_> = (0..8)
        .map(|_| {
            let request = deployment.api.post("/api/tasks:batch").header("idempotency-key", "k").json(&tasks);
            tokio::spawn(answer(request))
        })
        .collect();
    all_say_the_same(requests).await?;
    let count = "select count(*) from tasks";
    assert_eq!(deployment.database().await?.query_one(count, &[]).await?.get::<_, i64>(0), 500);
    deployment.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_that_take_no_key_refuse_it() -> Result<()> {
    let deployment = Deployment::start().await?;
    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    let path = format!("/api/tasks/{}", task["id"].as_str().unwrap());
    for method in ["PUT", "PATCH", "DELETE"] {
        let request = deployment.api.request(method, &path)?.header("idempotency-key", "k");
        let refused = answer(request.json(&json!({ "title": "b" }))).await?;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{method}");
        let detail = refused.json()?["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with("Idempotency-Key"), "{method}: {detail}");
    }
    assert_eq!(deployment.api.read(task["id"].as_str().unwrap()).await?, task);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_its_token() -> Result<()> {
    // SHA-256 of "one" and of "two".
    let hashes = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed,\
                  3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3";
    let deployment = Deployment::start_with(&[("api_token_hashes", hashes)]).await?;
    for path in ["/api/tasks", "/api/tasks:batch"] {
        let ask = async |token: &str, body: &Value| {
            let request = deployment.api.post(path).bearer_auth(token).header("idempotency-key", "k");
            answer(request.json(body)).await
        };
        let (a, b) = match path {
            "/api/tasks" => (json!({ "title": "a" }), json!({ "title": "b" })),
            _ => (json!([{ "title": "a" }]), json!([{ "title": "b" }])),
        };
        let one = ask("one", &a).await?;
        let two = ask("two", &b).await?;
        assert_eq!((one.status, two.status), (StatusCode::CREATED, StatusCode::CREATED), "{path}: {two:?}");
        assert_eq!(ask("one", &a).await?.body, one.body, "{path}");
        assert_eq!(ask("two", &b).await?.body, two.body, "{path}");
    }
    Ok(())
}

/// Each request is answered that its first answer is not there yet, or with that answer.
async fn all_say_the_same(requests: Vec<JoinHandle<Result<Answer>>>) -> Result<()> {
    let mut made = Vec::new();
    for request in requests {
        let answered = request.await??;
        match answered.status {
            StatusCode::CREATED => made.push(answered.body),
            StatusCode::CONFLICT => assert_eq!(answered.header("retry-after"), Some("1")),
            other => panic!("{other}: {answered:?}"),
        }
    }
    assert!(!made.is_empty() && made.iter().all(|body| *body == made[0]), "{} answers", made.len());
    Ok(())
}
