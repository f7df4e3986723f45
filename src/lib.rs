//! The component: answers `/api/tasks` on PostgreSQL and Redis through Spin's host bindings.
//!
//! A 2xx for a write means that the task and its event are committed; whether Redis, the sidecar or
//! Kafka are up is of no account to it. ARCHITECTURE.md draws the path of a request.

mod api; // HTTP in
mod task; // valid, or refused
mod store; // task and event, one statement
mod cache; // what readers may see
mod forward; // tell the sidecar
mod problem; // what a client is told when something is wrong
mod instance; // what outlives a request
mod config;
mod deadline;
mod log;

use std::cell::RefCell;

use axum::Router;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt as _, Full};
use spin_sdk::http::{IntoResponse as _, Request};
use spin_sdk::wasip3::http::types::{ErrorCode, Response as WasiResponse};
use spin_sdk::wit_bindgen;
use tower_service::Service as _;

thread_local! {
    static ROUTER: RefCell<Router> = RefCell::new(api::router());
}

#[spin_sdk::http_service]
async fn handle(request: Request) -> Result<WasiResponse, ErrorCode> {
    let answer = ROUTER.with(|router| router.borrow_mut().call(request));
    let Ok(response) = answer.await;
    send(response).await
}

/// Hands the response to the host.
///
/// Without a Content-Length it would go out chunked, its terminator in a packet of its own, and Spin
/// does not set TCP_NODELAY: a keep-alive client would wait 40 ms for it. Even with one, head and body
/// are sometimes written apart, with the same wait; the yield lets the write of the body become
/// pending first, so that the host finds both at once (p99 of cached GETs: 7.6 ms instead of 46 ms).
async fn send(response: axum::response::Response) -> Result<WasiResponse, ErrorCode> {
    let (mut parts, body) = response.into_parts();
    let body =
        body.collect().await.map_err(|error| ErrorCode::InternalError(Some(error.to_string())))?.to_bytes();
    if !parts.headers.contains_key(header::CONTENT_LENGTH) {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let response = Response::from_parts(parts, Full::new(body)).into_response()?;
    wit_bindgen::yield_async().await;
    Ok(response)
}
