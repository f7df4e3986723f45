use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::{Deployment, LIMIT, answer};
use reqwest::StatusCode;
use reqwest::redirect::Policy;
use serde_json::{Map, json};

/// More than any answer with 50 errors has.
const ANSWER_BYTES_MAX: usize = 32 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lists_50_errors_and_counts_the_others() -> Result<()> {
    let deployment = Deployment::start().await?;
    let fields: Map<_, _> = (0..290).map(|number| (format!("{number:x}"), json!(1))).collect();
    for (accept, list) in [("*/*", "errors"), ("application/json", "detail")] {
        let request = deployment.api.post("/api/tasks:batch").header("accept", accept);
        let refused = answer(request.json(&vec![&fields; 500])).await?;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(refused.body.len() < ANSWER_BYTES_MAX, "{} bytes", refused.body.len());
        let problem = refused.json()?;
        // And in each task the title is missing.
        assert_eq!(
            (problem[list].as_array().unwrap().len(), &problem["errors_omitted"]),
            (50, &json!(145_450))
        );
    }
    let few = answer(deployment.api.post("/api/tasks").json(&json!({ "x": 1 }))).await?.json()?;
    assert_eq!((few["errors"].as_array().unwrap().len(), few.get("errors_omitted")), (2, None));
    let long = answer(deployment.api.post("/api/tasks").json(&json!({ ("x".repeat(60_000)): 1 }))).await?;
    assert!(long.body.len() < ANSWER_BYTES_MAX, "{} bytes", long.body.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_32_parameters_are_refused() -> Result<()> {
    let deployment = Deployment::start().await?;
    for (query, expected) in [("a&".repeat(33), 1), ("a&".repeat(20_000), 1), ("a&".repeat(32), 32)] {
        let refused = answer(deployment.api.get(&format!("/api/tasks?{query}"))).await?;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(refused.json()?["errors"].as_array().unwrap().len(), expected);
    }
    let long = answer(deployment.api.get(&format!("/api/tasks?{}", "x".repeat(50_000)))).await?;
    assert_eq!(long.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(long.body.len() < ANSWER_BYTES_MAX, "{} bytes", long.body.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn spellings_of_a_path_are_one_resource() -> Result<()> {
    let deployment = Deployment::start().await?;
    let made = answer(deployment.api.post("/api/tasks%3Abatch").json(&json!([{ "title": "a" }]))).await?;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let id = made.json()?[0]["id"].as_str().unwrap().to_owned();
    for path in ["/%61pi/tasks".to_owned(), format!("/api/t%61sks/{}", id.replace('-', "%2D"))] {
        assert_eq!(answer(deployment.api.get(&path)).await?.status, StatusCode::OK, "{path}");
    }
    let other = answer(deployment.api.get("/api%2Ftasks")).await?;
    assert_eq!(other.status, StatusCode::NOT_FOUND, "an encoded slash is no slash");
    let options = answer(deployment.api.request("OPTIONS", &format!("/api/t%61sks/{id}"))?).await?;
    assert!(options.header("accept-patch").is_some(), "{options:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn private_tokens_of_the_json_parser_are_unknown_fields() -> Result<()> {
    let deployment = Deployment::start().await?;
    for token in ["$serde_json::private::RawValue", "$serde_json::private::Number"] {
        let object = json!({ (token): "{\"title\": \"smuggled\"}" });
        for (path, body) in [
            ("/api/tasks", object.clone()),
            ("/api/tasks", json!({ "title": { (token): "\"smuggled\"" } })),
            ("/api/tasks", json!({ "title": "a", "tags": [{ (token): "\"smuggled\"" }] })),
            ("/api/tasks:batch", json!([object.clone()])),
            ("/api/tasks:batch", json!({ (token): "[{\"title\": \"smuggled\"}]" })),
        ] {
            let refused = answer(deployment.api.post(path).json(&body)).await?;
            assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {refused:?}");
        }
    }
    assert_eq!(deployment.api.list("").await?.len(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_an_object_has_twice_is_refused() -> Result<()> {
    let deployment = Deployment::start().await?;
    let request = deployment.api.post("/api/tasks").header("content-type", "application/json");
    let refused = answer(request.body(r#"{"title": "a", "title": "b"}"#)).await?;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_with_a_content_coding_is_refused() -> Result<()> {
    let deployment = Deployment::start().await?;
    for (method, path) in [
        ("POST", "/api/tasks"),
        ("POST", "/api/tasks:batch"),
        ("PUT", "/api/tasks/00000000-0000-7000-8000-000000000000"),
        ("PATCH", "/api/tasks/00000000-0000-7000-8000-000000000000"),
    ] {
        let request = deployment.api.request(method, path)?.header("content-encoding", "gzip");
        let request = request.header("content-type", "application/json").body(vec![0x1f, 0x8b, 8, 0]);
        let refused = answer(request).await?;
        assert_eq!(
            (refused.status, refused.header("accept-encoding")),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, Some("identity")),
            "{method} {path}"
        );
    }
    let request = deployment.api.post("/api/tasks").header("content-encoding", "identity");
    assert_eq!(answer(request.json(&json!({ "title": "a" }))).await?.status, StatusCode::CREATED);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_cursor_is_refused_or_read_as_a_time() -> Result<()> {
    let deployment = Deployment::start().await?;
    deployment.api.create(&json!({ "title": "a", "due_at": "2026-01-01T00:00:00Z" })).await?;
    let id = "00000000-0000-7000-8000-000000000000";
    for (sort, key, expected) in [
        // Times of RFC 3339 that PostgreSQL would refuse.
        ("updated_at", "2026-01-01T00:00:00+20:00", StatusCode::OK),
        ("due_at", "2026-01-01T00:00:00\u{2212}01:00", StatusCode::OK),
        ("created_at", "2026-01-01t00:00:60z", StatusCode::OK),
        ("created_at", "0000-01-01T00:00:00Z", StatusCode::UNPROCESSABLE_ENTITY),
        ("updated_at", "infinity", StatusCode::UNPROCESSABLE_ENTITY),
        ("priority", "+1", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let cursor = json!({ "sort": sort, "key": key, "id": id }).to_string();
        let path = format!("/api/tasks?sort={sort}&cursor={}", URL_SAFE_NO_PAD.encode(cursor));
        let answered = answer(deployment.api.get(&path)).await?;
        assert_eq!(answered.status, expected, "{sort} {key}: {answered:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_valid_traceparent_is_published() -> Result<()> {
    let deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let ids = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
    let sent = [
        (format!("00-{ids}-01"), Some(format!("00-{ids}-01"))),
        (format!("cc-{ids}-09-later"), Some(format!("00-{ids}-01"))),
        (format!("ff-{ids}-01"), None),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01".to_owned(), None),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01".to_owned(), None),
    ];
    let mut expected = Vec::new();
    for (traceparent, published) in &sent {
        let request = deployment.api.post("/api/tasks").header("traceparent", traceparent);
        let created = answer(request.json(&json!({ "title": "a" }))).await?;
        expected.push((created.json()?["id"].as_str().unwrap().to_owned(), published.as_deref()));
    }
    let records = topic.wait_for(|records| records.len() >= sent.len(), LIMIT).await?;
    for (id, published) in expected {
        let record = records.iter().find(|record| record.key == id).context("a record of the task")?;
        assert_eq!(record.header("traceparent"), published);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_and_redoc_lead_to_the_page_for_people() -> Result<()> {
    let hash = "0".repeat(64);
    for tokens in [&[][..], &[("api_token_hashes", hash.as_str())]] {
        let deployment = Deployment::start_with(tokens).await?;
        let client = reqwest::Client::builder().redirect(Policy::none()).timeout(LIMIT).build()?;
        for (method, path) in [("GET", "/"), ("HEAD", "/"), ("GET", "/redoc")] {
            let request = client.request(method.parse()?, deployment.api.url(path));
            let redirect = answer(request).await?;
            assert_eq!(
                (redirect.status, redirect.header("location")),
                (StatusCode::TEMPORARY_REDIRECT, Some("/docs")),
                "{method} {path}"
            );
        }
        let page = answer(deployment.api.get("/")).await?;
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{page:?}");
        let post = answer(deployment.api.post("/")).await?;
        assert_eq!(
            (post.status, post.header("allow")),
            (StatusCode::METHOD_NOT_ALLOWED, Some("GET, HEAD, OPTIONS"))
        );
    }
    Ok(())
}
