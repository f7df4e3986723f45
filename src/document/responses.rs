//! OpenAPI: answers and their headers, the errors among them.

use serde_json::{Map, Value, json};

use super::PROBLEM_JSON;
use super::schemas::{reference, task};
use crate::problem::{CHALLENGE, CHALLENGE_AFTER_A_TOKEN};

/// An answer of an operation. `headers` names some of `headers()`; all have X-Request-Id.
pub(super) fn answer(description: &str, headers: &[&str], schema: Option<Value>) -> Value {
    let mut answer = json!({ "description": description, "headers": referred(headers) });
    if let Some(schema) = schema {
        answer["content"] = json!({ "application/json": { "schema": schema } });
    }
    answer
}

fn referred(names: &[&str]) -> Map<String, Value> {
    let names = names.iter().chain(&["X-Request-Id"]);
    names
        .map(|name| ((*name).to_owned(), json!({ "$ref": format!("#/components/headers/{name}") })))
        .collect()
}

/// References to errors by their status, for an operation that can answer them. Every one can be asked
/// without a token, and can find the database or its own configuration broken.
pub(super) fn errors(statuses: &[&str]) -> Map<String, Value> {
    let statuses = statuses.iter().chain(&["401", "500", "503"]);
    statuses
        .map(|status| ((*status).to_owned(), json!({ "$ref": format!("#/components/responses/{status}") })))
        .collect()
}

pub(super) fn components() -> Value {
    let invalid = json!([{ "pointer": "/title", "detail": "is required", "code": "required" }]);
    let mut responses = Map::new();
    for (status, title, detail, headers) in [
        ("400", "Bad Request", "the body ends before its JSON is complete", &[][..]),
        ("401", "Unauthorized", "a bearer token is needed (RFC 6750)", &["WWW-Authenticate"]),
        ("404", "Not Found", "there is no task with this id", &[]),
        ("408", "Request Timeout", "the body took too long to arrive", &[]),
        ("409", "Conflict", "the first request with this Idempotency-Key is still in work", &["Retry-After"]),
        ("412", "Precondition Failed", "the task has another version by now; read it again", &[]),
        ("413", "Content Too Large", "the body is larger than 64 KiB", &[]),
        (
            "415",
            "Unsupported Media Type",
            "send the body as application/json",
            &["Accept", "Accept-Encoding", "Accept-Patch"],
        ),
        ("422", "Unprocessable Content", "the request is not valid; errors lists the reasons", &[]),
        ("428", "Precondition Required", "a write needs If-Match with the version that it is meant for", &[]),
        (
            "500",
            "Internal Server Error",
            "something is wrong with this service; its log has the reason under the request's id",
            &[],
        ),
        (
            "503",
            "Service Unavailable",
            "the database cannot be reached, or cannot do it at the moment; whether a write took place is not \
             known, so look before you repeat it, or repeat it with its Idempotency-Key",
            &["Retry-After"],
        ),
    ] {
        let number: u16 = status.parse().unwrap();
        let mut problem = json!({
            "title": title, "status": number, "detail": detail,
            "request_id": "01938a4e-9acc-77c8-b90a-92a109b260cb",
        });
        let mut fastapi = json!({ "detail": detail, "request_id": problem["request_id"] });
        let mut fastapi_schema = "FastApiError";
        if number == 422 {
            problem["errors"] = invalid.clone();
            fastapi["detail"] =
                json!([{ "loc": ["body", "title"], "msg": "is required", "type": "required" }]);
            fastapi_schema = "FastApiValidationError";
        }
        let mut response = answer(detail, headers, None);
        response["content"] = json!({
            PROBLEM_JSON: { "schema": reference("Problem"), "example": problem },
            "application/json": { "schema": reference(fastapi_schema), "example": fastapi },
        });
        responses.insert(status.to_owned(), response);
    }
    Value::Object(responses)
}

pub(super) fn headers() -> Value {
    let text = |description: &str, example: &str| json!({ "description": description, "schema": { "type": "string" }, "example": example });
    let location = format!("/api/tasks/{}", task()["id"].as_str().unwrap());
    json!({
        "X-Request-Id": {
            "description": "The request's own id if it had a plain one, else a new one; the log has it too.",
            "required": true,
            "schema": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$" },
        },
        "Location": text("Path of the task.", &location),
        "ETag": {
            "description": "Strong entity tag: the task's version in quotes.",
            "required": true,
            "schema": { "type": "string", "pattern": "^\"[1-9][0-9]*\"$" },
            "example": "\"1\"",
        },
        "Link": text(
            "The next page, if there is one (RFC 8288).",
            "</api/tasks?cursor=eyJ&sort=-created_at&limit=20>; rel=\"next\"",
        ),
        "Preference-Applied": text("The preferences that were honoured (RFC 7240).", "wait=5"),
        "Event-Receipt": text(
            "With Prefer: wait=N. Where the event is on the topic, or pending if the wait was too short; of a \
             batch, how many are published, and how many pending. A structured field (RFC 9651).",
            "topic=\"task_events\", partition=2, offset=41",
        ),
        "Accept": text("Of a POST or a PUT: what is taken instead.", "application/json"),
        "Accept-Encoding": text("If the body has a Content-Encoding: what is taken instead.", "identity"),
        "Accept-Patch": text(
            "Of a PATCH: what is taken instead (RFC 5789).",
            "application/merge-patch+json, application/json",
        ),
        "Retry-After": {
            "description": "Seconds to wait before the request is repeated.",
            "required": true,
            "schema": { "type": "integer", "minimum": 0 },
        },
        "WWW-Authenticate": {
            "description": "How to authenticate (RFC 6750); with an error if there was a token.",
            "required": true,
            "schema": { "type": "string", "enum": [CHALLENGE, CHALLENGE_AFTER_A_TOKEN] },
        },
    })
}
