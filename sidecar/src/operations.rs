//! The pages for operators: is it alive, is it ready, and its metrics. They have a listener of
//! their own, so that no number of senders keeps a probe from its answer; the senders' listener
//! serves them too.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use contract::EVENTS_PATH;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::metrics::{self, Format, Metrics};
use crate::problem::problem;

/// What [`pages`] has, for who asks for something else.
pub const PAGES: &str = "GET /healthz, GET /readyz, GET /metrics";

#[derive(Clone)]
pub struct Operations {
    pub health: Health,
    pub metrics: Metrics,
    pub closing: CancellationToken,
}

pub fn router(operations: Operations) -> Router {
    let metrics = operations.metrics.clone();
    served(pages(operations), PAGES, metrics)
}

/// The pages, for a router that has others too.
pub fn pages(operations: Operations) -> Router {
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(tell_metrics))
        .with_state(operations)
}

/// Says what there is to who asks for something else, and notes the duration of each request.
pub fn served(router: Router, paths: &str, metrics: Metrics) -> Router {
    let other = |status| {
        let detail = format!("This address answers {paths}.");
        async move || problem(status, &detail)
    };
    router
        .fallback(other(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(other(StatusCode::METHOD_NOT_ALLOWED))
        .layer(middleware::from_fn_with_state(metrics, measure))
}

async fn ready(State(operations): State<Operations>) -> Response {
    let mut report = operations.health.report();
    report.ready &= !operations.closing.is_cancelled();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

async fn tell_metrics(State(operations): State<Operations>, headers: HeaderMap) -> Response {
    let format = Format::preferred(&headers);
    match operations.metrics.text(format) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}")),
    }
}

async fn measure(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let http_request_method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "_OTHER",
    };
    let http_route = match request.uri().path() {
        EVENTS_PATH => EVENTS_PATH,
        "/readyz" => "/readyz",
        "/healthz" => "/healthz",
        "/metrics" => "/metrics",
        _ => "",
    };
    let response = next.run(request).await;
    let http_response_status_code = response.status().as_u16();
    let request = metrics::Request { http_request_method, http_route, http_response_status_code };
    metrics.note_request(&request, started.elapsed());
    response
}
