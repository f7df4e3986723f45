//! The component: answers `/api/tasks` on PostgreSQL and Redis through Spin's host bindings.
//!
//! A 2xx for a write means that the task and its event are committed; whether Redis, the sidecar or
//! Kafka are up is of no account to it. ARCHITECTURE.md walks through a create.

mod api; // routes and handlers
mod headers; // parses preferences, idempotency key and trace context
mod entity_tags; // parses If-Match and If-None-Match
mod query; // parses the query of a list
mod json; // parses a body as plain JSON
mod fields; // parses a task's fields
mod task; // a task and its events
mod store; // PostgreSQL: task and event in one statement
mod cache; // Redis
mod group_commit; // one INSERT for creates that come together
mod forward; // pushes events to the sidecar
mod problem; // errors, as clients see them
mod instance; // what requests of an instance share
mod idle; // ends the instance when it is idle
mod batcher; // groups requests for the host
mod waker; // lets a request wait for another one
mod spawned; // tasks that outlive a request
mod config;
mod deadline;
mod log;
#[cfg(test)]
mod document; // writes openapi.json and asyncapi.json
#[cfg(test)]
mod properties; // property tests of the parsers

use axum::response::IntoResponse as _;
use http::{HeaderName, HeaderValue, Response, header};
use http_body_util::{BodyExt as _, Full};
use spin_sdk::http::Request;
use spin_sdk::wasip3::http::types::{ErrorCode, Response as WasiResponse};
use spin_sdk::wasip3::http_compat::http_into_wasi_response;
use tower_service::Service as _;

use problem::{Accept, Problem};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[spin_sdk::http_service]
async fn handle(request: Request) -> Result<WasiResponse, ErrorCode> {
    let _in_flight = idle::InFlight::new();
    let request_id = headers::request_id(request.headers());
    let accept = Accept::of(request.headers());
    let answer = match instance::get().await {
        Ok(instance) => {
            let answer = instance.router.borrow_mut().call(api::normalized(request));
            let Ok(response) = answer.await;
            api::with_all_allowed(response)
        }
        Err(error) => Problem::Config(error).into_response(),
    };
    let mut response = problem::render(answer, accept, &request_id);
    let id = HeaderValue::from_str(&request_id).expect("a request id is plain text");
    response.headers_mut().insert(X_REQUEST_ID, id);
    send(response).await
}

/// Hands the response to the host.
///
/// Without a Content-Length it would go out chunked, its terminator in a packet of its own, and Spin
/// does not set TCP_NODELAY: a keep-alive client would wait 40 ms for it. Even with one, head and body
/// are sometimes written apart, with the same wait; so the write of the body begins first, and the host finds both at
/// once (p99 of cached GETs: 7.6 ms instead of 46 ms).
async fn send(response: axum::response::Response) -> Result<WasiResponse, ErrorCode> {
    let (mut parts, body) = response.into_parts();
    let body =
        body.collect().await.map_err(|error| ErrorCode::InternalError(Some(error.to_string())))?.to_bytes();
    // A 204 or a 304 has no body, and a length would be wrong (RFC 9110, section 8.6).
    let is_bodiless = matches!(parts.status.as_u16(), 204 | 304);
    if is_bodiless {
        parts.headers.remove(header::CONTENT_LENGTH);
    } else if !parts.headers.contains_key(header::CONTENT_LENGTH) {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let response = http_into_wasi_response(Response::from_parts(parts, Full::new(body)))?;
    spawned::yield_to_spawned_tasks().await;
    Ok(response)
}
