//! What travels arrives as it was sent, and what was not sent by us is refused with a reason.

use chrono::{DateTime, TimeZone as _, Utc};
use contract::{Event, EventType, Receipt, Receipts};
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use uuid::Uuid;

fn id() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

/// Any that can be stored: years 1 to 9999, to the microsecond.
fn time() -> impl Strategy<Value = DateTime<Utc>> {
    (-62_135_596_800_000_000..253_402_300_800_000_000_i64)
        .prop_map(|micros| Utc.timestamp_micros(micros).single().expect("a time"))
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        let pairs = prop::collection::vec((any::<String>(), inner.clone()), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Value::from),
            pairs.prop_map(|pairs| Value::from(Map::from_iter(pairs))),
        ]
    })
}

fn event() -> impl Strategy<Value = Event> {
    let event_type =
        prop::sample::select(vec![EventType::TaskCreated, EventType::TaskUpdated, EventType::TaskDeleted]);
    let traceparent = prop::option::of("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}");
    let parts =
        (id(), event_type, id(), 1..=u64::MAX, time(), traceparent, any::<bool>(), any_json(), any::<bool>());
    let tracestate = prop::option::of("[a-z0-9]{1,9}=[ -~]{1,9}");
    let parts = (parts, prop::option::of(id()), tracestate);
    parts.prop_map(|(parts, previous_id, tracestate)| {
        let (id, event_type, task_id, version, time, traceparent, cache_stale, data, spaced) = parts;
        // A payload's own form is kept, whatever it is.
        let payload = if spaced { format!("{data:#}") } else { data.to_string() };
        let payload = RawValue::from_string(payload).expect("JSON");
        Event {
            id,
            event_type,
            task_id,
            version,
            previous_id,
            time,
            traceparent,
            tracestate,
            cache_stale,
            payload,
        }
    })
}

fn parts(event: &Event) -> impl PartialEq + std::fmt::Debug {
    (
        (event.id, event.event_type, event.task_id, event.version, event.time),
        (event.previous_id, event.traceparent.clone(), event.tracestate.clone()),
        (event.cache_stale, event.payload.get().to_owned()),
    )
}

/// The fields of an event in transit, some of them with something else in them, or missing.
fn nearly_an_event() -> impl Strategy<Value = Value> {
    const NAMES: [&str; 9] =
        ["specversion", "id", "type", "subject", "time", "sequence", "partitionkey", "data", "cachestale"];
    let change = prop::option::of(any_json());
    let changes = prop::collection::vec((prop::sample::select(&NAMES[..]), change), 0..3);
    (event(), changes).prop_map(|(event, changes)| {
        let mut wire = serde_json::to_value(event).expect("an event is JSON");
        let fields = wire.as_object_mut().expect("an object");
        for (name, change) in changes {
            match change {
                Some(value) => fields.insert(name.to_owned(), value),
                None => fields.remove(name),
            };
        }
        wire
    })
}

proptest! {
    #[test]
    fn an_event_arrives_as_it_was_sent(event in event()) {
        let text = serde_json::to_string(&event).expect("an event is JSON");
        let received: Event = serde_json::from_str(&text).expect("an event");
        prop_assert_eq!(parts(&received), parts(&event));
        // And a second time to the byte: there is one form.
        prop_assert_eq!(serde_json::to_string(&received).expect("an event is JSON"), text);
    }

    #[test]
    fn what_is_nearly_an_event_is_one_or_is_refused_with_a_reason(wire in nearly_an_event()) {
        match serde_json::from_value::<Event>(wire) {
            Ok(event) => {
                prop_assert!(event.version > 0);
                let text = serde_json::to_string(&event).expect("an event is JSON");
                prop_assert!(serde_json::from_str::<Event>(&text).is_ok(), "{}", text);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn any_bytes_are_an_event_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(serde_json::from_slice::<Event>(&bytes).is_err());
        let _: Result<Receipts, _> = serde_json::from_slice(&bytes);
    }

    #[test]
    fn an_event_type_is_read_as_it_is_written(text in "(TASK_)?(CREATED|UPDATED|DELETED|[A-Z]{0,8})") {
        match text.parse::<EventType>() {
            Ok(event_type) => prop_assert_eq!(event_type.as_str(), text),
            Err(error) => prop_assert!(error.to_string().contains(&text)),
        }
    }

    #[test]
    fn receipts_arrive_as_they_were_sent(
        receipts in prop::collection::vec((id(), "[a-z_.-]{1,20}", any::<u32>(), any::<i64>()), 0..10)
    ) {
        let receipts: Vec<_> = receipts
            .into_iter()
            .map(|(event_id, topic, partition, offset)| Receipt { event_id, topic, partition, offset })
            .collect();
        let sent = Receipts { receipts };
        let text = serde_json::to_string(&sent).expect("receipts are JSON");
        let received: Receipts = serde_json::from_str(&text).expect("receipts");
        prop_assert_eq!(received.receipts, sent.receipts);
    }

    #[test]
    fn a_time_is_read_as_it_is_written(time in time()) {
        let text = contract::timestamp::to_text(&time);
        prop_assert_eq!(serde_json::from_value::<DateTime<Utc>>(json!(text)).expect("a time"), time);
        prop_assert_eq!(text.len(), "2026-11-22T23:52:32.000100Z".len());
    }

    #[test]
    fn the_pattern_of_task_keys_escapes_what_redis_would_read(prefix in "[a-z*?\\[\\]^\\\\:]{1,12}") {
        let pattern = prefix.parse::<contract::cache::KeyPrefix>().expect("a prefix").task_keys_pattern();
        let tag = pattern.strip_prefix('{').and_then(|rest| rest.strip_suffix("}:task:*"));
        let mut characters = tag.expect("a pattern").chars();
        let mut plain = String::new();
        while let Some(character) = characters.next() {
            prop_assert!(!"*?[]^".contains(character), "{}", pattern);
            plain.extend(if character == '\\' { characters.next() } else { Some(character) });
        }
        prop_assert_eq!(plain, prefix);
    }
}
