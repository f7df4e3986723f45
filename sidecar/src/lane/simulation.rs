//! Lanes against a model of everything around them: brokers, outbox, network, clients and crashes, in an
//! order that a seed decides.
//!
//! After each seed's steps everything is healed, and then: every committed event is on the topic, except
//! what is parked and what the database itself has lost; first occurrences are in order; a second one
//! has its reason; and everybody who was told an offset finds the event there. `SIMULATION_SEED=n` runs
//! one seed and prints its steps.

mod broker;
mod sidecar;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use world::{Id, World};

const SEEDS: u64 = 10_000;
const STEPS: usize = 250;

/// Steps without faults within which everything has to be published.
const SETTLING_STEPS_MAX: usize = 20_000;

/// What keeps the promise. The simulation runs with everything, and then, to show that it would notice,
/// without one of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Safeguard {
    GapCheck,
    ReadBack,
    OneInFlight,
    RemoveAfterAck,
    Lock,
    LookUp,
    /// Where reading back begins is found out before the sweep reads its first page.
    PositionFirst,
    /// Events that may be appended and not readable wait for one that surely is new.
    Doubt,
    /// Events are known by their ids, and not by task and version.
    Identity,
    /// An event names the one before it.
    PreviousEvent,
}

/// What a seed's steps came to, or what is wrong with it.
fn run(seed: u64, without: Option<Safeguard>, is_traced: bool) -> Result<Tally, String> {
    let mut world = World::new(seed, without, is_traced);
    for _ in 0..STEPS {
        world.step()?;
    }
    world.heal();
    for _ in 0..SETTLING_STEPS_MAX {
        if world.is_settled() {
            return check(&world);
        }
        world.step()?;
    }
    Err(format!("stuck: {}", world.what_is_left()))
}

/// What happened, in all seeds together: a simulation in which nothing goes wrong proves nothing.
#[derive(Debug, Default)]
struct Tally {
    events: usize,
    doubled: usize,
    parked: usize,
    restored: usize,
}

fn check(world: &World) -> Result<Tally, String> {
    let mut seen: BTreeSet<Id> = BTreeSet::new();
    let mut times: BTreeMap<Id, Vec<usize>> = BTreeMap::new();
    for (offset, record) in world.broker.log.iter().enumerate() {
        let Some(commit) = world.committed.get(&record.id) else {
            return Err(format!("phantom: {:?}", record.id));
        };
        if seen.insert(record.id)
            && let Some(previous) = commit.previous
            && !seen.contains(&previous)
        {
            return Err(format!("out of order: {:?} before {previous:?}", record.id));
        }
        times.entry(record.id).or_default().push(offset);
    }
    let mut tally = Tally { events: world.committed.len(), ..Tally::default() };
    for id in world.committed.keys() {
        let is_waiting = world.is_parked(*id);
        let is_lost = world.lost.contains(id);
        tally.parked += usize::from(is_waiting);
        tally.restored += usize::from(is_lost);
        match times.get(id).map_or(&[][..], Vec::as_slice) {
            [] if is_waiting || is_lost => {}
            [] => return Err(format!("lost: {id:?}")),
            [_once] => {}
            occurrences if occurrences.iter().any(|offset| world.broker.log[*offset].excuse) => {
                tally.doubled += 1;
            }
            _ => return Err(format!("doubled without a reason: {id:?}")),
        }
    }
    Ok(tally)
}

#[test]
fn nothing_is_lost_reordered_or_needlessly_repeated_whatever_happens() {
    if let Ok(seed) = std::env::var("SIMULATION_SEED") {
        let seed = seed.parse().expect("SIMULATION_SEED is a number");
        println!("{:?}", run(seed, None, true).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}")));
        return;
    }
    let mut sum = Tally::default();
    for seed in 0..SEEDS {
        let tally = run(seed, None, false).unwrap_or_else(|wrong| {
            panic!("seed {seed}: {wrong}\nevery step: SIMULATION_SEED={seed} cargo test --release -p kafka-sidecar simulation -- --nocapture")
        });
        sum.events += tally.events;
        sum.doubled += tally.doubled;
        sum.parked += tally.parked;
        sum.restored += tally.restored;
    }
    println!("{SEEDS} seeds: {sum:?}");
    assert!(sum.events > 20 * SEEDS as usize, "{sum:?}");
    assert!(sum.doubled > 0 && sum.parked > 0 && sum.restored > 0, "{sum:?}");
}

/// The simulation has teeth: without any one of the safeguards it finds out.
mod without {
    use super::{Safeguard, run};

    /// Seeds within which it has to be found.
    const SEEDS: u64 = 2_000;

    fn is_found(without: Safeguard, expected: &[&str]) {
        let found: Vec<String> =
            (0..SEEDS).filter_map(|seed| run(seed, Some(without), false).err()).collect();
        for expected in expected {
            assert!(found.iter().any(|wrong| wrong.starts_with(expected)), "{expected}: {found:?}");
        }
    }

    #[test]
    fn the_gap_check_events_are_out_of_order() {
        is_found(Safeguard::GapCheck, &["out of order"]);
    }

    #[test]
    fn reading_back_events_are_doubled() {
        is_found(Safeguard::ReadBack, &["doubled"]);
    }

    #[test]
    fn one_batch_in_flight_events_are_out_of_order_or_lost() {
        is_found(Safeguard::OneInFlight, &["out of order"]);
    }

    #[test]
    fn removal_after_the_ack_events_are_lost() {
        is_found(Safeguard::RemoveAfterAck, &["lost"]);
    }

    #[test]
    fn the_lock_events_are_doubled() {
        is_found(Safeguard::Lock, &["doubled"]);
    }

    #[test]
    fn the_position_before_the_rows_events_are_doubled() {
        is_found(Safeguard::PositionFirst, &["doubled"]);
    }

    #[test]
    fn the_look_up_of_late_creations_events_are_doubled() {
        is_found(Safeguard::LookUp, &["doubled"]);
    }

    #[test]
    fn the_doubt_about_unreadable_records_events_are_doubled() {
        is_found(Safeguard::Doubt, &["doubled"]);
    }

    #[test]
    fn ids_of_their_own_events_after_a_restore_are_lost() {
        is_found(Safeguard::Identity, &["lost"]);
    }

    #[test]
    fn the_previous_events_id_events_after_a_restore_are_out_of_order() {
        is_found(Safeguard::PreviousEvent, &["out of order"]);
    }
}
