//! A request to the component, its query, headers and body: a command, or every reason why not; and what was
//! understood once is understood the same way when it is said in the component's own words.

#![no_main]
#![expect(dead_code, reason = "these modules are the component's, and a part of what they have is parsed here")]

#[path = "../../src/entity_tags.rs"]
mod entity_tags;
#[path = "../../src/fields.rs"]
mod fields;
#[path = "../../src/headers.rs"]
mod headers;
#[path = "../../src/json.rs"]
mod json;
#[path = "../../src/query.rs"]
mod query;
#[path = "../../src/task.rs"]
mod task;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

use entity_tags::Conditions;
use fields::{Changes, NewTask};
use headers::Preferences;
use query::Query;

/// `query`, then a header a line, an empty line, the body: a request as one would write it down.
fn split(data: &[u8]) -> (&[u8], HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let (query, mut rest) = line(data);
    while !rest.is_empty() {
        let (header, after) = line(rest);
        rest = after;
        if header.is_empty() {
            break;
        }
        let mut parts = header.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (query, headers, rest)
}

fn line(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    (&data[..end], data.get(end + 1..).unwrap_or_default())
}

fuzz_target!(|data: &[u8]| {
    let (query, headers, body) = split(data);
    list(&String::from_utf8_lossy(query));
    ask(&headers);
    if let Ok(body) = json::parse(body) {
        write(&body);
    }
});

fn list(query: &str) {
    match Query::parse(query) {
        Ok(query) => {
            let canonical = query.canonical();
            let again = Query::parse(&canonical).expect("its own form is a query");
            assert_eq!(again.canonical(), canonical);
        }
        Err(invalid) => assert!(!invalid.is_empty()),
    }
}

fn ask(headers: &HeaderMap) {
    if let Ok(conditions) = Conditions::parse(headers) {
        assert_eq!(conditions.has_if_match(), headers.contains_key("if-match"));
        assert!(conditions.none_of().unwrap_or_default().into_iter().all(|version| conditions.has(version)));
    }
    let preferences = Preferences::parse(headers);
    if let Some(applied) = preferences.applied() {
        let value = HeaderValue::from_str(&applied).expect("a header");
        let told = HeaderMap::from_iter([(HeaderName::from_static("prefer"), value)]);
        assert_eq!(Preferences::parse(&told), preferences);
    }
    if let Ok(Some(key)) = headers::idempotency_key(headers) {
        let value = HeaderValue::from_str(&format!("\"{key}\"")).expect("a header");
        let quoted = HeaderMap::from_iter([(HeaderName::from_static("idempotency-key"), value)]);
        assert_eq!(headers::idempotency_key(&quoted).ok().flatten(), Some(key));
    }
    headers::TraceContext::parse(headers);
    HeaderValue::from_str(&headers::request_id(headers)).expect("a header");
}

fn write(body: &Value) {
    match NewTask::parse(body.clone()) {
        Ok(new) => {
            let said = said(new);
            assert_eq!(self::said(NewTask::parse(said.clone()).expect("what a task shows can be sent")), said);
            Changes::parse_patch(body.clone()).expect("a whole task is a change");
        }
        Err(invalid) => assert!(!invalid.is_empty()),
    }
    for invalid in [Changes::parse_patch(body.clone()).err(), NewTask::parse_batch(body.clone()).err()] {
        assert!(invalid.is_none_or(|invalid| !invalid.is_empty()));
    }
}

/// What of a task was its client's to say.
fn said(new: NewTask) -> Value {
    let (task, _) = task::create(new, headers::TraceContext::default());
    let mut task = serde_json::to_value(task).expect("a task is JSON");
    for name in ["id", "version", "created_at", "updated_at"] {
        task.as_object_mut().expect("an object").remove(name).expect("a field of every task");
    }
    task
}
