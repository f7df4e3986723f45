//! Every error that a client can see, from one exhaustive match: problem details (RFC 9457), or what
//! FastAPI would answer for clients that ask for it. Causes go to the log and never to the client.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use thiserror::Error;
use utoipa::ToSchema;

use crate::config::ConfigError;
use crate::entity_tags::Unmet;
use crate::fields::{Errors, Invalid, Place};
use crate::headers::parts;
use crate::json::NotJson;
use crate::log;
use crate::store::StoreError;

/// What a client is asked to wait before it repeats a request.
const RETRY_AFTER_S: u16 = 1;

/// What a PATCH may be sent as.
pub const PATCH_MEDIA_TYPES: &[&str] = &["application/merge-patch+json", "application/json"];
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// RFC 6750, section 3: a challenge has a parameter, and an error only if there was a token.
pub const CHALLENGE: &str = r#"Bearer realm="tasks""#;
pub const CHALLENGE_AFTER_A_TOKEN: &str = r#"Bearer realm="tasks", error="invalid_token""#;

#[derive(Debug, Error)]
pub enum Problem {
    #[error("{0}")]
    Malformed(#[from] NotJson),
    /// With the host's words, which are for the log.
    #[error("the connection ended before the whole body had arrived")]
    Incomplete(String),
    #[error("a bearer token is needed (RFC 6750)")]
    Unauthorized,
    #[error("this bearer token is not known")]
    InvalidToken,
    #[error("Idempotency-Key is for POST; make this request conditional with If-Match instead")]
    UnexpectedIdempotencyKey,
    #[error("there is nothing at this path")]
    NotFound,
    #[error("there is no task with this id")]
    NoSuchTask,
    #[error("this method is not allowed here; the Allow header lists those that are")]
    MethodNotAllowed,
    #[error("the body took too long to arrive")]
    BodyTimeout,
    #[error("the first request with this Idempotency-Key is still in work")]
    InWork,
    #[error("{0}")]
    PreconditionFailed(Unmet),
    #[error("the body is larger than {0} KiB")]
    TooLarge(usize),
    #[error("send the body as {}", .0.join(" or "))]
    UnsupportedMediaType(&'static [&'static str]),
    #[error("send the body as it is, without a Content-Encoding")]
    UnsupportedEncoding,
    #[error("the request is not valid; errors lists the reasons")]
    Invalid(Errors),
    #[error("a write needs If-Match with the version that it is meant for")]
    PreconditionRequired,
    #[error("the service is not configured")]
    Config(#[from] ConfigError),
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Problem::Invalid(invalid.into())
    }
}

/// An error on its way to [`render`], which knows what the client wants to read.
#[derive(Clone)]
struct Stashed(Arc<Problem>);

/// RFC 9457, section 3.1, and three members of our own.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem, description = "Problem details (RFC 9457), with three members of our own.")]
pub struct Details<'a> {
    #[schema(examples("Unprocessable Content"))]
    title: &'a str,
    #[schema(minimum = 400, maximum = 599, examples(422))]
    status: u16,
    /// For people.
    detail: String,
    /// Stands in the service's log as well.
    request_id: &'a str,
    /// What is wrong with the request, up to 50 reasons; of a 422 only.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [Invalid],
    /// How many reasons there are beyond those in `errors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, nullable = false)]
    errors_omitted: Option<usize>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(Stashed(Arc::new(self)));
        response
    }
}

/// Fills in the body of an error, and logs what is a failure of ours.
pub fn render(mut response: Response, accept: Accept, request_id: &str) -> Response {
    let Some(Stashed(problem)) = response.extensions_mut().remove() else {
        return response;
    };
    let status = response.status();
    if status.is_server_error() {
        log::error("a request failed", request_id, &*problem);
    }
    let (media_type, body) = match accept {
        Accept::Problem => ("application/problem+json", problem.details(request_id)),
        Accept::FastApi => ("application/json", problem.as_fastapi(request_id)),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    }
    match &*problem {
        Problem::Unauthorized => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        Problem::InvalidToken => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE_AFTER_A_TOKEN));
        }
        Problem::UnsupportedMediaType(media_types) => headers.extend([accepted(media_types)]),
        Problem::UnsupportedEncoding => {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        _ => {}
    }
    headers.remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(body.to_string());
    response
}

/// What is taken instead (RFC 9110, section 15.5.16), of a PATCH as RFC 5789, section 2.2, has it.
fn accepted(media_types: &'static [&'static str]) -> (HeaderName, HeaderValue) {
    let name = if media_types == PATCH_MEDIA_TYPES { ACCEPT_PATCH } else { header::ACCEPT };
    (name, HeaderValue::from_str(&media_types.join(", ")).expect("names of media types"))
}

/// Says to who asks what a task can be patched with (RFC 5789, section 3.1).
pub fn accept_patch() -> (HeaderName, HeaderValue) {
    accepted(PATCH_MEDIA_TYPES)
}

/// In what form a client reads errors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Accept {
    Problem,
    FastApi,
}

impl Accept {
    /// Problem details for every client that accepts them, or that accepts neither form. FastAPI's
    /// form for a client that accepts `application/json` alone.
    pub fn of(headers: &HeaderMap) -> Accept {
        let values: Vec<_> =
            headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        if accepts(&values, "json") && !accepts(&values, "problem+json") {
            Accept::FastApi
        } else {
            Accept::Problem
        }
    }
}

/// Whether Accept takes `application/` with this subtype: the most specific range decides, with a
/// weight of 0 for no (RFC 9110, section 12.5.1). A range with parameters is of another media type.
fn accepts(values: &[&str], subtype: &str) -> bool {
    let ranges = values.iter().flat_map(|value| parts(value, ','));
    let decisions = ranges.filter_map(|range| {
        let mut parts = parts(range, ';').map(str::trim);
        let specificity = match parts.next()?.to_ascii_lowercase().split_once('/')? {
            ("*", "*") => 0,
            ("application", "*") => 1,
            ("application", range) if range == subtype => 2,
            _ => return None,
        };
        let weight = match parts.next() {
            None => 1.0,
            Some(parameter) => parameter.to_ascii_lowercase().strip_prefix("q=")?.parse::<f32>().ok()?,
        };
        Some((specificity, weight > 0.0))
    });
    decisions.max_by_key(|(specificity, _)| *specificity).is_some_and(|(_, is_accepted)| is_accepted)
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Problem::Malformed(_) | Problem::Incomplete(_) | Problem::UnexpectedIdempotencyKey => {
                StatusCode::BAD_REQUEST
            }
            Problem::Unauthorized | Problem::InvalidToken => StatusCode::UNAUTHORIZED,
            Problem::NotFound | Problem::NoSuchTask => StatusCode::NOT_FOUND,
            Problem::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Problem::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Problem::InWork => StatusCode::CONFLICT,
            Problem::PreconditionFailed(_) => StatusCode::PRECONDITION_FAILED,
            Problem::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Problem::UnsupportedMediaType(_) | Problem::UnsupportedEncoding => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Problem::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Problem::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
            Problem::Config(_) | Problem::Store(StoreError::Refused(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            Problem::Store(StoreError::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn detail(&self) -> String {
        match self {
            Problem::Config(_) | Problem::Store(StoreError::Refused(_)) => {
                "something is wrong with this service; its log has the reason under the request's id"
                    .to_owned()
            }
            Problem::Store(StoreError::Unavailable(_)) => {
                "the database cannot be reached, or cannot do it at the moment; whether a write took place is not \
                 known, so look before you repeat it, or repeat it with its Idempotency-Key"
                    .to_owned()
            }
            told => told.to_string(),
        }
    }

    fn errors(&self) -> (&[Invalid], Option<usize>) {
        match self {
            Problem::Invalid(errors) => (errors.listed(), Some(errors.omitted()).filter(|count| *count > 0)),
            _ => (&[], None),
        }
    }

    fn details(&self, request_id: &str) -> Value {
        let status = self.status();
        let (errors, errors_omitted) = self.errors();
        json!(Details {
            title: title(status),
            status: status.as_u16(),
            detail: self.detail(),
            request_id,
            errors,
            errors_omitted,
        })
    }

    /// `detail` is a text. Of a 422 it is a list of what is wrong, each with where it is.
    /// `request_id` and `errors_omitted` are those of [`Details`].
    fn as_fastapi(&self, request_id: &str) -> Value {
        let item = |invalid: &Invalid| {
            let loc: Vec<Value> = match &invalid.place {
                Place::Parameter(name) if name == "id" => vec!["path".into(), name.as_str().into()],
                Place::Parameter(name) => vec!["query".into(), name.as_str().into()],
                Place::Header(name) => vec!["header".into(), name.as_str().into()],
                Place::Pointer(pointer) => {
                    let steps = pointer.split('/').skip(1).map(|step| match step.parse::<u64>() {
                        Ok(index) => index.into(),
                        Err(_) => step.replace("~1", "/").replace("~0", "~").into(),
                    });
                    std::iter::once("body".into()).chain(steps).collect()
                }
            };
            json!({ "loc": loc, "msg": invalid.detail, "type": invalid.code })
        };
        let (errors, omitted) = self.errors();
        let detail = match errors {
            [] => json!(self.detail()),
            errors => errors.iter().map(item).collect(),
        };
        let mut body = json!({ "detail": detail, "request_id": request_id });
        if let Some(omitted) = omitted {
            body["errors_omitted"] = json!(omitted);
        }
        body
    }
}

/// The reason phrase of RFC 9110, section 15; `http` has those of older standards for two of them.
fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "Content Too Large",
        StatusCode::UNPROCESSABLE_ENTITY => "Unprocessable Content",
        _ => status.canonical_reason().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_problem_details_unless_only_json_is_accepted() {
        let of = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            Accept::of(&headers)
        };
        for accept in [
            "application/json",
            "text/html, Application/JSON;q=0.9",
            "application/json;q=0.5",
            "application/json, application/problem+json;q=0",
            "application/*, application/problem+json;q=0",
        ] {
            assert_eq!(of(accept), Accept::FastApi, "{accept}");
        }
        for accept in [
            "*/*",
            "application/*",
            "application/problem+json",
            "application/json, application/problem+json",
            // The defaults of axios and of httpie.
            "application/json, text/plain, */*",
            "application/json, */*;q=0.5",
            "application/json;q=0, application/*",
            "application/json;profile=x",
            "application/json;q=loud",
            r#"text/html;x=", application/json""#,
            "text/html",
            "",
        ] {
            assert_eq!(of(accept), Accept::Problem, "{accept}");
        }
        assert_eq!(Accept::of(&HeaderMap::new()), Accept::Problem);
    }

    #[test]
    fn titles_are_those_of_rfc_9110() {
        let of = |problem: Problem| problem.details("")["title"].clone();
        assert_eq!(of(Problem::TooLarge(64)), "Content Too Large");
        assert_eq!(of(Problem::Invalid(Errors::default())), "Unprocessable Content");
        assert_eq!(of(Problem::NoSuchTask), "Not Found");
    }

    #[test]
    fn an_answer_lists_50_errors_and_counts_the_rest() {
        let mut errors = Errors::default();
        for number in 0..70 {
            errors.push(|| Invalid::parameter(&number.to_string(), "unknown", "no"));
        }
        let problem = Problem::Invalid(errors);
        let details = problem.details("");
        assert_eq!(
            (details["errors"].as_array().unwrap().len(), &details["errors_omitted"]),
            (50, &json!(20))
        );
        let fastapi = problem.as_fastapi("a");
        assert_eq!(
            (fastapi["detail"].as_array().unwrap().len(), &fastapi["errors_omitted"]),
            (50, &json!(20))
        );
    }

    #[test]
    fn fastapis_form_names_places_its_own_way() {
        let invalid = |place| Invalid { place, detail: "no".into(), code: "value" };
        let mut errors = Errors::default();
        errors.push(|| invalid(Place::Pointer("/0/a~1b".into())));
        errors.push(|| invalid(Place::Parameter("limit".into())));
        let problem = Problem::Invalid(errors);
        assert_eq!(
            problem.as_fastapi("a"),
            json!({ "request_id": "a", "detail": [
                { "loc": ["body", 0, "a/b"], "msg": "no", "type": "value" },
                { "loc": ["query", "limit"], "msg": "no", "type": "value" },
            ]})
        );
    }
}
