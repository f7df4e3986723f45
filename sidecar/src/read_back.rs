//! Reads a partition back: finds the sidecar's own events among its records by their headers, and
//! decides how to go on after records and gaps of other producers.

use std::time::{Duration, Instant};

use contract::EventType;
use rskafka::record::{Record, RecordAndOffset};
use tracing::{error, warn};
use uuid::Uuid;

use crate::kafka::Read;
use crate::lane::{Found, OnTopic};
use crate::record;

/// How often reading back looks whether another producer's transaction has ended.
pub const TRANSACTION_INTERVAL: Duration = Duration::from_millis(200);

/// Reads a partition back, a fetch at a time, and waits for a transaction only so long.
pub struct ReadBack {
    partition: u32,
    transaction_wait: Duration,
    /// When it met a transaction that is open.
    transaction_since: Option<Instant>,
}

/// What a fetch came to.
pub enum Progress {
    /// These events are on the partition. Reading goes on at `next_offset`.
    Found { found: Found, next_offset: i64, end: i64 },
    /// Another producer's transaction is open: read here once more after [`TRANSACTION_INTERVAL`].
    Wait,
    /// There is no such offset; the partition begins here.
    Gone { earliest: i64 },
}

impl ReadBack {
    pub fn new(partition: u32, transaction_wait: Duration) -> ReadBack {
        ReadBack { partition, transaction_wait, transaction_since: None }
    }

    /// Says how to go on after what a fetch from this offset gave.
    pub fn judge(&mut self, from: i64, read: Read) -> Progress {
        let partition = self.partition;
        let since = self.transaction_since.take();
        let (found, next_offset, end) = match read {
            Read::Records { records, end } => {
                (events(&records), records.last().map_or(from, |last| last.offset + 1), end)
            }
            Read::Skipped { next_offset, end } => (Found::new(), next_offset, end),
            Read::OpenTransaction { end } => {
                let since = since.unwrap_or_else(Instant::now);
                if since.elapsed() < self.transaction_wait {
                    self.transaction_since = Some(since);
                    return Progress::Wait;
                }
                warn!(
                    partition,
                    from,
                    end,
                    "another producer's transaction hides what comes after it; events may be published \
                     twice"
                );
                (Found::new(), end, end)
            }
            Read::Zstd { end } => {
                error!(
                    partition,
                    from,
                    end,
                    "the topic is compressed with zstd and cannot be read back; events may be published \
                     twice: give it another compression.type, such as producer or lz4"
                );
                (Found::new(), end, end)
            }
            Read::Gone { earliest } => return Progress::Gone { earliest },
        };
        Progress::Found { found, next_offset, end }
    }
}

/// What a record of ours says about its event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OnRecord {
    pub task_id: Uuid,
    pub version: u64,
    pub id: Uuid,
    pub event_type: EventType,
}

/// Passes over other producers' records.
pub fn events(records: &[RecordAndOffset]) -> Found {
    let event = |RecordAndOffset { record, offset }: &RecordAndOffset| {
        let OnRecord { task_id, version, id, .. } = event(record)?;
        let time = header(record, "ce_time").and_then(|time| time.parse().ok());
        let time = time.unwrap_or(record.timestamp);
        Some((task_id, OnTopic { id, version, offset: *offset, time }))
    };
    records.iter().filter_map(event).collect()
}

/// The event of a record, or none if another producer has written it.
pub fn event(record: &Record) -> Option<OnRecord> {
    let header = |name| header(record, name);
    Some(OnRecord {
        task_id: Uuid::try_parse(header("ce_subject")?).ok()?,
        version: header("ce_sequence")?.parse().ok().filter(|version| *version > 0)?,
        id: Uuid::try_parse(header("ce_id")?).ok()?,
        event_type: record::event_type(header("ce_type")?)?,
    })
}

fn header<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    std::str::from_utf8(record.headers.get(name)?).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use contract::{Event, timestamp};
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::record::Naming;

    fn named(source: &str, type_prefix: &str) -> Naming {
        Naming { source: source.to_owned(), type_prefix: type_prefix.to_owned() }
    }

    #[test]
    fn our_events_are_found_and_other_records_passed_over() {
        let time = timestamp::now();
        let event = |task: u128, version| Event {
            id: Uuid::from_u128((task << 8) + u128::from(version)),
            event_type: EventType::TaskUpdated,
            task_id: Uuid::from_u128(task),
            version,
            previous_id: None,
            time,
            traceparent: None,
            tracestate: None,
            cache_stale: false,
            payload: RawValue::from_string("{}".to_owned()).unwrap(),
        };
        let foreign = Record { key: None, value: None, headers: [].into(), timestamp: timestamp::now() };
        // The settings may have changed meanwhile.
        let (before, now) = (named("/api/tasks", ""), named("urn:tasks", "com.example.tasks."));
        let records = [
            record::of_event(&event(1, 1), &before, time),
            foreign,
            record::of_event(&event(1, 2), &now, time),
            record::of_event(&event(2, 7), &now, time),
        ];
        let records: Vec<_> =
            (0..).zip(records).map(|(offset, record)| RecordAndOffset { record, offset }).collect();
        let on_topic = |task, version, offset| {
            let Event { id, task_id, .. } = event(task, version);
            (task_id, OnTopic { id, version, offset, time })
        };
        assert_eq!(events(&records), [on_topic(1, 1, 0), on_topic(1, 2, 2), on_topic(2, 7, 3)]);
    }

    fn events_of_a_partition() -> impl Strategy<Value = Vec<Event>> {
        let event = (any::<u128>(), 0..4_u128, 1..u64::MAX).prop_map(|(id, task, version)| Event {
            id: Uuid::from_u128(id),
            event_type: EventType::TaskUpdated,
            task_id: Uuid::from_u128(task),
            version,
            previous_id: None,
            time: timestamp::now(),
            traceparent: None,
            tracestate: None,
            cache_stale: false,
            payload: RawValue::from_string("{}".to_owned()).unwrap(),
        });
        prop::collection::vec(event, 0..20)
    }

    /// Headers as ours, in any state.
    fn headers() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
        let name = prop_oneof!["ce_subject", "ce_id", "ce_sequence", "[a-z_]{0,12}"];
        let id = any::<u128>().prop_map(|id| Uuid::from_u128(id).to_string().into_bytes());
        let number = "[+-]?[0-9]{0,22}".prop_map(String::into_bytes);
        let value = prop_oneof![id, number, prop::collection::vec(any::<u8>(), 0..40)];
        prop::collection::btree_map(name, value, 0..6)
    }

    proptest! {
        #[test]
        fn what_was_published_is_found(events in events_of_a_partition(), first in 0..i64::MAX / 2) {
            let (now, naming) = (timestamp::now(), named("urn:tasks", "com.example."));
            let records: Vec<_> = (first..)
                .zip(&events)
                .map(|(offset, event)| {
                    RecordAndOffset { record: record::of_event(event, &naming, now), offset }
                })
                .collect();
            let on_topic = |(offset, event): (i64, &Event)| {
                let Event { id, task_id, version, time, .. } = *event;
                (task_id, OnTopic { id, version, offset, time })
            };
            let expected: Found = (first..).zip(&events).map(on_topic).collect();
            prop_assert_eq!(super::events(&records), expected);
        }

        #[test]
        fn a_record_of_anybody_is_read_or_passed_over(headers in headers()) {
            let complete = ["ce_subject", "ce_id", "ce_sequence"].iter().all(|name| headers.contains_key(*name));
            let record = Record { key: None, value: None, headers, timestamp: timestamp::now() };
            let found = super::events(&[RecordAndOffset { record, offset: 0 }]);
            prop_assert!(found.len() <= usize::from(complete));
        }
    }
}
