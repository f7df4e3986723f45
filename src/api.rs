//! HTTP in: the routes. What each does, from request to response, is a file of its own.

mod create; // POST, one or many
mod read; // GET of one task
mod list; // GET of many
mod change; // PUT, PATCH, DELETE
mod body; // the bytes of a request
mod written; // what every write does after its commit
mod guard; // who may ask

use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use send_wrapper::SendWrapper;
use uuid::Uuid;

use crate::config::Config;
use crate::fields::Invalid;
use crate::headers::etag;
use crate::problem::{self, Problem};

pub fn router(config: &Config) -> Router {
    let router = Router::new()
        .route(
            "/api/tasks",
            get(|request| local(list::list(request))).post(|request| local(create::one(request))),
        )
        .route("/api/tasks:batch", post(|request| local(create::many(request))))
        .route(
            "/api/tasks/{id}",
            get(|id, request| local(read::task(id, request)))
                .put(|id, request| local(change::put(id, request)))
                .patch(|id, request| local(change::patch(id, request)))
                .delete(|id, request| local(change::delete(id, request))),
        )
        .route("/api/tasks/{id}/events", get(|id| local(read::events(id))))
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(not_allowed);
    guard::guarded(router, config)
}

/// An OPTIONS request is answered with the Allow header that axum adds here (RFC 9110, section 9.3.7).
async fn not_allowed(method: Method, uri: Uri) -> Response {
    let is_task = uri.path().strip_prefix("/api/tasks/").is_some_and(|id| !id.contains('/'));
    if method != Method::OPTIONS {
        Problem::MethodNotAllowed.into_response()
    } else if is_task {
        (StatusCode::NO_CONTENT, [problem::accept_patch()]).into_response()
    } else {
        StatusCode::NO_CONTENT.into_response()
    }
}

/// axum asks for futures that may move between threads. A guest has one thread, and its futures hold
/// `Rc`s; the wrapper would panic on any other thread.
fn local<F: Future>(handler: F) -> SendWrapper<F> {
    SendWrapper::new(handler)
}

/// What stands in the path where an id should; a text that is not UTF-8 is refused like any other.
type PathId = Result<Path<String>, PathRejection>;

fn task_id(id: PathId) -> Result<Uuid, Problem> {
    let invalid = |detail| Problem::Invalid(vec![Invalid::parameter("id", "value", detail)]);
    let Path(id) = id.map_err(|rejection| invalid(rejection.body_text()))?;
    Uuid::try_parse(&id).map_err(|error| invalid(error.to_string()))
}

/// A JSON body that clients may keep, if they ask each time whether it is still right.
fn json(body: impl Into<axum::body::Body>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache")),
    ];
    (headers, body.into()).into_response()
}

fn with_etag(version: i64, mut response: Response) -> Response {
    let tag = HeaderValue::from_str(&etag(version)).expect("a number in quotes");
    response.headers_mut().insert(header::ETAG, tag);
    response
}
