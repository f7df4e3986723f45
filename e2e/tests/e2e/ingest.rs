use anyhow::Result;
use e2e::{Deployment, Services, answer};
use reqwest::StatusCode;

const BATCH: &str = "application/cloudevents-batch+json";

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_takes_only_batches_of_events_from_who_knows_the_token() -> Result<()> {
    let mut deployment = Deployment::prepare(&Services::shared()?).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    let token = deployment.sidecar_token();
    let not_events = format!("[{}]", ["{}"; 10].join(","));
    let too_large = format!("[{}]", " ".repeat(5 * 1024 * 1024));
    for (token, content_type, body, expected) in [
        ("wrong", BATCH, "[]", StatusCode::UNAUTHORIZED),
        ("", BATCH, "[]", StatusCode::UNAUTHORIZED),
        (token, "application/json", "[]", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (token, BATCH, "{}", StatusCode::BAD_REQUEST),
        (token, BATCH, "[{\"specversion\": \"1.0\"}]", StatusCode::BAD_REQUEST),
        (token, BATCH, &not_events, StatusCode::BAD_REQUEST),
        (token, BATCH, &too_large, StatusCode::PAYLOAD_TOO_LARGE),
        (token, BATCH, "[]", StatusCode::ACCEPTED),
    ] {
        let request = deployment.sidecar_api()?.post("/events").bearer_auth(token);
        let response = answer(request.header("content-type", content_type).body(body.to_owned())).await?;
        assert_eq!(response.status, expected, "{content_type} {}: {response:?}", &body[..body.len().min(40)]);
        if expected == StatusCode::UNAUTHORIZED {
            assert_eq!(response.header("www-authenticate"), Some("Bearer"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_that_start_together_apply_the_migrations_one_after_the_other() -> Result<()> {
    let services = Services::shared()?;
    let mut one = Deployment::prepare(&services).await?;
    let mut other = Deployment::prepare(&services).await?;
    other.database_url.clone_from(&one.database_url);
    other.topic.clone_from(&one.topic);
    one.start_sidecar(&[])?;
    other.start_sidecar(&[])?;
    one.sidecar_is_ready().await?;
    other.sidecar_is_ready().await
}
