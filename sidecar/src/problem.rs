//! Problem details (RFC 9457): the body of every error that the sidecar answers with.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

pub fn problem(status: StatusCode, detail: &str) -> Response {
    let details = json!({
        "title": status.canonical_reason(), "status": status.as_u16(), "detail": detail
    });
    let mut response = (status, Json(details)).into_response();
    let content_type = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
