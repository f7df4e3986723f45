//! Every error that a client can see: problem details (RFC 9457), from one exhaustive match.
//! Causes go to the log and never to the client.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use thiserror::Error;

use crate::api::BODY_BYTES_MAX;
use crate::config::ConfigError;
use crate::log;
use crate::store::StoreError;
use crate::task::Invalid;

/// What a client is asked to wait before it repeats a request.
const RETRY_AFTER_S: u16 = 1;

#[derive(Debug, Error)]
pub enum Problem {
    #[error("the body is not JSON: {0}")]
    Malformed(String),
    #[error("the body did not arrive: {0}")]
    Incomplete(String),
    #[error("there is nothing at this path")]
    NotFound,
    #[error("there is no task with this id")]
    NoSuchTask,
    #[error("this method is not allowed here; the Allow header lists those that are")]
    MethodNotAllowed,
    #[error("the body took too long to arrive")]
    BodyTimeout,
    #[error("the body is larger than {} KiB", BODY_BYTES_MAX / 1024)]
    TooLarge,
    #[error("send the task as application/json")]
    UnsupportedMediaType,
    #[error("the request is not valid; errors lists every reason")]
    Invalid(Vec<Invalid>),
    #[error("the service is not configured")]
    Config(#[from] ConfigError),
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
}

#[derive(Serialize)]
struct Details<'a> {
    title: &'a str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Invalid],
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Problem::Malformed(_) | Problem::Incomplete(_) => StatusCode::BAD_REQUEST,
            Problem::NotFound | Problem::NoSuchTask => StatusCode::NOT_FOUND,
            Problem::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Problem::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Problem::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Problem::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Problem::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Problem::Config(_) | Problem::Store(StoreError::Refused(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            Problem::Store(StoreError::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn detail(&self) -> String {
        match self {
            Problem::Config(_) | Problem::Store(StoreError::Refused(_)) => {
                "something is wrong with this service; its log has the reason".to_owned()
            }
            Problem::Store(StoreError::Unavailable(_)) => {
                "the database cannot be reached at the moment; whether a write took place is not known, \
                 so look before you repeat it"
                    .to_owned()
            }
            told => told.to_string(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            log::error("a request failed", &self);
        }
        let errors = match &self {
            Problem::Invalid(errors) => errors.as_slice(),
            _ => &[],
        };
        let title = status.canonical_reason().unwrap_or_default();
        let details = Details { title, status: status.as_u16(), detail: self.detail(), errors };
        let body = serde_json::to_vec(&details).expect("details have only string keys");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        response
    }
}
