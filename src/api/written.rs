//! What every write does after its commit. Nothing here may fail the request: what does not work out
//! now is made up for by the sidecar.

use std::rc::Rc;
use std::time::Duration;

use axum::response::Response;
use contract::Event;
use http::{HeaderName, HeaderValue};

use crate::cache::Dropped;
use crate::headers::Preferences;
use crate::instance::Instance;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Where the events of a write are on the topic, for who asked to wait: a structured field (RFC 9651),
/// `topic="task_events", partition=2, offset=41`, or for more than one event `published=500`; and
/// `pending`, of one event alone or as a number, when the wait was not long enough.
const EVENT_RECEIPT: HeaderName = HeaderName::from_static("event-receipt");

/// Tells the sidecar, of the cache as well if what is stale could not be dropped, and completes the response.
pub(super) async fn finish(
    instance: &Instance,
    mut events: Vec<Event>,
    dropped: Dropped,
    preferences: Preferences,
    mut response: Response,
) -> Response {
    for event in &mut events {
        event.cache_stale = dropped == Dropped::Left;
    }
    tell_applied(preferences, &mut response);
    let forwarder = &instance.forwarder;
    match preferences.wait_s {
        Some(wait_s) if wait_s > 0 => {
            let total = events.len();
            let receipts = Rc::clone(forwarder).forward_and_wait(events, Duration::from_secs(wait_s)).await;
            let receipt = match (&receipts[..], total) {
                ([receipt], 1) => {
                    let contract::Receipt { topic, partition, offset, .. } = receipt;
                    format!("topic=\"{topic}\", partition={partition}, offset={offset}")
                }
                (_, 1) => "pending".to_owned(),
                (receipts, total) if receipts.len() == total => format!("published={total}"),
                (receipts, total) => {
                    format!("published={}, pending={}", receipts.len(), total - receipts.len())
                }
            };
            let receipt = HeaderValue::from_str(&receipt).expect("a topic's name is plain text");
            response.headers_mut().insert(EVENT_RECEIPT, receipt);
        }
        Some(_) | None => {
            for event in events {
                forwarder.forward(event);
            }
        }
    }
    response
}

/// Says which preferences the response follows (RFC 7240, section 3).
pub(super) fn tell_applied(preferences: Preferences, response: &mut Response) {
    if let Some(applied) = preferences.applied() {
        let applied = HeaderValue::from_str(&applied).expect("preferences are plain text");
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
}
