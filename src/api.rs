//! HTTP in: the routes, and what each of them does from the request to the response.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use send_wrapper::SendWrapper;
use uuid::Uuid;

use crate::cache::{Dropped, Lists};
use crate::config::Config;
use crate::deadline::within;
use crate::instance;
use crate::problem::Problem;
use crate::task::{Invalid, NewTask};

pub const BODY_BYTES_MAX: usize = 64 * 1024;

const LIMIT_DEFAULT: u8 = 20;
const LIMIT_MAX: u8 = 100;

pub fn router() -> Router {
    Router::new()
        .route("/api/tasks", get(|request| local(list(request))).post(|request| local(create(request))))
        .route("/api/tasks/{id}", get(|id| local(read(id))))
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
}

async fn create(request: Request) -> Result<Response, Problem> {
    let instance = instance::get().await?;
    let (parts, body) = request.into_parts();
    expect_json(&parts.headers)?;
    let body = read_body(body, &instance.config).await?;
    let body = serde_json::from_slice(&body).map_err(|error| Problem::Malformed(error.to_string()))?;
    let new = NewTask::parse(body).map_err(Problem::Invalid)?;

    let (task, mut event) = new.create(traceparent(&parts.headers));
    instance.store.insert_task(&task, &event).await?;

    // The change is committed. Nothing below may fail the request: what does not work out now is
    // made up for by the sidecar.
    event.cache_stale = instance.cache.drop_lists().await == Dropped::Left;
    instance.forwarder.forward(event);
    let location = format!("/api/tasks/{}", task.id);
    let body = serde_json::to_vec(&task).expect("a task has only string keys");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], json(body)).into_response())
}

async fn list(request: Request) -> Result<Response, Problem> {
    let limit = parse_limit(request.uri().query().unwrap_or_default()).map_err(Problem::Invalid)?;
    let instance = instance::get().await?;
    let query = format!("limit={limit}");
    let lease = match instance.cache.list(&query).await {
        Lists::Hit(list) => return Ok(json(list)),
        Lists::Miss(lease) => Some(lease),
        Lists::Unavailable => None,
    };
    let list = instance.store.list_tasks(limit).await?;
    if let Some(lease) = lease {
        instance.cache.store_list(lease, &query, &list).await;
    }
    Ok(json(list))
}

async fn read(Path(id): Path<String>) -> Result<Response, Problem> {
    let id = Uuid::try_parse(&id)
        .map_err(|error| Problem::Invalid(vec![Invalid::parameter("id", "type", error.to_string())]))?;
    let instance = instance::get().await?;
    if let Some(task) = instance.cache.task(id).await {
        return Ok(json(task));
    }
    let task = instance.store.select_task(id).await?.ok_or(Problem::NoSuchTask)?;
    instance.cache.store_task(id, &task).await;
    Ok(json(task))
}

/// axum asks for futures that may move between threads. A guest has one thread, and its futures hold
/// `Rc`s; the wrapper would panic on any other thread.
fn local<F: Future>(handler: F) -> SendWrapper<F> {
    SendWrapper::new(handler)
}

fn json(body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.into()).into_response()
}

fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).map(str::trim);
    match essence {
        Some(essence) if essence.eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(Problem::UnsupportedMediaType),
    }
}

async fn read_body(body: Body, config: &Config) -> Result<Bytes, Problem> {
    let collected = within(config.body_timeout, Limited::new(body, BODY_BYTES_MAX).collect())
        .await
        .map_err(|_timed_out| Problem::BodyTimeout)?;
    match collected {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::TooLarge),
        Err(error) => Err(Problem::Incomplete(error.to_string())),
    }
}

/// The request's W3C Trace Context (section 3.2) if it has a well-formed one; the standard says to
/// ignore any other.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let lengths: Vec<usize> = value.split('-').map(str::len).collect();
    let hexadecimal = value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    (lengths == [2, 32, 16, 2] && hexadecimal).then(|| value.to_owned())
}

fn parse_limit(query: &str) -> Result<u8, Vec<Invalid>> {
    let mut limit = LIMIT_DEFAULT;
    let mut invalid = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match (&*name, value.parse()) {
            ("limit", Ok(number)) if (1..=LIMIT_MAX).contains(&number) => limit = number,
            ("limit", _) => {
                invalid.push(Invalid::parameter("limit", "value", "must be a whole number from 1 to 100"));
            }
            (unknown, _) => {
                invalid.push(Invalid::parameter(unknown, "unknown", "unknown parameter; there is limit"));
            }
        }
    }
    if invalid.is_empty() { Ok(limit) } else { Err(invalid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_from_1_to_100() {
        assert_eq!(parse_limit("").unwrap(), 20);
        assert_eq!(parse_limit("limit=1").unwrap(), 1);
        assert_eq!(parse_limit("limit=100").unwrap(), 100);
        for query in ["limit=0", "limit=101", "limit=-1", "limit=", "limit=x", "limit=1.0", "limt=1"] {
            assert_eq!(parse_limit(query).unwrap_err().len(), 1, "{query}");
        }
    }

    #[test]
    fn only_a_well_formed_traceparent_is_passed_on() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_str(value).unwrap());
            traceparent(&headers)
        };
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(with(good).as_deref(), Some(good));
        for bad in ["", "00", &good.to_uppercase(), &good[1..], "00-x-y-01"] {
            assert_eq!(with(bad), None, "{bad}");
        }
    }

    #[test]
    fn json_is_json_with_any_parameters() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            expect_json(&headers).is_ok()
        };
        assert!(with("application/json") && with("Application/JSON; charset=utf-8"));
        assert!(!with("text/plain") && !with("application/x-www-form-urlencoded"));
        assert!(expect_json(&HeaderMap::new()).is_err());
    }
}
