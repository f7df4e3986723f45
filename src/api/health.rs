//! `/healthz` and `/readyz`, for probes and load balancers. Both need no token, so they name no
//! cause: the log has it.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, StatusCode, header};
use serde_json::json;

use crate::instance;
use crate::problem::Problem;

const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// The instance runs and its configuration is valid.
pub(super) async fn alive() -> Result<Response, Problem> {
    instance::get().await?;
    Ok(([NO_STORE], "alive\n").into_response())
}

/// 200 if PostgreSQL answers, since every request needs it. Redis and the sidecar are only reported:
/// without them the API serves reads from PostgreSQL and commits writes.
pub(super) async fn ready() -> Result<Response, Problem> {
    let instance = instance::get().await?;
    let (database, cache, sidecar) =
        futures::join!(instance.store.ping(), instance.cache.is_usable(), instance.forwarder.is_ready());
    let is_ready = match database {
        Ok(()) => true,
        Err(error) => {
            crate::log::warn("not ready", &error);
            false
        }
    };
    let state = |is_up| if is_up { "ok" } else { "unavailable" };
    let checks = json!({ "database": state(is_ready), "cache": state(cache), "sidecar": state(sidecar) });
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": is_ready, "checks": checks }).to_string();
    Ok((status, [(header::CONTENT_TYPE, "application/json"), NO_STORE], body).into_response())
}
