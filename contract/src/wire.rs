//! The event in transit between component and sidecar.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;
use uuid::Uuid;

use crate::event::Event;
use crate::timestamp;

/// Where the sidecar takes events.
pub const EVENTS_PATH: &str = "/events";

/// Header of a forward: so many events were left to the outbox without being sent since the last forward.
pub const DROPPED_EVENTS: &str = "dropped-events";

/// Media type of a forward (CloudEvents JSON Event Format, section 4).
pub const BATCH_CONTENT_TYPE: &str = "application/cloudevents-batch+json";

/// `source` of every event: the collection that it tells about.
pub const SOURCE: &str = "/api/tasks";

/// Why a JSON object that looks like an event is not one of ours.
#[derive(Debug, Error)]
pub enum InvalidEvent {
    #[error("specversion {0:?} is not 1.0")]
    SpecVersion(String),
    #[error("type {0:?} is none of TASK_CREATED, TASK_UPDATED, TASK_DELETED")]
    Type(String),
    #[error("sequence {0:?} is not a version from 1 on")]
    Sequence(String),
}

/// Field for field what CloudEvents 1.0 and its extensions `sequence`, `partitioning` and
/// `distributed-tracing` prescribe, and two extensions of our own, `previousid` and `cachestale`.
#[derive(Deserialize, Serialize)]
pub(crate) struct Wire {
    specversion: String,
    id: Uuid,
    r#type: String,
    source: String,
    subject: Uuid,
    #[serde(with = "timestamp")]
    time: DateTime<Utc>,
    sequence: String,
    partitionkey: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previousid: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cachestale: bool,
    datacontenttype: String,
    data: Box<RawValue>,
}

impl Event {
    /// The version as the `sequence` extension wants it: it orders as text, so it is padded.
    pub fn sequence(&self) -> String {
        format!("{:010}", self.version)
    }
}

impl From<Event> for Wire {
    fn from(event: Event) -> Self {
        Wire {
            specversion: "1.0".to_owned(),
            id: event.id,
            r#type: event.event_type.as_str().to_owned(),
            source: SOURCE.to_owned(),
            subject: event.task_id,
            time: event.time,
            sequence: event.sequence(),
            partitionkey: event.task_id,
            previousid: event.previous_id,
            traceparent: event.traceparent,
            tracestate: event.tracestate,
            cachestale: event.cache_stale,
            datacontenttype: "application/json".to_owned(),
            data: event.payload,
        }
    }
}

impl TryFrom<Wire> for Event {
    type Error = InvalidEvent;

    fn try_from(wire: Wire) -> Result<Self, InvalidEvent> {
        if wire.specversion != "1.0" {
            return Err(InvalidEvent::SpecVersion(wire.specversion));
        }
        let version = match wire.sequence.parse() {
            Ok(version) if version > 0 => version,
            _ => return Err(InvalidEvent::Sequence(wire.sequence)),
        };
        Ok(Event {
            id: wire.id,
            event_type: wire.r#type.parse()?,
            task_id: wire.subject,
            version,
            previous_id: wire.previousid,
            time: wire.time,
            traceparent: wire.traceparent,
            tracestate: wire.tracestate,
            cache_stale: wire.cachestale,
            payload: wire.data,
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;

    use super::*;
    use crate::EventType;

    fn event() -> Event {
        Event {
            id: Uuid::from_u128(1),
            event_type: EventType::TaskCreated,
            task_id: Uuid::from_u128(2),
            version: 7,
            previous_id: Some(Uuid::from_u128(3)),
            time: Utc.timestamp_micros(1_700_000_000_000_001).single().unwrap(),
            traceparent: None,
            tracestate: None,
            cache_stale: false,
            payload: RawValue::from_string(
                r#"{"event_type": "TASK_CREATED",  "data": {"b":1,"a":2}}"#.into(),
            )
            .unwrap(),
        }
    }

    #[test]
    fn an_event_arrives_as_it_was_sent_and_its_payload_to_the_byte() {
        let sent = event();
        let text = serde_json::to_string(&sent).unwrap();
        let received: Event = serde_json::from_str(&text).unwrap();
        assert_eq!(received.payload.get(), sent.payload.get());
        assert_eq!(
            (received.id, received.task_id, received.version, received.time, received.cache_stale),
            (sent.id, sent.task_id, sent.version, sent.time, sent.cache_stale)
        );
        assert_eq!(received.previous_id, sent.previous_id);
    }

    #[test]
    fn private_tokens_of_serde_json_are_data_in_a_payload() {
        let payload = r#"{"$serde_json::private::RawValue": "{}"}"#;
        let sent = Event { payload: RawValue::from_string(payload.into()).unwrap(), ..event() };
        let received: Event = serde_json::from_str(&serde_json::to_string(&sent).unwrap()).unwrap();
        assert_eq!(received.payload.get(), payload);
    }

    #[test]
    fn sequences_order_as_text_like_versions_do_as_numbers() {
        let [two, ten] = [2, 10].map(|version| Event { version, ..event() }.sequence());
        assert!(two < ten);
    }

    #[test]
    fn an_event_that_is_not_ours_is_refused_by_name() {
        let text = serde_json::to_string(&event()).unwrap();
        for (from, to, named) in [
            (r#""specversion":"1.0""#, r#""specversion":"0.3""#, "specversion"),
            (r#""type":"TASK_CREATED""#, r#""type":"TASK_EATEN""#, "TASK_EATEN"),
            (r#""sequence":"0000000007""#, r#""sequence":"0""#, "sequence"),
            (r#""sequence":"0000000007""#, r#""sequence":"-1""#, "sequence"),
        ] {
            let broken = text.replace(from, to);
            assert_ne!(broken, text, "{from} is in the text");
            let error = serde_json::from_str::<Event>(&broken).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
