//! AsyncAPI: the records of the topic, as `sidecar/src/record.rs` makes them.

use contract::{EventType, SOURCE};
use serde_json::{Map, Value, json};

use super::schemas::{self, reference, task};
use super::{LICENSE_URL, contact};

pub(super) const EVENT_TYPES: [EventType; 3] =
    [EventType::TaskCreated, EventType::TaskUpdated, EventType::TaskDeleted];

pub(super) fn asyncapi() -> Value {
    let all = |path: &str| -> Map<String, Value> {
        EVENT_TYPES
            .map(|name| (name.to_string(), json!({ "$ref": format!("#/{path}/{name}") })))
            .into_iter()
            .collect()
    };
    let sent: Vec<_> = all("channels/task_events/messages").into_iter().map(|(_, message)| message).collect();
    let messages: Map<_, _> =
        EVENT_TYPES.map(|event_type| (event_type.to_string(), message(event_type))).into_iter().collect();
    let mut schemas = schemas::only(&["Task", "Status", "Priority"]);
    schemas["Headers"] = headers();
    for event_type in EVENT_TYPES {
        let name = schema_name(event_type);
        schemas[format!("{name}Type")] = only(event_type.as_str());
        schemas[name] = payload(name);
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Task events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every committed change of a task, at least once, the changes of a task in their \
                            order and in one partition. Every occurrence of an event has the same ce_id.",
            "contact": contact(),
            "license": { "name": "Apache-2.0", "url": LICENSE_URL },
            "tags": [{ "name": "tasks", "description": "What happened to tasks." }],
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "127.0.0.1:9092",
                "protocol": "kafka",
                "description": "Where a broker listens on a developer's machine. A deployment has its own.",
            },
        },
        "channels": {
            "task_events": {
                "address": "task_events",
                "description": "The topic's name is a setting; this is its default.",
                "messages": all("components/messages"),
                "bindings": { "kafka": { "topic": "task_events", "bindingVersion": "0.5.0" } },
            },
        },
        "operations": {
            "publishTaskEvents": {
                "action": "send",
                "channel": { "$ref": "#/channels/task_events" },
                "summary": "What happened to tasks",
                "description": "The sidecar publishes an event after its change is committed.",
                "messages": sent,
            },
        },
        "components": { "messages": messages, "schemas": schemas },
    })
}

fn message(event_type: EventType) -> Value {
    let (summary, version) = match event_type {
        EventType::TaskCreated => ("A task was created.", 1),
        EventType::TaskUpdated => ("A task was changed; data is its new state.", 2),
        EventType::TaskDeleted => {
            ("A task was deleted. data is its last state, and ce_sequence is one more than its version.", 3)
        }
    };
    let mut task = task();
    // The deletion itself is a version, and no state.
    task["version"] = json!(version.min(2));
    let id = task["id"].clone();
    let key = json!({ "type": "string", "format": "uuid", "description": "The task's id." });
    json!({
        "name": event_type,
        "title": event_type,
        "summary": summary,
        "contentType": "application/json",
        "headers": reference("Headers"),
        "payload": reference(schema_name(event_type)),
        "bindings": { "kafka": { "key": key, "bindingVersion": "0.5.0" } },
        "examples": [{
            "headers": {
                "content-type": "application/json",
                "ce_specversion": "1.0",
                "ce_id": "01938a4e-9acd-7b43-9d3b-6b0e6a3c0f11",
                "ce_type": event_type,
                "ce_source": SOURCE,
                "ce_subject": id,
                "ce_time": task["updated_at"],
                "ce_sequence": format!("{version:010}"),
                "ce_partitionkey": id,
            },
            "payload": { "event_type": event_type, "data": task },
        }],
    })
}

/// Generators name a type after its schema, and make up a name for a schema without one.
fn schema_name(event_type: EventType) -> &'static str {
    match event_type {
        EventType::TaskCreated => "TaskCreated",
        EventType::TaskUpdated => "TaskUpdated",
        EventType::TaskDeleted => "TaskDeleted",
    }
}

fn payload(name: &str) -> Value {
    json!({
        "type": "object",
        "required": ["event_type", "data"],
        "properties": { "event_type": reference(&format!("{name}Type")), "data": reference("Task") },
    })
}

/// One text and no other. Generators know an `enum` of one value better than `const`.
fn only(text: &str) -> Value {
    json!({ "type": "string", "enum": [text] })
}

/// CloudEvents 1.0 in binary mode.
fn headers() -> Value {
    let id = |description: &str| json!({ "type": "string", "format": "uuid", "description": description });
    json!({
        "type": "object",
        "required": [
            "content-type", "ce_specversion", "ce_id", "ce_type", "ce_source", "ce_subject", "ce_time",
            "ce_sequence", "ce_partitionkey",
        ],
        "properties": {
            "content-type": only("application/json"),
            "ce_specversion": only("1.0"),
            "ce_id": id("The event's id, the same at every occurrence."),
            "ce_type": {
                "type": "string", "pattern": "(^|\\.)TASK_(CREATED|UPDATED|DELETED)$", "examples": EVENT_TYPES,
                "description": "The event type. The sidecar's setting CE_TYPE_PREFIX goes before it.",
            },
            "ce_source": {
                "type": "string", "format": "uri-reference", "minLength": 1, "examples": [SOURCE],
                "description": "The sidecar's setting CE_SOURCE.",
            },
            "ce_subject": id("The task's id."),
            "ce_time": { "type": "string", "format": "date-time" },
            "ce_sequence": {
                "type": "string", "pattern": "^[0-9]{10,}$",
                "description": "The task's version, padded so that it orders as text.",
            },
            "ce_partitionkey": id("The task's id."),
            "traceparent": {
                "type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
                "description": "W3C Trace Context of the request that made the change, if it had one.",
            },
            "tracestate": {
                "type": "string", "minLength": 1, "maxLength": 512,
                "description": "The tracestate that came with the traceparent, if there was one.",
            },
        },
    })
}
