//! Who may ask: bearer tokens (RFC 6750) if any are configured, and pages of other origins (CORS).

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::config::{Config, Origins, TokenHash};
use crate::problem::Problem;

const PREFLIGHT_MAX_AGE_S: u64 = 600;

/// With what the configuration asks for around it, and nothing else: each layer costs every request something.
pub(super) fn guarded(router: Router, config: &Config) -> Router {
    let tokens = &config.api_tokens;
    let router = if tokens.is_empty() {
        router
    } else {
        let tokens = tokens.clone();
        router.layer(from_fn(move |request, next| bearer(tokens.clone(), request, next)))
    };
    match cors(config) {
        Some(cors) => router.layer(cors),
        None => router,
    }
}

async fn bearer(tokens: Arc<[TokenHash]>, request: Request, next: Next) -> Response {
    if is_known(&tokens, request.headers()) {
        next.run(request).await
    } else {
        Problem::Unauthorized.into_response()
    }
}

/// Compares hashes, each with each, in a time that tells nothing of them.
fn is_known(tokens: &[TokenHash], headers: &HeaderMap) -> bool {
    let sent = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let Some((scheme, token)) = sent.split_at_checked(7) else {
        return false;
    };
    let hash = Sha256::digest(token);
    let known = tokens.iter().fold(Choice::from(0), |known, token| known | token.ct_eq(hash.as_slice()));
    scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(known)
}

/// What pages of the configured origins may send and see. Without any, no header of this kind is sent.
fn cors(config: &Config) -> Option<CorsLayer> {
    let origins = match &config.cors_origins {
        Origins::Any => AllowOrigin::any(),
        Origins::Of(none) if none.is_empty() => return None,
        Origins::Of(origins) => AllowOrigin::list(origins.clone()),
    };
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let asked = [
        "authorization",
        "content-type",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "prefer",
        "traceparent",
        "x-request-id",
    ];
    let answered =
        ["etag", "event-receipt", "link", "location", "preference-applied", "retry-after", "x-request-id"];
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods(methods)
        .allow_headers(asked.map(HeaderName::from_static))
        .expose_headers(answered.map(HeaderName::from_static))
        .max_age(std::time::Duration::from_secs(PREFLIGHT_MAX_AGE_S));
    Some(layer)
}
