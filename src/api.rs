//! HTTP in: the routes. What each does, from request to response, is a file of its own.

mod create; // POST, one or many
mod read; // GET of one task
mod list; // GET of many
mod change; // PUT, PATCH, DELETE
mod body; // the bytes of a request
mod written; // what every write does after its commit
mod auth; // bearer tokens and CORS
mod health; // whether the instance can serve requests

use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use send_wrapper::SendWrapper;
use uuid::Uuid;

use crate::config::Config;
use crate::entity_tags::etag;
use crate::fields::Invalid;
use crate::problem::{self, Problem};

const TASKS_PATH: &str = "/api/tasks";
const BATCH_PATH: &str = "/api/tasks:batch";

pub fn router(config: &Config) -> Router {
    let router = Router::new()
        .route(
            TASKS_PATH,
            get(|request| local(list::list(request))).post(|request| local(create::one(request))),
        )
        .route(BATCH_PATH, post(|request| local(create::many(request))))
        .route(
            "/api/tasks/{id}",
            get(|id, request| local(read::task(id, request)))
                .put(|id, request| local(change::put(id, request)))
                .patch(|id, request| local(change::patch(id, request)))
                .delete(|id, request| local(change::delete(id, request))),
        )
        .route("/api/tasks/{id}/events", get(|id| local(read::events(id))))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed);
    // Until there is a page for people, the one about the API is the nearest; it needs no token
    // either.
    let to_docs = || get(async || Redirect::temporary("/docs")).fallback(not_allowed);
    auth::protected(router, config)
        .route("/", to_docs())
        .route("/redoc", to_docs())
        .route("/healthz", get(|| local(health::alive())).fallback(not_allowed))
        .route("/readyz", get(|| local(health::ready())).fallback(not_allowed))
}

/// A path with a slash at its end is redirected to the one without, as FastAPI does it. The method
/// and the body stay the same (RFC 9110, section 15.4.9).
async fn not_found(uri: Uri) -> Response {
    let path = uri.path();
    let slashless = path.trim_end_matches('/');
    if path == slashless || !slashless.starts_with(TASKS_PATH) {
        return Problem::NotFound.into_response();
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Redirect::permanent(&format!("{slashless}{query}")).into_response()
}

/// The request with its path spelled as the routes are: a character that needs no encoding is the
/// same one encoded (RFC 3986, section 6.2.2.2), and so is the colon of a batch, which has no
/// meaning of its own in a path.
pub fn normalized<B>(mut request: Request<B>) -> Request<B> {
    if let Some(uri) = normalized_uri(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

/// Nothing if there is nothing to do.
fn normalized_uri(uri: &Uri) -> Option<Uri> {
    let mut segments = uri.path().split('%');
    let mut path = segments.next().unwrap_or_default().to_owned();
    for segment in segments {
        let code = segment.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code.map(char::from) {
            Some(plain @ ('A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '.' | '_' | '~' | ':')) => {
                path.push(plain);
                path.push_str(&segment[2..]);
            }
            _ => path.extend(["%", segment]),
        }
    }
    if path == uri.path() {
        return None;
    }
    let path_and_query = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// axum's Allow header has the methods of a route. OPTIONS is answered on every one of them.
pub fn with_all_allowed(mut response: Response) -> Response {
    if let Some(allow) = response.headers_mut().get_mut(header::ALLOW) {
        let methods = allow.to_str().unwrap_or_default().split(',').chain(["OPTIONS"]);
        let methods = methods.collect::<Vec<_>>().join(", ");
        *allow = HeaderValue::from_str(&methods).expect("names of methods");
    }
    response
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
    let id = id.ok().and_then(|Path(id)| Uuid::try_parse(&id).ok());
    let detail = "must be a UUID such as 01938a4e-9acc-77c8-b90a-92a109b260cb";
    id.ok_or_else(|| Invalid::parameter("id", "value", detail).into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_path_reach_the_same_resource() {
        for (sent, expected) in [
            ("/api/tasks%3Abatch", Some("/api/tasks:batch")),
            ("/%61pi/t%41sks%3abatch?q=%3A", Some("/api/tAsks:batch?q=%3A")),
            ("http://host/api%2Dtasks", Some("http://host/api-tasks")),
            ("/api/tasks:batch?a=%61", None),
            ("/api%2Ftasks", None),
            ("/api/%C3%BC%zz%+1%", None),
        ] {
            let normalized = normalized_uri(&sent.parse().unwrap());
            assert_eq!(normalized, expected.map(|uri| uri.parse().unwrap()), "{sent}");
        }
    }

    #[test]
    fn allow_lists_options_too() {
        let response = with_all_allowed([(header::ALLOW, "GET,HEAD,POST")].into_response());
        assert_eq!(response.headers()[header::ALLOW], "GET, HEAD, POST, OPTIONS");
    }
}
