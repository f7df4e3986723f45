//! A forward as it was sent: its headers and its bytes, valid or refused, without any effect.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use contract::{BATCH_CONTENT_TYPE, DROPPED_EVENTS, Event};
use thiserror::Error;

const BATCH_EVENTS_MAX: usize = 1_000;

/// The longest that a forward waits for its receipts.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Error)]
pub enum Invalid {
    #[error("send {BATCH_CONTENT_TYPE}")]
    MediaType,
    #[error("not a batch of this application's events: {0}")]
    Malformed(#[source] serde_json::Error),
    #[error("more than {BATCH_EVENTS_MAX} events; send them in smaller batches")]
    TooMany,
}

/// Refuses what is not sent as a batch of events, before its body is looked at.
pub fn expect(headers: &HeaderMap) -> Result<(), Invalid> {
    match headers.get(header::CONTENT_TYPE) {
        Some(value) if value == BATCH_CONTENT_TYPE => Ok(()),
        _ => Err(Invalid::MediaType),
    }
}

/// How many events the sender left to the outbox without sending them.
pub fn dropped(headers: &HeaderMap) -> u64 {
    let dropped = headers.get(DROPPED_EVENTS).and_then(|value| value.to_str().ok()?.parse().ok());
    dropped.unwrap_or_default()
}

/// The events of a batch, at most [`BATCH_EVENTS_MAX`].
pub fn events(body: &[u8]) -> Result<Vec<Event>, Invalid> {
    let events: Vec<Event> = serde_json::from_slice(body).map_err(Invalid::Malformed)?;
    if events.len() > BATCH_EVENTS_MAX { Err(Invalid::TooMany) } else { Ok(events) }
}

/// The `wait` preference (RFC 7240, section 4.3), in seconds and parts of them, if there is one.
pub fn wait(headers: &HeaderMap) -> Option<Duration> {
    let preference = headers.get("prefer")?.to_str().ok()?;
    let seconds = preference.strip_prefix("wait=")?.parse().ok()?;
    Some(Duration::try_from_secs_f64(seconds).ok()?.min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_has_a_limit() {
        let event = r#"{"specversion":"1.0","id":"01a205f9-a09b-73f4-be26-740cdb38716f","type":"TASK_CREATED",
            "source":"/api/tasks","subject":"01a205f9-a09b-73f4-be26-740cdb38716f","time":"2026-01-01T00:00:00Z",
            "sequence":"1","partitionkey":"01a205f9-a09b-73f4-be26-740cdb38716f",
            "datacontenttype":"application/json","data":{}}"#;
        let batch = |count| format!("[{}]", vec![event; count].join(","));
        assert_eq!(events(batch(BATCH_EVENTS_MAX).as_bytes()).unwrap().len(), BATCH_EVENTS_MAX);
        assert!(matches!(events(batch(BATCH_EVENTS_MAX + 1).as_bytes()), Err(Invalid::TooMany)));
    }

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_allowed(seconds in any::<f64>(), text in "(wait=)?[ -~]{0,20}") {
            for value in [format!("wait={seconds}"), text] {
                let headers = [(header::HeaderName::from_static("prefer"), HeaderValue::from_str(&value).unwrap())];
                let wait = wait(&headers.into_iter().collect());
                prop_assert!(wait.is_none_or(|wait| wait <= WAIT_MAX));
            }
        }

        #[test]
        fn any_bytes_are_events_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Err(invalid) = events(&body) {
                prop_assert!(!invalid.to_string().is_empty());
            }
        }
    }
}
