use anyhow::Result;
use e2e::{Answer, Deployment, answer};
use reqwest::StatusCode;
use serde_json::json;

async fn ask(deployment: &Deployment, method: &str, id: &str, header: (&str, &str)) -> Result<Answer> {
    let request = deployment.api.request(method, &format!("/api/tasks/{id}"))?.header(header.0, header.1);
    let request = match method {
        "PATCH" | "PUT" => request.json(&json!({ "title": format!("{} {}", header.0, header.1) })),
        _ => request,
    };
    answer(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_meant_for_another_version_is_refused() -> Result<()> {
    let deployment = Deployment::start().await?;
    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    let id = task["id"].as_str().unwrap();
    for (method, header, expected) in [
        ("PATCH", ("if-match", "\"2\""), StatusCode::PRECONDITION_FAILED),
        ("PATCH", ("if-match", "W/\"1\""), StatusCode::PRECONDITION_FAILED),
        ("PUT", ("if-match", "\"x\""), StatusCode::PRECONDITION_FAILED),
        ("DELETE", ("if-match", "\"7\""), StatusCode::PRECONDITION_FAILED),
        ("PATCH", ("if-none-match", "*"), StatusCode::PRECONDITION_FAILED),
        ("PATCH", ("if-none-match", "\"1\""), StatusCode::PRECONDITION_FAILED),
        ("PATCH", ("if-match", "\"9\", \"1\""), StatusCode::OK),
        ("PUT", ("if-match", "*"), StatusCode::OK),
        ("PATCH", ("if-none-match", "\"1\""), StatusCode::OK),
        ("DELETE", ("if-match", "\"4\""), StatusCode::NO_CONTENT),
        ("PATCH", ("if-match", "\"4\""), StatusCode::NOT_FOUND),
    ] {
        let answered = ask(&deployment, method, id, header).await?;
        assert_eq!(answered.status, expected, "{method} {header:?}: {answered:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_the_version_is_told_so() -> Result<()> {
    let deployment = Deployment::start().await?;
    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    let id = task["id"].as_str().unwrap();
    // The first from the database, the others from the cache.
    for (tag, expected) in [
        ("\"1\"", StatusCode::NOT_MODIFIED),
        ("W/\"1\"", StatusCode::NOT_MODIFIED),
        ("*", StatusCode::NOT_MODIFIED),
        ("\"2\"", StatusCode::OK),
    ] {
        let read = ask(&deployment, "GET", id, ("if-none-match", tag)).await?;
        assert_eq!((read.status, read.header("etag")), (expected, Some("\"1\"")), "{tag}");
    }
    deployment.api.patch(id, &json!({ "title": "b" })).await?;
    let read = ask(&deployment, "GET", id, ("if-none-match", "\"1\"")).await?;
    assert_eq!((read.status, read.header("etag")), (StatusCode::OK, Some("\"2\"")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_demanded_a_write_needs_its_version() -> Result<()> {
    let deployment = Deployment::start_with(&[("require_if_match", "true")]).await?;
    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    let id = task["id"].as_str().unwrap();
    for method in ["PATCH", "PUT", "DELETE"] {
        let refused = ask(&deployment, method, id, ("x-nothing", "to see")).await?;
        assert_eq!(refused.status, StatusCode::PRECONDITION_REQUIRED, "{method}");
    }
    let allowed = ask(&deployment, "DELETE", id, ("if-match", "\"1\"")).await?;
    assert_eq!(allowed.status, StatusCode::NO_CONTENT);
    Ok(())
}
