use std::collections::{BTreeMap, BTreeSet};

use contract::{EventType, timestamp};
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

const LIMITS: BatchLimits = BatchLimits { events_max: 3, bytes_max: 1_000_000 };

fn event(task: u128, version: u64) -> Event {
    Event {
        id: Uuid::from_u128((task << 32) + u128::from(version)),
        event_type: if version == 1 { EventType::TaskCreated } else { EventType::TaskUpdated },
        task_id: Uuid::from_u128(task),
        version,
        time: timestamp::now(),
        traceparent: None,
        cache_stale: false,
        payload: RawValue::from_string("{}".to_owned()).unwrap(),
    }
}

fn offer(lane: &mut Lane, task: u128, version: u64) -> Offer {
    lane.offer(Offered { event: event(task, version), oldest: false, companion: Companion::default() })
}

fn published(lane: &mut Lane) -> Vec<(u128, u64)> {
    let batch = lane.next_batch(LIMITS);
    let published: Vec<_> =
        batch.iter().map(|offered| (offered.event.task_id.as_u128(), offered.event.version)).collect();
    let offsets: Vec<_> = (0..).take(published.len()).collect();
    lane.acked(&offsets);
    published
}

#[test]
fn a_first_version_goes_at_once_and_the_next_ones_behind_it() {
    let mut lane = Lane::default();
    assert_eq!(offer(&mut lane, 1, 1), Offer::Queued);
    assert_eq!(offer(&mut lane, 1, 2), Offer::Queued);
    assert_eq!(published(&mut lane), [(1, 1), (1, 2)]);
    assert_eq!(offer(&mut lane, 1, 3), Offer::Queued);
    assert_eq!(published(&mut lane), [(1, 3)]);
}

#[test]
fn what_is_queued_or_published_is_not_taken_twice() {
    let mut lane = Lane::default();
    offer(&mut lane, 1, 1);
    assert_eq!(offer(&mut lane, 1, 1), Offer::Duplicate);
    published(&mut lane);
    assert_eq!(offer(&mut lane, 1, 1), Offer::Duplicate);
    assert_eq!(lane.pending(), 0);
}

#[test]
fn a_version_ahead_of_its_turn_waits_for_the_backlog() {
    let mut lane = Lane::default();
    offer(&mut lane, 1, 1);
    assert_eq!(offer(&mut lane, 1, 3), Offer::Held);
    assert_eq!(published(&mut lane), [(1, 1)]);
    let gap = lane.gap().unwrap();
    assert_eq!(gap, Gap { task_id: Uuid::from_u128(1), after: 1, up_to: 3 });
    lane.fill(gap, vec![event(1, 2), event(1, 3)]);
    assert_eq!(published(&mut lane), [(1, 2), (1, 3)]);
    assert_eq!((lane.gap(), lane.pending()), (None, 0));
}

#[test]
fn what_the_outbox_no_longer_has_is_published() {
    let mut lane = Lane::default();
    assert_eq!(offer(&mut lane, 1, 5), Offer::Held);
    let gap = lane.gap().unwrap();
    lane.fill(gap, vec![event(1, 5)]);
    assert_eq!(published(&mut lane), [(1, 5)]);

    assert_eq!(offer(&mut lane, 2, 5), Offer::Held);
    let gap = lane.gap().unwrap();
    lane.fill(gap, vec![]);
    assert_eq!(lane.pending(), 0);
}

#[test]
fn a_row_seen_as_its_tasks_oldest_needs_no_second_look() {
    let mut lane = Lane::default();
    let oldest = Offered { event: event(1, 7), oldest: true, companion: Companion::default() };
    assert_eq!(lane.offer(oldest), Offer::Queued);
    assert_eq!(offer(&mut lane, 1, 8), Offer::Queued);
    assert_eq!(published(&mut lane), [(1, 7), (1, 8)]);
}

#[test]
fn a_failed_batch_is_the_next_one_again() {
    let mut lane = Lane::default();
    for task in 1..=4 {
        offer(&mut lane, task, 1);
    }
    lane.next_batch(LIMITS);
    lane.failed();
    assert_eq!(published(&mut lane), [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(published(&mut lane), [(4, 1)]);
}

#[test]
fn who_waits_is_told_the_offset_whichever_way_the_event_came() {
    let mut lane = Lane::default();
    let wait = |lane: &mut Lane| {
        let (sender, receiver) = oneshot::channel();
        let companion = Companion { hold: None, receipt: Some(sender) };
        lane.offer(Offered { event: event(1, 1), oldest: false, companion });
        receiver
    };
    offer(&mut lane, 1, 1); // the sweep was faster
    let mut queued = wait(&mut lane);
    lane.next_batch(LIMITS);
    let mut under_way = wait(&mut lane);
    lane.acked(&[41]);
    let mut published = wait(&mut lane);
    // Of two who wait for the same event the later one is told.
    assert!(queued.try_recv().is_err());
    assert_eq!((under_way.try_recv(), published.try_recv()), (Ok(41), Ok(41)));
}

#[test]
fn what_is_seen_on_the_partition_is_not_published_again() {
    let mut lane = Lane::default();
    for (task, version) in [(1, 1), (1, 2), (1, 3), (2, 1)] {
        offer(&mut lane, task, version);
    }
    lane.next_batch(LIMITS);
    lane.failed();
    lane.seen(&HashMap::from([(Uuid::from_u128(1), OnTopic { version: 2, offset: 7 })]));
    assert_eq!(published(&mut lane), [(1, 3), (2, 1)]);
    assert_eq!(offer(&mut lane, 1, 2), Offer::Duplicate);
}

#[test]
fn a_batch_keeps_its_limits_but_is_never_empty() {
    let mut lane = Lane::default();
    offer(&mut lane, 1, 1);
    offer(&mut lane, 2, 1);
    let batch = lane.next_batch(BatchLimits { events_max: 10, bytes_max: 1 });
    assert_eq!(batch.len(), 1);
}

/// What may happen to a lane.
#[derive(Clone, Debug)]
enum Step {
    /// A task changes; the row is in the outbox.
    Commit { task: u128 },
    /// One of the committed events is forwarded, perhaps late, perhaps again.
    Forward { choice: prop::sample::Index },
    /// The sweep offers one of the rows.
    Sweep { choice: prop::sample::Index },
    /// The lane loads a backlog.
    Fill,
    /// A batch goes out.
    Publish { fate: Fate },
    /// The sidecar is killed and started again.
    Restart,
}

/// What becomes of a produce request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Acked,
    /// It never reached the broker.
    Lost,
    /// It did, and the ack was lost.
    AckLost,
    /// It did, and the sidecar died before it removed the rows.
    Killed,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_u128).prop_map(|task| Step::Commit { task }),
        any::<prop::sample::Index>().prop_map(|choice| Step::Forward { choice }),
        any::<prop::sample::Index>().prop_map(|choice| Step::Sweep { choice }),
        Just(Step::Fill),
        prop_oneof![Just(Fate::Acked), Just(Fate::Lost), Just(Fate::AckLost), Just(Fate::Killed)]
            .prop_map(|fate| Step::Publish { fate }),
        Just(Step::Restart),
    ]
}

#[derive(Default)]
struct World {
    committed: Vec<(u128, u64)>,
    outbox: BTreeSet<(u128, u64)>,
    topic: Vec<(u128, u64)>,
    lane: Lane,
}

impl World {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Commit { task } => {
                let version = self.committed.iter().filter(|(other, _)| other == task).count() as u64 + 1;
                self.committed.push((*task, version));
                self.outbox.insert((*task, version));
            }
            Step::Forward { choice } if !self.committed.is_empty() => {
                let (task, version) = *choice.get(&self.committed);
                offer(&mut self.lane, task, version);
            }
            Step::Sweep { choice } if !self.outbox.is_empty() => {
                let rows: Vec<_> = self.outbox.iter().copied().collect();
                self.sweep(*choice.get(&rows));
            }
            Step::Fill => {
                if let Some(gap) = self.lane.gap() {
                    let task = gap.task_id.as_u128();
                    let rows = self.outbox.range((task, gap.after + 1)..=(task, gap.up_to));
                    let rows = rows.map(|(task, version)| event(*task, *version)).collect();
                    self.lane.fill(gap, rows);
                }
            }
            Step::Publish { fate } => {
                let batch = self.lane.next_batch(LIMITS).iter();
                let batch: Vec<_> =
                    batch.map(|offered| (offered.event.task_id.as_u128(), offered.event.version)).collect();
                match fate {
                    Fate::Acked => {
                        let offsets: Vec<_> = (0..).take(batch.len()).collect();
                        self.lane.acked(&offsets);
                        self.topic.extend(&batch);
                        self.outbox.retain(|row| !batch.contains(row));
                    }
                    Fate::Lost => {
                        self.lane.failed();
                        self.read_back();
                    }
                    Fate::AckLost => {
                        self.topic.extend(&batch);
                        self.lane.failed();
                        self.read_back();
                    }
                    Fate::Killed => {
                        self.topic.extend(&batch);
                        self.take(&Step::Restart);
                    }
                }
            }
            Step::Restart => {
                self.lane = Lane::default();
                self.read_back();
            }
            Step::Forward { .. } | Step::Sweep { .. } => {}
        }
    }

    /// The lane learns what is on the topic; the rows of that can go.
    fn read_back(&mut self) {
        let mut versions = HashMap::new();
        for (task, version) in &self.topic {
            let first = OnTopic { version: *version, offset: 0 };
            let newest = versions.entry(Uuid::from_u128(*task)).or_insert(first);
            newest.version = newest.version.max(*version);
            self.outbox.remove(&(*task, *version));
        }
        self.lane.seen(&versions);
    }

    fn sweep(&mut self, (task, version): (u128, u64)) {
        let oldest = self.outbox.range((task, 0)..(task, version)).next().is_none();
        self.lane.offer(Offered { event: event(task, version), oldest, companion: Companion::default() });
    }

    fn settle(&mut self) {
        while !self.outbox.is_empty() || self.lane.pending() > 0 {
            for row in self.outbox.clone() {
                self.sweep(row);
            }
            self.take(&Step::Fill);
            self.take(&Step::Publish { fate: Fate::Acked });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        rng_seed: prop::test_runner::RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_event_is_published_once_and_each_tasks_in_order(
        steps in prop::collection::vec(step(), 0..200)
    ) {
        let mut world = World::default();
        for step in &steps {
            world.take(step);
        }
        world.settle();
        let mut last: BTreeMap<u128, u64> = BTreeMap::new();
        for (task, version) in &world.topic {
            let before = last.insert(*task, *version).unwrap_or(0);
            prop_assert_eq!(*version, before + 1, "task {} in {:?}", task, &world.topic);
        }
        prop_assert_eq!(world.topic.len(), world.committed.len());
    }
}
