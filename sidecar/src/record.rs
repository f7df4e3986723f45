//! The event as a Kafka record: the envelope that consumers of the topic know as its value, and what
//! CloudEvents says in binary mode as its headers (Kafka Protocol Binding for CloudEvents 1.0.2,
//! section 3.2).

use std::collections::BTreeMap;

use contract::{Event, SOURCE, timestamp};
use rskafka::record::Record;

/// Key: the task id as text. Timestamp: when the change happened.
pub fn of_event(event: &Event) -> Record {
    let task_id = event.task_id.to_string();
    let mut headers: BTreeMap<String, Vec<u8>> = [
        ("content-type", "application/json".to_owned()),
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", event.id.to_string()),
        ("ce_type", event.event_type.to_string()),
        ("ce_source", SOURCE.to_owned()),
        ("ce_subject", task_id.clone()),
        ("ce_time", timestamp::to_text(&event.time)),
        ("ce_sequence", event.sequence()),
        ("ce_partitionkey", task_id.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value.into_bytes()))
    .into();
    if let Some(traceparent) = &event.traceparent {
        // As the tracing instrumentations of Kafka clients spell it, without the prefix.
        headers.insert("traceparent".to_owned(), traceparent.clone().into_bytes());
    }
    Record {
        key: Some(task_id.into_bytes()),
        value: Some(event.payload.get().as_bytes().to_vec()),
        headers,
        timestamp: event.time,
    }
}
