//! HTTP in: forwards from the component. A forward is taken whole or not at all; one that is not
//! taken costs time only, since its events are in the outbox.

mod forward; // what was sent

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use contract::{EVENTS_PATH, Receipt, Receipts};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::Secret;
use crate::lanes::{Role, Roles};
use crate::metrics::Metrics;
use crate::offered::{Companion, Offered, event_bytes};
use crate::operations::{self, Operations};
use crate::problem::problem;
use crate::repair::Repair;

/// The component sends up to 512 KiB of payloads at once, and the rest of each event on top.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// For a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a sender is asked to wait after a 503.
const RETRY_AFTER_S: u16 = 1;

#[derive(Clone)]
pub struct Ingest {
    pub token: Secret,
    pub topic: String,
    pub roles: Roles,
    /// Notified when there is something for the sidecar that publishes.
    pub wake_publisher: Arc<Notify>,
    /// Bytes that forwarded events may still occupy.
    pub budget: Arc<Semaphore>,
    pub repair: Repair,
    pub metrics: Metrics,
    pub closing: CancellationToken,
}

#[derive(Debug, Error)]
enum Refused {
    #[error("a bearer token is needed: SIDECAR_TOKEN, which the component knows as sidecar_token")]
    Unauthorized,
    #[error("{0}")]
    Body(String, StatusCode),
    #[error("the body did not arrive within {BODY_TIMEOUT:?}")]
    Late,
    #[error(transparent)]
    Invalid(#[from] forward::Invalid),
    #[error("the queue is full; the events are in the outbox and will be published from there")]
    Full,
    #[error("not ready to publish; the events are in the outbox and will be published from there")]
    NotReady,
}

/// Forwards, and the pages for operators beside them.
pub fn router(ingest: Ingest, operations: Operations) -> Router {
    let metrics = operations.metrics.clone();
    let forwards = Router::new()
        .route(EVENTS_PATH, post(take))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(ingest);
    let paths = format!("POST {EVENTS_PATH}, {}", operations::PAGES);
    operations::served(forwards.merge(operations::pages(operations)), &paths, metrics)
}

async fn take(State(ingest): State<Ingest>, request: Request) -> Result<Response, Refused> {
    // Before anything of the body is in memory.
    authorize(request.headers(), &ingest.token)?;
    ingest.metrics.note_dropped(forward::dropped(request.headers()));
    forward::expect(request.headers())?;
    let wait = forward::wait(request.headers());
    let body = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &()))
        .await
        .map_err(|_elapsed| Refused::Late)?
        .map_err(|rejection| Refused::Body(rejection.body_text(), rejection.status()))?;
    let events = forward::events(&body)?;
    drop(body);
    // Redis is told what it missed whatever becomes of the events, and at once.
    for event in events.iter().filter(|event| event.cache_stale) {
        ingest.metrics.invalidation_requests.inc();
        ingest.repair.request(event.task_id);
    }
    let lanes = match ingest.roles.get() {
        Role::Publishing(lanes) if !ingest.closing.is_cancelled() => lanes,
        Role::Standby if !ingest.closing.is_cancelled() => {
            ingest.wake_publisher.notify_one();
            return Ok(StatusCode::ACCEPTED.into_response());
        }
        Role::Starting | Role::Standby | Role::Publishing(_) => return Err(Refused::NotReady),
    };
    let bytes: usize = events.iter().map(event_bytes).sum();
    let bytes = u32::try_from(bytes).map_err(|_too_large| Refused::Full)?;
    let mut budget =
        Arc::clone(&ingest.budget).try_acquire_many_owned(bytes).map_err(|_no_permits| Refused::Full)?;
    let mut waiting = Vec::new();
    for event in events {
        let event_id = event.id;
        let hold = budget.split(event_bytes(&event));
        let (receipt, offset) = wait.map(|_| oneshot::channel()).unzip();
        let partition = lanes.of_task(event.task_id);
        let companion = Companion { hold, receipt };
        lanes.offer(partition, Offered { event, oldest: false, seq: None, companion });
        waiting.extend(offset.map(|offset| Waiting { event_id, partition, offset }));
    }
    match wait {
        Some(wait) => Ok(Json(collect(waiting, &ingest.topic, wait).await).into_response()),
        None => Ok(StatusCode::ACCEPTED.into_response()),
    }
}

/// An event that was handed over, and where its offset will come.
struct Waiting {
    event_id: Uuid,
    partition: u32,
    offset: oneshot::Receiver<i64>,
}

/// The receipts that came within the wait.
async fn collect(waiting: Vec<Waiting>, topic: &str, wait: Duration) -> Receipts {
    let deadline = tokio::time::Instant::now() + wait;
    let mut receipts = Vec::with_capacity(waiting.len());
    for Waiting { event_id, partition, offset } in waiting {
        if let Ok(Ok(offset)) = tokio::time::timeout_at(deadline, offset).await {
            receipts.push(Receipt { event_id, topic: topic.to_owned(), partition, offset });
        }
    }
    Receipts { receipts }
}

fn authorize(headers: &HeaderMap, token: &Secret) -> Result<(), Refused> {
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    match sent {
        Some(sent) if bool::from(sent.ct_eq(token.expose().as_bytes())) => Ok(()),
        _ => Err(Refused::Unauthorized),
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self {
            Refused::Unauthorized => StatusCode::UNAUTHORIZED,
            Refused::Body(_, status) => status,
            Refused::Late => StatusCode::REQUEST_TIMEOUT,
            Refused::Invalid(forward::Invalid::MediaType) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refused::Invalid(forward::Invalid::Malformed(_)) => StatusCode::BAD_REQUEST,
            Refused::Invalid(forward::Invalid::TooMany) => StatusCode::PAYLOAD_TOO_LARGE,
            Refused::Full | Refused::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = problem(status, &self.to_string());
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, header::HeaderValue::from(RETRY_AFTER_S));
        }
        response
    }
}
