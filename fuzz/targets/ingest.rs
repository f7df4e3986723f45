//! A forward to the sidecar, headers and body: a batch of events, or refused; and what was taken once is
//! taken again in the form in which it would be sent on.

#![no_main]

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

#[path = "../../sidecar/src/ingest/forward.rs"]
mod forward;

/// The value of `prefer`, a line's end, the body.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    (&data[..end], data.get(end + 1..).unwrap_or_default())
}

fuzz_target!(|data: &[u8]| {
    let (prefer, body) = split(data);
    if let Ok(value) = HeaderValue::from_bytes(prefer) {
        let headers = HeaderMap::from_iter([
            (HeaderName::from_static("prefer"), value.clone()),
            (HeaderName::from_static("content-type"), value),
        ]);
        forward::wait(&headers);
        let is_batch = prefer == contract::BATCH_CONTENT_TYPE.as_bytes();
        assert_eq!(forward::expect(&headers).is_ok(), is_batch);
    }
    let events = match forward::events(body) {
        Ok(events) => events,
        Err(invalid) => return assert!(!invalid.to_string().is_empty()),
    };
    assert!(events.iter().all(|event| event.version > 0));
    let again = serde_json::to_vec(&events).expect("events are JSON");
    let again = forward::events(&again).expect("what was taken can be sent on");
    assert_eq!(again.len(), events.len());
    for (event, again) in events.iter().zip(again) {
        assert_eq!((event.id, event.task_id, event.version), (again.id, again.task_id, again.version));
        assert_eq!((event.event_type, &event.traceparent), (again.event_type, &again.traceparent));
        assert_eq!(event.tracestate, again.tracestate);
        assert_eq!(event.payload.get(), again.payload.get());
    }
});
