//! Bearer tokens (RFC 6750), if any are configured, and CORS.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, Method, header};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_service::Service as _;

use crate::config::{Config, Origins, TokenHash};
use crate::headers::single;
use crate::problem::Problem;

const PREFLIGHT_MAX_AGE_S: u64 = 600;

/// The token of the request. An open API has none.
#[derive(Clone)]
pub(super) struct Token(pub TokenHash);

/// Adds only the layers that the configuration needs, because each costs every request something.
pub(super) fn protected(router: Router, config: &Config) -> Router {
    let tokens = &config.api_tokens;
    let router = if tokens.is_empty() {
        router
    } else {
        let tokens = tokens.clone();
        router.layer(from_fn(move |request, next| bearer(tokens.clone(), request, next)))
    };
    match cors(config) {
        // The layer takes every OPTIONS request for a preflight.
        Some(cors) => {
            let without_cors = router.clone();
            router.layer(cors).layer(from_fn(move |request: Request, next: Next| {
                let mut without_cors = without_cors.clone();
                async move {
                    if request.method() == Method::OPTIONS && !is_preflight(request.headers()) {
                        without_cors.call(request).await.into_response()
                    } else {
                        next.run(request).await
                    }
                }
            }))
        }
        None => router,
    }
}

/// Fetch standard, section 3.3.2.
fn is_preflight(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

async fn bearer(tokens: Arc<[TokenHash]>, mut request: Request, next: Next) -> Response {
    let Some(sent) = sent(request.headers()) else {
        return Problem::Unauthorized.into_response();
    };
    if is_known(&tokens, &sent) {
        request.extensions_mut().insert(Token(sent));
        next.run(request).await
    } else {
        Problem::InvalidToken.into_response()
    }
}

/// The hash of the token that a request has, if it has one.
fn sent(headers: &HeaderMap) -> Option<TokenHash> {
    let (scheme, token) = single(headers, "authorization")?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| Sha256::digest(token).into())
}

/// Compares hashes, each with each, in a time that tells nothing of them.
fn is_known(tokens: &[TokenHash], sent: &TokenHash) -> bool {
    tokens.iter().fold(Choice::from(0), |known, token| known | token.ct_eq(sent)).into()
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
        "tracestate",
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
