//! The component for those who read about the API: `/docs`, `/openapi.json`,
//! `/openapi-3.0.json` and `/asyncapi.json`.
//!
//! All of it is in the component, so that a browser asks no other host; and none of it is in the API's
//! own component, whose instances stay small. Nobody needs a token to read it.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use spin_sdk::http::{FullBody, IntoResponse, Request};
use spin_sdk::http_service;

struct File {
    url: &'static str,
    media_type: &'static str,
    etag: &'static str,
    content: &'static [u8],
}

/// Made by build.rs.
static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// Scripts and styles from here alone; Swagger UI's icons are data: URLs, and some of its styles are
/// attributes.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; \
                                       style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                                       base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    answer(request.method(), request.uri().path(), request.headers())
}

fn answer(method: &Method, path: &str, headers: &HeaderMap) -> Response<FullBody<Bytes>> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let Some(file) = FILES.iter().find(|file| file.url == path) else {
        return problem(StatusCode::NOT_FOUND, r#"{"title": "Not Found", "status": 404}"#);
    };
    if method == Method::OPTIONS {
        return with(StatusCode::NO_CONTENT, &[(ALLOW, "GET, HEAD, OPTIONS")], b"");
    }
    if method != Method::GET && method != Method::HEAD {
        let body = r#"{"title": "Method Not Allowed", "status": 405}"#;
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, body);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
        return response;
    }
    let is_named_by = |name| headers.get_all(name).iter().any(|tags| names(tags, file.etag));
    if headers.contains_key(IF_MATCH) && !is_named_by(IF_MATCH) {
        let body = r#"{"title": "Precondition Failed", "status": 412}"#;
        return problem(StatusCode::PRECONDITION_FAILED, body);
    }
    // Kept by who reads it, and asked for again each time: a 304, unless it has changed.
    let kept = [(ETAG, file.etag), (CACHE_CONTROL, "no-cache")];
    if is_named_by(IF_NONE_MATCH) {
        return with(StatusCode::NOT_MODIFIED, &kept, b"");
    }
    let mut response = with(StatusCode::OK, &kept, file.content);
    for (name, value) in [
        (CONTENT_TYPE, file.media_type),
        (HeaderName::from_static("content-security-policy"), CONTENT_SECURITY_POLICY),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a list of entity tags has this one, weak or strong; `*`, which is all of them, is the
/// whole value (RFC 9110, section 13.1). A tag has no quote in it, so every second part between
/// quotes is one.
fn names(tags: &HeaderValue, etag: &str) -> bool {
    let tags = tags.to_str().unwrap_or_default();
    tags.trim() == "*" || tags.split('"').skip(1).step_by(2).any(|tag| tag == etag.trim_matches('"'))
}

fn problem(status: StatusCode, body: &'static str) -> Response<FullBody<Bytes>> {
    with(status, &[(CONTENT_TYPE, "application/problem+json")], body.as_bytes())
}

fn with(
    status: StatusCode,
    headers: &[(HeaderName, &'static str)],
    body: &'static [u8],
) -> Response<FullBody<Bytes>> {
    let mut response = Response::new(FullBody::new(Bytes::from_static(body)));
    *response.status_mut() = status;
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    response
}
