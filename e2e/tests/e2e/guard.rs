use anyhow::Result;
use e2e::{Deployment, answer};
use reqwest::StatusCode;
use serde_json::json;

/// SHA-256 of "open sesame".
const HASH: &str = "41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb";

#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_tokens_one_is_needed() -> Result<()> {
    let hashes = format!("{},{HASH}", "0".repeat(64));
    let deployment = Deployment::start_with(&[("api_token_hashes", &hashes)]).await?;
    let none = r#"Bearer realm="tasks""#;
    let wrong = r#"Bearer realm="tasks", error="invalid_token""#;
    for (authorization, expected, challenge) in [
        ("Bearer open sesame", StatusCode::OK, None),
        ("bearer open sesame", StatusCode::OK, None),
        ("Bearer shut", StatusCode::UNAUTHORIZED, Some(wrong)),
        ("Basic open sesame", StatusCode::UNAUTHORIZED, Some(none)),
        ("Bearer", StatusCode::UNAUTHORIZED, Some(none)),
        ("", StatusCode::UNAUTHORIZED, Some(none)),
    ] {
        let request = deployment.api.get("/api/tasks").header("authorization", authorization);
        let answered = answer(request).await?;
        assert_eq!(answered.status, expected, "{authorization}");
        assert_eq!(answered.header("www-authenticate"), challenge, "{authorization}");
    }
    let refused = answer(deployment.api.post("/api/tasks").json(&json!({ "title": "a" }))).await?;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let authorized = deployment.api.get("/api/tasks").bearer_auth("open sesame");
    assert_eq!(answer(authorized).await?.json()?, json!([]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_the_configured_origins_may_ask() -> Result<()> {
    let deployment =
        Deployment::start_with(&[("cors_origins", "https://app.example,https://other.example")]).await?;
    for (origin, allowed) in [("https://app.example", true), ("https://evil.example", false)] {
        let preflight = deployment
            .api
            .request("OPTIONS", "/api/tasks")?
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type");
        let answered = answer(preflight).await?;
        assert!(answered.status.is_success(), "{answered:?}");
        assert_eq!(answered.header("access-control-allow-origin") == Some(origin), allowed, "{origin}");
        let asked = answer(deployment.api.get("/api/tasks").header("origin", origin)).await?;
        assert_eq!(asked.header("access-control-allow-origin") == Some(origin), allowed, "{origin}");
    }
    // An error is an answer too.
    let missing = answer(deployment.api.get("/nowhere").header("origin", "https://app.example")).await?;
    assert_eq!(missing.header("access-control-allow-origin"), Some("https://app.example"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_cors_only_a_preflight_is_a_preflight() -> Result<()> {
    let deployment = Deployment::start_with(&[("cors_origins", "https://app.example")]).await?;
    let (origin, method) = (("origin", "https://app.example"), ("access-control-request-method", "POST"));
    for headers in [&[][..], &[origin], &[method]] {
        for (path, expected) in [("/api/tasks", StatusCode::NO_CONTENT), ("/nowhere", StatusCode::NOT_FOUND)]
        {
            let mut options = deployment.api.request("OPTIONS", path)?;
            for (name, value) in headers {
                options = options.header(*name, *value);
            }
            let answered = answer(options).await?;
            assert_eq!(answered.status, expected, "{path} {headers:?}");
            let allow = (expected == StatusCode::NO_CONTENT).then_some("GET, HEAD, POST, OPTIONS");
            assert_eq!(answered.header("allow"), allow, "{path} {headers:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_resource_allows_can_be_asked() -> Result<()> {
    let deployment = Deployment::start().await?;
    let options = answer(deployment.api.request("OPTIONS", "/api/tasks")?).await?;
    assert_eq!(options.status, StatusCode::NO_CONTENT);
    assert_eq!(options.header("allow"), Some("GET, HEAD, POST, OPTIONS"));
    assert_eq!(options.header("access-control-allow-origin"), None);
    assert_eq!(options.header("accept-patch"), None);
    let task = "/api/tasks/00000000-0000-7000-8000-000000000000";
    let options = answer(deployment.api.request("OPTIONS", task)?).await?;
    assert_eq!(options.header("accept-patch"), Some("application/merge-patch+json, application/json"));
    let events = answer(deployment.api.request("OPTIONS", &format!("{task}/events"))?).await?;
    assert_eq!((events.status, events.header("accept-patch")), (StatusCode::NO_CONTENT, None));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_an_id_in_its_answer_and_in_the_log() -> Result<()> {
    let deployment = Deployment::start().await?;
    let mine = answer(deployment.api.get("/nowhere").header("x-request-id", "mine-1")).await?;
    assert_eq!(mine.header("x-request-id"), Some("mine-1"));
    assert_eq!(mine.json()?["request_id"], "mine-1");
    let given = answer(deployment.api.get("/api/tasks")).await?;
    uuid::Uuid::parse_str(given.header("x-request-id").unwrap())?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_come_in_fastapis_form_for_who_asks_for_it() -> Result<()> {
    let deployment = Deployment::start().await?;
    let request =
        deployment.api.post("/api/tasks").header("accept", "application/json").json(&json!({ "x": 1 }));
    let refused = answer(request).await?;
    assert_eq!(
        (refused.status, refused.header("content-type")),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("application/json"))
    );
    let detail = &refused.json()?["detail"];
    assert_eq!((&detail[0]["loc"], &detail[0]["type"]), (&json!(["body", "title"]), &json!("required")));
    assert_eq!(detail[1]["loc"], json!(["body", "x"]));
    Ok(())
}
