//! What a partition holds already: the events among its records, by the headers that we give them.

use rskafka::record::{Record, RecordAndOffset};
use uuid::Uuid;

use crate::lane::{Found, OnTopic};

/// Other producers' records are passed over.
pub fn events(records: &[RecordAndOffset]) -> Found {
    let mut found = Found::default();
    for RecordAndOffset { record, offset } in records {
        if let Some((task_id, version, id)) = event(record) {
            found.ids.push(id);
            let on_topic = OnTopic { version, offset: *offset, time: record.timestamp };
            let newest = found.newest.entry(task_id).or_insert(on_topic);
            if version > newest.version {
                *newest = on_topic;
            }
        }
    }
    found
}

fn event(record: &Record) -> Option<(Uuid, u64, Uuid)> {
    let header = |name| std::str::from_utf8(record.headers.get(name)?).ok();
    let task_id = Uuid::try_parse(header("ce_subject")?).ok()?;
    let id = Uuid::try_parse(header("ce_id")?).ok()?;
    Some((task_id, header("ce_sequence")?.parse().ok()?, id))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use contract::{Event, EventType, timestamp};
    use serde_json::value::RawValue;

    use super::*;
    use crate::record;

    #[test]
    fn our_events_are_found_and_other_records_passed_over() {
        let time = timestamp::now();
        let event = |task: u128, version| Event {
            id: Uuid::from_u128((task << 8) + u128::from(version)),
            event_type: EventType::TaskUpdated,
            task_id: Uuid::from_u128(task),
            version,
            time,
            traceparent: None,
            cache_stale: false,
            payload: RawValue::from_string("{}".to_owned()).unwrap(),
        };
        let foreign = Record { key: None, value: None, headers: [].into(), timestamp: timestamp::now() };
        let records = [
            record::of_event(&event(1, 1)),
            foreign,
            record::of_event(&event(1, 2)),
            record::of_event(&event(2, 7)),
        ];
        let records: Vec<_> =
            (0..).zip(records).map(|(offset, record)| RecordAndOffset { record, offset }).collect();
        let found = events(&records);
        assert_eq!(found.ids, [(1, 1), (1, 2), (2, 7)].map(|(task, version)| event(task, version).id));
        let newest = |task, version, offset| (Uuid::from_u128(task), OnTopic { version, offset, time });
        assert_eq!(found.newest, HashMap::from([newest(1, 2, 2), newest(2, 7, 3)]));
    }
}
