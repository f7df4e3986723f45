use chrono::TimeDelta;
use contract::EventType;
use serde_json::value::RawValue;

use super::*;

/// When the tests' lanes begin; their events are newer, unless said otherwise.
const START: DateTime<Utc> = DateTime::UNIX_EPOCH;
const LIMITS: BatchLimits = BatchLimits { events_max: 3, bytes_max: 1_000_000 };

fn event_id(task: u128, version: u64) -> Uuid {
    Uuid::from_u128((task << 32) + u128::from(version))
}

/// An event of the history that goes on after a restore: its version may have been used before.
fn anew(task: u128, version: u64, previous_id: Uuid) -> Event {
    let id = Uuid::from_u128((1 << 127) + (task << 32) + u128::from(version));
    Event { id, previous_id: Some(previous_id), ..event(task, version) }
}

fn start(is_replicated: bool) -> Start {
    Start { now: START, lanes: 1, last_seq: 0, is_replicated }
}

/// A row of the outbox, as the poller offers it.
fn row(event: Event, oldest: bool) -> Offered {
    Offered { event, oldest, seq: Some(0), companion: Companion::default() }
}

fn push(event: Event) -> Offered {
    Offered { event, oldest: false, seq: None, companion: Companion::default() }
}

fn rows(events: Vec<Event>) -> Vec<(Event, i64)> {
    events.into_iter().map(|event| (event, 0)).collect()
}

fn found(task: u128, version: u64, offset: i64) -> (Uuid, OnTopic) {
    let Event { id, task_id, time, .. } = event(task, version);
    (task_id, OnTopic { id, version, offset, time })
}

pub(super) fn event(task: u128, version: u64) -> Event {
    Event {
        id: event_id(task, version),
        event_type: if version == 1 { EventType::TaskCreated } else { EventType::TaskUpdated },
        task_id: Uuid::from_u128(task),
        version,
        previous_id: (version > 1).then(|| event_id(task, version - 1)),
        time: START + TimeDelta::seconds(100),
        traceparent: None,
        tracestate: None,
        cache_stale: false,
        payload: RawValue::from_string("{}".to_owned()).unwrap(),
    }
}

fn offer(lane: &mut Lane, task: u128, version: u64) -> Offer {
    lane.offer(push(event(task, version)))
}

/// A lane that knows its partition, which is empty.
fn connected() -> Lane {
    let mut lane = Lane::new(start(false));
    assert_eq!(lane.next(LIMITS), Next::Connect { from: None });
    lane.connected(0, 0);
    lane
}

/// The batch that the lane wants to be published.
fn batch(lane: &mut Lane) -> Vec<(u128, u64)> {
    assert_eq!(lane.next(LIMITS), Next::Publish);
    under_way(lane)
}

fn published(lane: &mut Lane) -> Vec<(u128, u64)> {
    if lane.next(LIMITS) == Next::Publish { published_now(lane) } else { Vec::new() }
}

/// Acknowledges the batch that is under way.
fn published_now(lane: &mut Lane) -> Vec<(u128, u64)> {
    let published: Vec<_> = under_way(lane);
    let offsets: Vec<_> = (0..).take(published.len()).collect();
    lane.acked(&offsets);
    published
}

fn under_way(lane: &Lane) -> Vec<(u128, u64)> {
    lane.batch().iter().map(|offered| (offered.event.task_id.as_u128(), offered.event.version)).collect()
}

fn gap(lane: &mut Lane) -> Gap {
    match lane.next(LIMITS) {
        Next::Load(gap) => gap,
        other => panic!("no gap but {other:?}"),
    }
}

#[test]
fn a_first_version_goes_at_once_and_the_next_ones_behind_it() {
    let mut lane = connected();
    assert_eq!(offer(&mut lane, 1, 1), Offer::Queued);
    assert_eq!(offer(&mut lane, 1, 2), Offer::Queued);
    assert_eq!(published(&mut lane), [(1, 1), (1, 2)]);
    assert_eq!(offer(&mut lane, 1, 3), Offer::Queued);
    assert_eq!(published(&mut lane), [(1, 3)]);
}

#[test]
fn what_is_queued_or_published_is_not_taken_twice() {
    let mut lane = connected();
    offer(&mut lane, 1, 1);
    assert_eq!(offer(&mut lane, 1, 1), Offer::Duplicate);
    published(&mut lane);
    assert_eq!(offer(&mut lane, 1, 1), Offer::Duplicate);
    assert_eq!(lane.pending(), 0);
}

#[test]
fn a_version_ahead_of_its_turn_waits_for_the_backlog() {
    let mut lane = connected();
    offer(&mut lane, 1, 1);
    assert_eq!(offer(&mut lane, 1, 3), Offer::Held);
    let gap = gap(&mut lane);
    assert_eq!(gap, Gap { task_id: Uuid::from_u128(1), after: 0, up_to: 3 });
    lane.fill(gap, rows(vec![event(1, 2), event(1, 3)]));
    assert_eq!(published(&mut lane), [(1, 1), (1, 2), (1, 3)]);
    assert_eq!((lane.next(LIMITS), lane.pending()), (Next::Idle, 0));
}

#[test]
fn a_creation_from_before_the_start_may_be_published_and_is_looked_up() {
    let mut lane = connected();
    for task in [1, 2] {
        let event = Event { time: START, ..event(task, 1) };
        assert_eq!(lane.offer(push(event)), Offer::Held);
    }
    let first = gap(&mut lane);
    lane.fill(first, rows(vec![event(1, 1)]));
    let second = gap(&mut lane);
    lane.fill(second, rows(vec![]));
    assert_eq!(published(&mut lane), [(1, 1)]);
    assert_eq!(lane.pending(), 0);
}

#[test]
fn what_the_outbox_no_longer_has_is_published() {
    let mut lane = connected();
    assert_eq!(offer(&mut lane, 1, 5), Offer::Held);
    let five = gap(&mut lane);
    lane.fill(five, rows(vec![event(1, 5)]));
    assert_eq!(published(&mut lane), [(1, 5)]);

    assert_eq!(offer(&mut lane, 2, 5), Offer::Held);
    let five = gap(&mut lane);
    lane.fill(five, rows(vec![]));
    assert_eq!(lane.pending(), 0);
}

#[test]
fn a_row_seen_as_its_tasks_oldest_needs_no_second_look() {
    let mut lane = connected();
    assert_eq!(lane.offer(row(event(1, 7), true)), Offer::Queued);
    assert_eq!(offer(&mut lane, 1, 8), Offer::Queued);
    assert_eq!(published(&mut lane), [(1, 7), (1, 8)]);
}

#[test]
fn a_failed_batch_is_the_next_one_again() {
    let mut lane = connected();
    for task in 1..=4 {
        offer(&mut lane, task, 1);
    }
    assert_eq!(batch(&mut lane), [(1, 1), (2, 1), (3, 1)]);
    lane.failed();
    assert_eq!(lane.next(LIMITS), Next::Connect { from: Some(0) });
    lane.connected(0, 0);
    assert_eq!(published(&mut lane), [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(published(&mut lane), [(4, 1)]);
}

#[test]
fn who_waits_is_told_the_offset_whichever_way_the_event_came() {
    let mut lane = connected();
    let wait = |lane: &mut Lane| {
        let (sender, receiver) = oneshot::channel();
        let companion = Companion { hold: None, receipt: Some(sender) };
        lane.offer(Offered { companion, ..push(event(1, 1)) });
        receiver
    };
    offer(&mut lane, 1, 1); // the sweep was faster
    let mut queued = wait(&mut lane);
    batch(&mut lane);
    let mut under_way = wait(&mut lane);
    lane.acked(&[41]);
    let mut published = wait(&mut lane);
    // Of two who wait for the same event the later one is told.
    assert!(queued.try_recv().is_err());
    assert_eq!((under_way.try_recv(), published.try_recv()), (Ok(41), Ok(41)));
}

#[test]
fn who_waits_with_a_held_event_is_told_when_the_sweep_brings_it() {
    let mut lane = connected();
    let (sender, mut receiver) = oneshot::channel();
    let companion = Companion { hold: None, receipt: Some(sender) };
    let late = Event { time: START, ..event(1, 1) };
    assert_eq!(lane.offer(Offered { companion, ..push(late.clone()) }), Offer::Held);
    lane.offer(row(late, true));
    assert_eq!(published(&mut lane), [(1, 1)]);
    assert_eq!(receiver.try_recv(), Ok(0));
}

#[test]
fn what_is_read_back_is_not_published_again() {
    let mut lane = connected();
    for (task, version) in [(1, 1), (1, 2), (1, 3), (2, 1)] {
        offer(&mut lane, task, version);
    }
    batch(&mut lane);
    lane.failed();
    lane.connected(0, 2);
    assert_eq!(lane.next(LIMITS), Next::Read { from: 0 });
    let ids = vec![event(1, 1).id, event(1, 2).id];
    let read = lane.read(&vec![found(1, 1, 0), found(1, 2, 1)], 2, 2);
    assert_eq!(read, Published { ids, next_offset: 2 });
    assert_eq!(published(&mut lane), [(1, 3), (2, 1)]);
    assert_eq!(offer(&mut lane, 1, 2), Offer::Duplicate);
}

#[test]
fn reading_back_goes_on_where_a_failure_ended_it() {
    let mut lane = Lane::new(start(false));
    lane.connected(5, 9);
    lane.read(&Found::new(), 7, 9);
    lane.failed();
    assert_eq!(lane.next(LIMITS), Next::Connect { from: Some(7) });
}

#[test]
fn a_position_that_is_gone_is_where_the_partition_begins() {
    for (position, earliest, end) in [(5, 7, 9), (50, 0, 3)] {
        let mut lane = Lane::new(start(false));
        lane.connected(position, end);
        assert_eq!(lane.next(LIMITS), Next::Read { from: position });
        lane.gone(earliest);
        assert_eq!(lane.next(LIMITS), Next::Read { from: earliest });
        lane.read(&Found::new(), end, end);
        assert_eq!(lane.next(LIMITS), Next::Idle);
    }
}

#[test]
fn a_version_made_anew_after_a_restore_is_published() {
    let mut lane = connected();
    for version in 1..=3 {
        offer(&mut lane, 1, version);
    }
    published(&mut lane);
    // The database has lost versions 2 and 3.
    let second = anew(1, 2, event_id(1, 1));
    let third = anew(1, 3, second.id);
    assert_eq!(lane.offer(row(second.clone(), true)), Offer::Held);
    assert_eq!(lane.offer(row(third.clone(), false)), Offer::Held);
    let gap = gap(&mut lane);
    assert_eq!((gap.after, gap.up_to), (0, 3));
    lane.fill(gap, rows(vec![second, third]));
    assert_eq!(published(&mut lane), [(1, 2), (1, 3)]);
}

#[test]
fn a_change_after_a_lost_one_waits_for_its_own_history() {
    let mut lane = connected();
    for version in 1..=3 {
        offer(&mut lane, 1, version);
    }
    published(&mut lane);
    // Versions 3 and 4 are made anew, and only the push of the latter arrives.
    let third = anew(1, 3, event_id(1, 2));
    let fourth = anew(1, 4, third.id);
    assert_eq!(lane.offer(push(fourth.clone())), Offer::Held);
    let gap = gap(&mut lane);
    assert_eq!((gap.after, gap.up_to), (0, 4));
    lane.fill(gap, rows(vec![third, fourth]));
    assert_eq!(published(&mut lane), [(1, 3), (1, 4)]);
}

#[test]
fn a_late_push_of_an_older_version_is_left_to_the_poller() {
    let mut lane = connected();
    for version in 1..=3 {
        offer(&mut lane, 1, version);
    }
    published(&mut lane);
    lane.note_removed(1);
    assert_eq!(offer(&mut lane, 1, 2), Offer::Duplicate);
    assert_eq!((lane.next(LIMITS), lane.pending()), (Next::Idle, 0));
}

#[test]
fn a_published_event_is_known_until_its_row_is_removed() {
    let mut lane = connected();
    for version in 1..=3 {
        offer(&mut lane, 1, version);
    }
    published(&mut lane);
    assert_eq!(lane.offer(row(event(1, 2), true)), Offer::Duplicate);
    lane.note_removed(1);
    // A page that was read before the removal still has it: the outbox decides.
    assert_eq!(lane.offer(row(event(1, 2), true)), Offer::Held);
    let gap = gap(&mut lane);
    lane.fill(gap, rows(vec![]));
    assert_eq!((lane.next(LIMITS), lane.pending()), (Next::Idle, 0));
}

#[test]
fn an_event_made_anew_is_not_taken_for_one_that_is_read_back() {
    let mut lane = Lane::new(start(false));
    lane.connected(3, 5);
    let fourth = anew(1, 4, event_id(1, 3));
    assert_eq!(lane.offer(row(fourth.clone(), true)), Offer::Queued);
    assert_eq!(lane.offer(row(event(2, 4), true)), Offer::Queued);
    let read = lane.read(&vec![found(1, 4, 3), found(2, 4, 4)], 5, 5);
    assert_eq!(read.ids, [event(1, 4).id, event(2, 4).id]);
    assert_eq!(lane.batch().len(), 0);
    assert_eq!(lane.next(LIMITS), Next::Publish);
    assert_eq!(lane.batch()[0].event.id, fourth.id);
}

#[test]
fn an_idle_lane_stores_how_far_it_has_looked() {
    let mut lane = connected();
    assert_eq!(lane.looked(7), Some(Published { ids: Vec::new(), next_offset: 7 }));
    assert_eq!(lane.looked(8), None, "the last position is not stored yet");
    lane.note_removed(1);
    assert_eq!(lane.looked(7), None);
    offer(&mut lane, 1, 1);
    assert_eq!(lane.looked(9), None, "an event is waiting");
}

/// A lane of a replicated partition, with nothing in doubt.
fn replicated() -> Lane {
    let mut lane = Lane::new(start(true));
    lane.connected(0, 0);
    lane.offer(row(event(9, 1), true));
    assert_eq!(lane.next(LIMITS), Next::Prove);
    lane.waived(0);
    assert_eq!(published(&mut lane), [(9, 1)]);
    lane
}

/// The same after a batch that failed, with task 1, and a new connection.
fn with_a_batch_of_unknown_fate() -> Lane {
    let mut lane = replicated();
    offer(&mut lane, 1, 1);
    batch(&mut lane);
    lane.failed();
    lane.connected(1, 1);
    lane
}

#[test]
fn a_batch_of_unknown_fate_waits_for_a_new_event() {
    let mut lane = with_a_batch_of_unknown_fate();
    assert_eq!(lane.next(LIMITS), Next::Prove);
    // Version 2 of the same task may not go before version 1.
    offer(&mut lane, 1, 2);
    assert_eq!(lane.next(LIMITS), Next::Prove);
    offer(&mut lane, 2, 1);
    assert_eq!(batch(&mut lane), [(2, 1)]);
    // One record was appended before it that nobody could read.
    let acked = lane.acked(&[2]);
    assert_eq!(acked, Published { ids: vec![event_id(2, 1)], next_offset: 1 });
    assert_eq!(lane.next(LIMITS), Next::Read { from: 1 });
    lane.read(&vec![found(1, 1, 1), found(2, 1, 2)], 3, 3);
    assert_eq!(published(&mut lane), [(1, 2)]);
}

#[test]
fn a_batch_that_was_not_appended_goes_after_the_proof() {
    let mut lane = with_a_batch_of_unknown_fate();
    offer(&mut lane, 2, 1);
    assert_eq!(batch(&mut lane), [(2, 1)]);
    assert_eq!(lane.acked(&[1]).next_offset, 2);
    assert_eq!(published(&mut lane), [(1, 1)]);
}

#[test]
fn rows_from_before_the_term_wait_for_one_committed_after() {
    let mut lane = Lane::new(Start { last_seq: 5, ..start(true) });
    lane.connected(0, 0);
    let numbered = |event, seq| Offered { seq: Some(seq), ..row(event, true) };
    lane.offer(numbered(event(1, 1), 5));
    lane.offer(push(event(2, 1)));
    assert_eq!(lane.next(LIMITS), Next::Prove, "a push may be old");
    lane.offer(numbered(event(2, 1), 6));
    assert_eq!(batch(&mut lane), [(2, 1)]);
    lane.acked(&[0]);
    assert_eq!(published(&mut lane), [(1, 1)]);
}

#[test]
fn without_a_new_event_the_wait_ends_with_a_last_look() {
    let mut lane = with_a_batch_of_unknown_fate();
    assert_eq!(lane.next(LIMITS), Next::Prove);
    lane.waived(2);
    assert_eq!(lane.next(LIMITS), Next::Read { from: 1 });
    lane.read(&vec![found(1, 1, 1)], 2, 2);
    assert_eq!((lane.next(LIMITS), lane.pending()), (Next::Idle, 0));
}

#[test]
fn a_refused_event_is_found_and_parked_with_what_waits_behind_it() {
    let mut lane = connected();
    for (task, version) in [(1, 1), (2, 1), (2, 2), (3, 1)] {
        offer(&mut lane, task, version);
    }
    let mut on_topic = Vec::new();
    let parked = loop {
        match lane.next(LIMITS) {
            Next::Publish if lane.batch().iter().any(|offered| offered.event.id == event(2, 1).id) => {
                lane.refused("too large".to_owned());
            }
            Next::Publish => on_topic.extend(published_now(&mut lane)),
            Next::Park(refused) => break refused,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((parked.event_id, parked.reason.as_str()), (event(2, 1).id, "too large"));
    lane.parked();
    on_topic.extend(published(&mut lane));
    assert_eq!((on_topic, lane.pending()), (vec![(1, 1), (3, 1)], 0));
    // The next change of the task finds nothing in the outbox that may go.
    assert_eq!(offer(&mut lane, 2, 3), Offer::Held);
    let behind = gap(&mut lane);
    lane.fill(behind, rows(vec![]));
    assert_eq!((lane.next(LIMITS), lane.pending()), (Next::Idle, 0));
    // When it is retried the sweep finds it as its task's oldest.
    assert_eq!(lane.offer(row(event(2, 1), true)), Offer::Queued);
    assert_eq!(published(&mut lane), [(2, 1)]);
}

#[test]
fn a_batch_keeps_its_limits_but_is_never_empty() {
    let mut lane = connected();
    offer(&mut lane, 1, 1);
    offer(&mut lane, 2, 1);
    lane.next(BatchLimits { events_max: 10, bytes_max: 1 });
    assert_eq!(lane.batch().len(), 1);
}

#[test]
fn a_batch_is_full_when_waiting_would_not_make_it_larger() {
    let mut lane = connected();
    let is_full =
        |lane: &Lane, events_max, bytes_max| lane.has_full_batch(BatchLimits { events_max, bytes_max });
    assert!(!is_full(&lane, 2, usize::MAX));
    offer(&mut lane, 1, 1);
    assert!(!is_full(&lane, 2, usize::MAX));
    assert!(is_full(&lane, 1, usize::MAX));
    let bytes = event_bytes(&event(1, 1));
    assert!(!is_full(&lane, 2, bytes));
    offer(&mut lane, 2, 1);
    assert!(is_full(&lane, 2, usize::MAX) && is_full(&lane, 3, bytes));
    // What is refused is found in ever smaller batches, which need not wait either.
    lane.next(BatchLimits { events_max: 3, bytes_max: usize::MAX });
    lane.refused("too large".into());
    assert!(is_full(&lane, 3, usize::MAX));
}
