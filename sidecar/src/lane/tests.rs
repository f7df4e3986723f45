use chrono::TimeDelta;
use contract::EventType;
use serde_json::value::RawValue;

use super::*;

/// When the tests' lanes begin; their events are newer, unless said otherwise.
const START: DateTime<Utc> = DateTime::UNIX_EPOCH;
const LIMITS: BatchLimits = BatchLimits { events_max: 3, bytes_max: 1_000_000 };

pub(super) fn event(task: u128, version: u64) -> Event {
    Event {
        id: Uuid::from_u128((task << 32) + u128::from(version)),
        event_type: if version == 1 { EventType::TaskCreated } else { EventType::TaskUpdated },
        task_id: Uuid::from_u128(task),
        version,
        time: START + TimeDelta::seconds(100),
        traceparent: None,
        cache_stale: false,
        payload: RawValue::from_string("{}".to_owned()).unwrap(),
    }
}

fn offer(lane: &mut Lane, task: u128, version: u64) -> Offer {
    lane.offer(Offered { event: event(task, version), oldest: false, companion: Companion::default() })
}

/// A lane that knows its partition, which is empty.
fn connected() -> Lane {
    let mut lane = Lane::new(START, 1);
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
    assert_eq!(gap, Gap { task_id: Uuid::from_u128(1), after: 1, up_to: 3 });
    lane.fill(gap, vec![event(1, 2), event(1, 3)]);
    assert_eq!(published(&mut lane), [(1, 1), (1, 2), (1, 3)]);
    assert_eq!((lane.next(LIMITS), lane.pending()), (Next::Idle, 0));
}

#[test]
fn a_creation_from_before_the_start_may_be_published_and_is_looked_up() {
    let mut lane = connected();
    for task in [1, 2] {
        let event = Event { time: START, ..event(task, 1) };
        let late = Offered { event, oldest: false, companion: Companion::default() };
        assert_eq!(lane.offer(late), Offer::Held);
    }
    let first = gap(&mut lane);
    lane.fill(first, vec![event(1, 1)]);
    let second = gap(&mut lane);
    lane.fill(second, vec![]);
    assert_eq!(published(&mut lane), [(1, 1)]);
    assert_eq!(lane.pending(), 0);
}

#[test]
fn what_the_outbox_no_longer_has_is_published() {
    let mut lane = connected();
    assert_eq!(offer(&mut lane, 1, 5), Offer::Held);
    let five = gap(&mut lane);
    lane.fill(five, vec![event(1, 5)]);
    assert_eq!(published(&mut lane), [(1, 5)]);

    assert_eq!(offer(&mut lane, 2, 5), Offer::Held);
    let five = gap(&mut lane);
    lane.fill(five, vec![]);
    assert_eq!(lane.pending(), 0);
}

#[test]
fn a_row_seen_as_its_tasks_oldest_needs_no_second_look() {
    let mut lane = connected();
    let oldest = Offered { event: event(1, 7), oldest: true, companion: Companion::default() };
    assert_eq!(lane.offer(oldest), Offer::Queued);
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
        lane.offer(Offered { event: event(1, 1), oldest: false, companion });
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
    assert_eq!(lane.offer(Offered { event: late.clone(), oldest: false, companion }), Offer::Held);
    lane.offer(Offered { event: late, oldest: true, companion: Companion::default() });
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
    let newest =
        HashMap::from([(Uuid::from_u128(1), OnTopic { version: 2, offset: 1, time: event(1, 2).time })]);
    let ids = vec![event(1, 1).id, event(1, 2).id];
    let read = lane.read(Found { ids: ids.clone(), newest }, 2, 2);
    assert_eq!(read, Published { ids, next_offset: 2 });
    assert_eq!(published(&mut lane), [(1, 3), (2, 1)]);
    assert_eq!(offer(&mut lane, 1, 2), Offer::Duplicate);
}

#[test]
fn reading_back_goes_on_where_a_failure_ended_it() {
    let mut lane = Lane::new(START, 1);
    lane.connected(5, 9);
    lane.read(Found::default(), 7, 9);
    lane.failed();
    assert_eq!(lane.next(LIMITS), Next::Connect { from: Some(7) });
}

#[test]
fn a_position_that_is_gone_is_where_the_partition_begins() {
    for (position, earliest, end) in [(5, 7, 9), (50, 0, 3)] {
        let mut lane = Lane::new(START, 1);
        lane.connected(position, end);
        assert_eq!(lane.next(LIMITS), Next::Read { from: position });
        lane.gone(earliest);
        assert_eq!(lane.next(LIMITS), Next::Read { from: earliest });
        lane.read(Found::default(), end, end);
        assert_eq!(lane.next(LIMITS), Next::Idle);
    }
}

#[test]
fn a_version_that_is_made_anew_after_a_restore_is_published() {
    let mut lane = connected();
    for version in 1..=3 {
        offer(&mut lane, 1, version);
    }
    published(&mut lane);
    let again = |version| Event { time: START + TimeDelta::seconds(200), ..event(1, version) };
    let sweep = |lane: &mut Lane, version, oldest| {
        lane.offer(Offered { event: again(version), oldest, companion: Companion::default() })
    };
    assert_eq!(sweep(&mut lane, 2, true), Offer::Held);
    assert_eq!(sweep(&mut lane, 3, false), Offer::Held);
    let anew = gap(&mut lane);
    lane.fill(anew, vec![again(2), again(3)]);
    assert_eq!(published(&mut lane), [(1, 2), (1, 3)]);
}

#[test]
fn what_is_made_anew_after_a_restore_is_not_taken_for_what_is_read_back() {
    let mut lane = Lane::new(START, 1);
    lane.connected(3, 5);
    let again = Event { time: START + TimeDelta::seconds(200), ..event(1, 4) };
    let row = |event: &Event| Offered { event: event.clone(), oldest: true, companion: Companion::default() };
    // The dump had version 3 of both tasks, the partition has 5 of the one and 4 of the other.
    assert_eq!(lane.offer(row(&again)), Offer::Queued);
    assert_eq!(lane.offer(row(&event(2, 4))), Offer::Queued);
    let on_topic = |task, version| {
        (Uuid::from_u128(task), OnTopic { version, offset: 4, time: event(task, version).time })
    };
    let found = Found { ids: vec![event(1, 5).id], newest: HashMap::from([on_topic(1, 5), on_topic(2, 4)]) };
    assert_eq!(lane.read(found, 5, 5).ids, [event(1, 5).id, event(2, 4).id], "not the one that is made anew");
    assert_eq!(lane.offer(row(&again)), Offer::Held);
    let anew = gap(&mut lane);
    lane.fill(anew, vec![again]);
    assert_eq!(published(&mut lane), [(1, 4)]);
}

#[test]
fn rows_that_can_go_are_offered_again_and_again_and_go_once_in_parts() {
    let mut lane = Lane::new(START, 1);
    lane.connected(7, 8);
    let tasks = 1..=(INFERRED_ROWS_MAX as u128 + 1);
    let time = event(1, 3).time;
    let on_topic = |task| (Uuid::from_u128(task), OnTopic { version: 3, offset: 7, time });
    lane.read(Found { ids: Vec::new(), newest: tasks.clone().map(on_topic).collect() }, 8, 8);
    for task in tasks.clone().chain(tasks) {
        let row = Offered { event: event(task, 2), oldest: true, companion: Companion::default() };
        assert_eq!(lane.offer(row), Offer::Duplicate);
    }
    let mut removed = Vec::new();
    while let Next::Remove(Published { ids, .. }) = lane.next(LIMITS) {
        assert!(ids.len() <= INFERRED_ROWS_MAX);
        removed.extend(ids);
    }
    assert_eq!(removed.len(), INFERRED_ROWS_MAX + 1);
}

#[test]
fn a_row_whose_event_is_published_though_nobody_saw_it_goes() {
    let mut lane = Lane::new(START, 1);
    lane.connected(7, 8);
    let newest =
        HashMap::from([(Uuid::from_u128(1), OnTopic { version: 3, offset: 7, time: event(1, 3).time })]);
    lane.read(Found { ids: vec![event(1, 3).id], newest }, 8, 8);
    let row = Offered { event: event(1, 2), oldest: true, companion: Companion::default() };
    assert_eq!(lane.offer(row), Offer::Duplicate);
    assert_eq!(lane.next(LIMITS), Next::Remove(Published { ids: vec![event(1, 2).id], next_offset: 8 }));
    assert_eq!(lane.next(LIMITS), Next::Idle);
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
    lane.fill(behind, vec![]);
    assert_eq!((lane.next(LIMITS), lane.pending()), (Next::Idle, 0));
    // When it is retried the sweep finds it as its task's oldest.
    let retried = Offered { event: event(2, 1), oldest: true, companion: Companion::default() };
    assert_eq!(lane.offer(retried), Offer::Queued);
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
