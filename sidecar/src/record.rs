//! The event as a Kafka record: the envelope that consumers of the topic know as its value, and what
//! CloudEvents says in binary mode as its headers (Kafka Protocol Binding for CloudEvents 1.0.2,
//! section 3.2).

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use contract::{Event, EventType};
use rskafka::record::Record;
use uuid::Uuid;

/// How far a record's timestamp may be from the time of its publication. Brokers refuse timestamps
/// that are too far ahead (`message.timestamp.after.max.ms`, one hour by default), and retention
/// deletes records by their timestamps. `ce_time` has the time of the change in any case.
const AHEAD_MAX: TimeDelta = TimeDelta::seconds(10);
const BEHIND_MAX: TimeDelta = TimeDelta::minutes(10);

/// What operators name their events; CloudEvents recommends names that are unique everywhere.
#[derive(Clone, Debug)]
pub struct Naming {
    /// `ce_source` of every record.
    pub source: String,
    /// What `ce_type` has before the event's type: nothing, or something that ends in a dot.
    pub type_prefix: String,
}

/// The event's type of a `ce_type`, whatever prefix it was written with.
pub fn event_type(ce_type: &str) -> Option<EventType> {
    ce_type.rsplit('.').next()?.parse().ok()
}

/// Key: the task id as text. Timestamp: when the change happened, if that is near `now`, which is the
/// time of publication; otherwise `now`.
pub fn of_event(event: &Event, naming: &Naming, now: DateTime<Utc>) -> Record {
    let [task_id, event_id] = [event.task_id, event.id].map(text);
    // In the order of their names, in which the map keeps them.
    let mut headers: BTreeMap<String, Vec<u8>> = [
        ("ce_id", event_id),
        ("ce_partitionkey", task_id.clone()),
        ("ce_sequence", event.sequence().into_bytes()),
        ("ce_source", naming.source.clone().into_bytes()),
        ("ce_specversion", "1.0".into()),
        ("ce_subject", task_id.clone()),
        ("ce_time", contract::timestamp::to_text(&event.time).into_bytes()),
        ("ce_type", format!("{}{}", naming.type_prefix, event.event_type).into_bytes()),
        ("content-type", "application/json".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    // As the tracing instrumentations of Kafka clients spell them, without the prefix.
    for (name, value) in [("traceparent", &event.traceparent), ("tracestate", &event.tracestate)] {
        headers.extend(value.clone().map(|value| (name.to_owned(), value.into_bytes())));
    }
    Record {
        key: Some(task_id),
        value: Some(event.payload.get().as_bytes().to_vec()),
        headers,
        timestamp: timestamp(event.time, now),
    }
}

fn timestamp(changed_at: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
    let is_near = (now - BEHIND_MAX..=now + AHEAD_MAX).contains(&changed_at);
    if is_near { changed_at } else { now }
}

fn text(id: Uuid) -> Vec<u8> {
    id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_never_far_from_the_publication() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        for (changed_at, expected) in [
            (now, now),
            (now - BEHIND_MAX, now - BEHIND_MAX),
            (now - BEHIND_MAX - TimeDelta::milliseconds(1), now),
            (now + AHEAD_MAX, now + AHEAD_MAX),
            (now + TimeDelta::hours(2), now),
            (DateTime::<Utc>::MIN_UTC, now),
            (DateTime::<Utc>::MAX_UTC, now),
        ] {
            assert_eq!(timestamp(changed_at, now), expected, "{changed_at}");
        }
    }
}
