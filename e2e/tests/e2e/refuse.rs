use anyhow::Result;
use e2e::{Deployment, answer};
use reqwest::StatusCode;
use serde_json::{Value, json};

async fn no_task_was_made(deployment: &Deployment) -> Result<()> {
    let database = deployment.database().await?;
    for table in ["tasks", "outbox"] {
        let rows: i64 = database.query_one(&format!("select count(*) from {table}"), &[]).await?.get(0);
        assert_eq!(rows, 0, "{table}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_fields_are_named_each_with_its_reason() -> Result<()> {
    let deployment = Deployment::start().await?;
    for (body, expected) in [
        (json!({}), vec![("/title", "required")]),
        (json!([]), vec![("", "type")]),
        (json!({ "title": "" }), vec![("/title", "length")]),
        (json!({ "title": " \t " }), vec![("/title", "length")]),
        (json!({ "title": "x".repeat(201) }), vec![("/title", "length")]),
        (json!({ "title": 7 }), vec![("/title", "type")]),
        (json!({ "title": "a\u{0}" }), vec![("/title", "value")]),
        (json!({ "title": "a", "description": "x".repeat(10_001) }), vec![("/description", "length")]),
        (json!({ "title": "a", "status": "eaten" }), vec![("/status", "value")]),
        (json!({ "title": "a", "id": "mine" }), vec![("/id", "unknown")]),
        (
            json!({ "status": 1, "description": [], "b": 1, "a": 2 }),
            vec![
                ("/title", "required"),
                ("/description", "type"),
                ("/status", "type"),
                ("/a", "unknown"),
                ("/b", "unknown"),
            ],
        ),
    ] {
        let refused = answer(deployment.api.post("/api/tasks").json(&body)).await?;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {refused:?}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        let problem = refused.json()?;
        let errors: Vec<_> = problem["errors"].as_array().unwrap().iter().collect();
        let named: Vec<_> =
            errors.iter().map(|e| (e["pointer"].as_str().unwrap(), e["code"].as_str().unwrap())).collect();
        assert_eq!(named, expected, "{body}");
        assert!(errors.iter().all(|error| !error["detail"].as_str().unwrap().is_empty()));
    }
    no_task_was_made(&deployment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_of_64_kib_at_most_is_refused() -> Result<()> {
    let deployment = Deployment::start().await?;
    let too_large = format!(r#"{{"title": "a", "description": "{}"}}"#, "x".repeat(64 * 1024));
    for (content_type, body, expected) in [
        ("application/json", "{\"title\": ", StatusCode::BAD_REQUEST),
        ("application/json", "", StatusCode::BAD_REQUEST),
        ("application/json", "{\"title\": \"a\"} {}", StatusCode::BAD_REQUEST),
        ("text/plain", "{\"title\": \"a\"}", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/x-www-form-urlencoded", "title=a", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json", too_large.as_str(), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let request = deployment.api.post("/api/tasks").header("content-type", content_type);
        let refused = answer(request.body(body.to_owned())).await?;
        let start = &body[..body.len().min(40)];
        assert_eq!(refused.status, expected, "{content_type} {start}: {refused:?}");
        assert_problem(&refused.json()?, expected);
    }
    let bytes = b"{\"title\": \"\xff\"}".to_vec();
    let request = deployment.api.post("/api/tasks").header("content-type", "application/json");
    assert_eq!(answer(request.body(bytes)).await?.status, StatusCode::BAD_REQUEST);
    no_task_was_made(&deployment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_ids_are_refused_in_words_for_people() -> Result<()> {
    let deployment = Deployment::start().await?;
    for (body, words) in [
        ("", "the body is empty"),
        ("\u{feff}{\"title\": \"a\"}", "begins with a byte order mark"),
        ("{\"title\": ", "ends before its JSON is complete"),
        ("{\"title\": \"a\"} {}", "line 1, column 16"),
        ("title=a", "line 1, column 2"),
        ("{\"title\": \"a\", \"title\": \"b\"}", "the same name twice"),
    ] {
        for (method, path) in [
            ("POST", "/api/tasks"),
            ("POST", "/api/tasks:batch"),
            ("PUT", "/api/tasks/00000000-0000-7000-8000-000000000000"),
            ("PATCH", "/api/tasks/00000000-0000-7000-8000-000000000000"),
        ] {
            let request = deployment.api.request(method, path)?.header("content-type", "application/json");
            let refused = answer(request.body(body)).await?;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{method} {body}");
            assert!(refused.json()?["detail"].as_str().unwrap().contains(words), "{body}: {refused:?}");
        }
    }
    for id in ["7", "01938a4e-9acc-77c8-b90a", "%FF", "%00"] {
        let refused = answer(deployment.api.get(&format!("/api/tasks/{id}"))).await?;
        let error = &refused.json()?["errors"][0];
        assert_eq!((refused.status, &error["parameter"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("id")));
        assert!(error["detail"].as_str().unwrap().starts_with("must be a UUID such as"), "{error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_problem_details_unless_only_json_is_accepted() -> Result<()> {
    let deployment = Deployment::start().await?;
    for (accept, media_type) in [
        ("application/json", "application/json"),
        ("application/json, application/problem+json;q=0", "application/json"),
        ("*/*", "application/problem+json"),
        // The defaults of axios and of httpie.
        ("application/json, text/plain, */*", "application/problem+json"),
        ("application/json, */*;q=0.5", "application/problem+json"),
        ("application/json;q=0, application/*", "application/problem+json"),
    ] {
        for (request, status) in [
            (deployment.api.post("/api/tasks").json(&json!({})), StatusCode::UNPROCESSABLE_ENTITY),
            (deployment.api.get("/api/nothing"), StatusCode::NOT_FOUND),
        ] {
            let refused = answer(request.header("accept", accept)).await?;
            assert_eq!(
                (refused.status, refused.header("content-type")),
                (status, Some(media_type)),
                "{accept}"
            );
            let body = refused.json()?;
            assert_eq!(body["request_id"].as_str(), refused.header("x-request-id"), "{accept}: {body}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slash_at_the_end_is_redirected_away() -> Result<()> {
    let deployment = Deployment::start().await?;
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let task = "/api/tasks/00000000-0000-7000-8000-000000000000";
    for (method, path, location) in [
        ("GET", "/api/tasks/".to_owned(), "/api/tasks".to_owned()),
        ("GET", "/api/tasks/?limit=1&q=a%20b".to_owned(), "/api/tasks?limit=1&q=a%20b".to_owned()),
        ("POST", "/api/tasks//".to_owned(), "/api/tasks".to_owned()),
        ("POST", "/api/tasks:batch/".to_owned(), "/api/tasks:batch".to_owned()),
        ("PATCH", format!("{task}/"), task.to_owned()),
        ("GET", format!("{task}/events/"), format!("{task}/events")),
    ] {
        let redirect = answer(client.request(method.parse()?, deployment.api.url(&path))).await?;
        assert_eq!(redirect.status, StatusCode::PERMANENT_REDIRECT, "{method} {path}");
        assert_eq!(redirect.header("location"), Some(location.as_str()), "{method} {path}");
    }
    for path in ["//example.com/", "/nothing/"] {
        let missing = answer(client.get(deployment.api.url(path))).await?;
        assert_eq!(missing.status, StatusCode::NOT_FOUND, "{path}");
    }
    let followed = answer(deployment.api.post("/api/tasks/").json(&json!({ "title": "a" }))).await?;
    assert_eq!(followed.status, StatusCode::CREATED, "{followed:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_methods_ids_and_limits_that_are_not_there_are_refused() -> Result<()> {
    let deployment = Deployment::start().await?;
    let unknown_task = "/api/tasks/00000000-0000-7000-8000-000000000000";
    for (method, path, expected) in [
        ("GET", "/docs.html", StatusCode::NOT_FOUND),
        ("POST", "/api/task", StatusCode::NOT_FOUND),
        ("GET", unknown_task, StatusCode::NOT_FOUND),
        ("GET", "/api/tasks/7", StatusCode::UNPROCESSABLE_ENTITY),
        ("GET", "/api/tasks?limit=0", StatusCode::UNPROCESSABLE_ENTITY),
        ("GET", "/api/tasks?limit=101", StatusCode::UNPROCESSABLE_ENTITY),
        ("GET", "/api/tasks?limit=ten", StatusCode::UNPROCESSABLE_ENTITY),
        ("GET", "/api/tasks?limt=10", StatusCode::UNPROCESSABLE_ENTITY),
        ("PUT", "/api/tasks", StatusCode::METHOD_NOT_ALLOWED),
        ("POST", unknown_task, StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let refused = answer(deployment.api.request(method, path)?).await?;
        assert_eq!(refused.status, expected, "{method} {path}: {refused:?}");
        assert_problem(&refused.json()?, expected);
        if expected == StatusCode::METHOD_NOT_ALLOWED {
            let allow = refused.header("allow").expect("Allow (RFC 9110, section 15.5.6)");
            assert!(allow.ends_with(", OPTIONS") && !allow.contains(method), "{method} {path}: {allow}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_request_is_answered_like_a_get_without_its_body() -> Result<()> {
    let deployment = Deployment::start().await?;
    deployment.api.create(&json!({ "title": "a" })).await?;
    let get = answer(deployment.api.get("/api/tasks")).await?;
    let head = answer(deployment.api.request("HEAD", "/api/tasks")?).await?;
    assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
    assert_eq!(head.header("content-length"), get.header("content-length"));
    Ok(())
}

fn assert_problem(problem: &Value, status: StatusCode) {
    assert_eq!(problem["status"], status.as_u16(), "{problem}");
    let title = match status {
        StatusCode::PAYLOAD_TOO_LARGE => Some("Content Too Large"),
        StatusCode::UNPROCESSABLE_ENTITY => Some("Unprocessable Content"),
        _ => status.canonical_reason(),
    };
    assert_eq!(problem["title"].as_str(), title, "RFC 9110's");
    for member in ["title", "detail"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
    }
}
