//! The event as a Kafka record: the envelope that consumers of the topic know as its value, and what
//! CloudEvents says in binary mode as its headers (Kafka Protocol Binding for CloudEvents 1.0.2,
//! section 3.2).

use std::collections::BTreeMap;

use contract::{Event, SOURCE, timestamp};
use rskafka::record::Record;
use uuid::Uuid;

/// Key: the task id as text. Timestamp: when the change happened.
pub fn of_event(event: &Event) -> Record {
    let [task_id, event_id] = [event.task_id, event.id].map(text);
    // In the order of their names, in which the map keeps them.
    let mut headers: BTreeMap<String, Vec<u8>> = [
        ("ce_id", event_id),
        ("ce_partitionkey", task_id.clone()),
        ("ce_sequence", event.sequence().into_bytes()),
        ("ce_source", SOURCE.into()),
        ("ce_specversion", "1.0".into()),
        ("ce_subject", task_id.clone()),
        ("ce_time", timestamp::to_text(&event.time).into_bytes()),
        ("ce_type", event.event_type.as_str().into()),
        ("content-type", "application/json".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if let Some(traceparent) = &event.traceparent {
        // As the tracing instrumentations of Kafka clients spell it, without the prefix.
        headers.insert("traceparent".to_owned(), traceparent.clone().into_bytes());
    }
    Record {
        key: Some(task_id),
        value: Some(event.payload.get().as_bytes().to_vec()),
        headers,
        timestamp: event.time,
    }
}

fn text(id: Uuid) -> Vec<u8> {
    id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes().to_vec()
}
