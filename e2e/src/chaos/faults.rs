//! The faults, what each may excuse, and when they strike: a schedule is made from seed and round alone.
//!
//! Invariant: in one round no two faults have the same target, so that each can be healed on its own.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use crate::proxy::Trouble;

/// Faults strike in this part of a round's traffic.
const STRIKE_MS: std::ops::Range<u64> = 300..2_500;
const FAULTS_MAX: usize = 3;

#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd, Ord)]
pub enum Fault {
    PublisherKilled,
    StandbyKilled,
    BothSidecarsKilled,
    HostKilled,
    BrokerKilled,
    BrokerPaused,
    BrokerDiskFull,
    /// Several brokers: kills the leader of a random partition.
    LeaderKilled,
    /// Several brokers: pauses a follower of a random partition.
    FollowerPaused,
    BrokersRestarted,
    PartitionsAdded,
    TransactionHeld,
    PostgresStopped,
    /// To what it was a moment before.
    PostgresRestored,
    RedisKilled,
    RedisFlushed,
    RedisPaused,
    /// Killed, and started from an older snapshot.
    RedisRestored,
    RedisRefusing,
    On(Link, LinkFault),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd, Ord)]
pub enum Link {
    SidecarsToKafka,
    /// Of the sidecar that publishes at that moment; the other one may take over.
    PublisherToPostgres,
    SidecarsToPostgres,
    HostToPostgres,
    HostToRedis,
    HostToSidecar,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd, Ord)]
pub enum LinkFault {
    Reset,
    Late,
    HalfOpen,
    Truncated,
}

/// A fault at its moment.
#[derive(Clone, Debug)]
pub struct Strike {
    pub fault: Fault,
    /// After the clients' start.
    pub at: Duration,
    pub lasts: Duration,
    /// Of a fault on a link: what the proxy makes.
    pub trouble: Trouble,
    /// Of resets: so long after each other, until it is over.
    pub every: Duration,
    /// Of half-open connections: reset at the end, instead of going on.
    pub is_severed: bool,
    /// Of a fault with several ways or victims: which.
    pub choice: usize,
}

/// Why Redis refuses to write, and still answers who reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// It follows a master that is not there (READONLY), as after a failover.
    Replica,
    /// It wants a replica that it has not (NOREPLICAS).
    NoReplicas,
    /// This user may not delete (NOPERM).
    NoPermission,
}

/// What a fault breaks, or what it must have for itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Target {
    Sidecars,
    Host,
    Broker,
    Topic,
    Postgres,
    Redis,
    Link(Link),
}

impl Fault {
    /// All that can strike so many brokers.
    pub fn all(brokers: usize) -> Vec<Fault> {
        use Fault::*;
        let mut all = vec![
            PublisherKilled,
            StandbyKilled,
            BothSidecarsKilled,
            HostKilled,
            PartitionsAdded,
            TransactionHeld,
            PostgresStopped,
            PostgresRestored,
            RedisKilled,
            RedisFlushed,
            RedisPaused,
            RedisRestored,
            RedisRefusing,
        ];
        all.extend(match brokers {
            1 => [BrokerKilled, BrokerPaused, BrokerDiskFull],
            _ => [LeaderKilled, FollowerPaused, BrokersRestarted],
        });
        let links = [
            Link::SidecarsToKafka,
            Link::PublisherToPostgres,
            Link::SidecarsToPostgres,
            Link::HostToPostgres,
            Link::HostToRedis,
            Link::HostToSidecar,
        ];
        for link in links {
            for fault in [LinkFault::Reset, LinkFault::Late, LinkFault::HalfOpen, LinkFault::Truncated] {
                all.push(On(link, fault));
            }
        }
        all
    }

    fn targets(self) -> &'static [Target] {
        match self {
            Fault::PublisherKilled | Fault::StandbyKilled | Fault::BothSidecarsKilled => &[Target::Sidecars],
            Fault::HostKilled => &[Target::Host],
            Fault::BrokerKilled
            | Fault::BrokerPaused
            | Fault::BrokerDiskFull
            | Fault::LeaderKilled
            | Fault::FollowerPaused
            | Fault::BrokersRestarted => &[Target::Broker],
            Fault::PartitionsAdded | Fault::TransactionHeld => &[Target::Topic],
            Fault::PostgresStopped => &[Target::Postgres],
            // Redis is flushed with it.
            Fault::PostgresRestored => &[Target::Postgres, Target::Redis, Target::Link(Link::HostToRedis)],
            Fault::RedisKilled
            | Fault::RedisFlushed
            | Fault::RedisPaused
            | Fault::RedisRestored
            | Fault::RedisRefusing => &[Target::Redis],
            // The proxies of the sidecars' database are the same.
            Fault::On(Link::PublisherToPostgres | Link::SidecarsToPostgres, _) => {
                &[Target::Link(Link::SidecarsToPostgres)]
            }
            Fault::On(Link::SidecarsToKafka, _) => &[Target::Link(Link::SidecarsToKafka)],
            Fault::On(Link::HostToPostgres, _) => &[Target::Link(Link::HostToPostgres)],
            Fault::On(Link::HostToRedis, _) => &[Target::Link(Link::HostToRedis)],
            Fault::On(Link::HostToSidecar, _) => &[Target::Link(Link::HostToSidecar)],
        }
    }

    /// While it lasts, and until the sidecar has made up for it, what is written then may be read as it was before. Of a Redis
    /// that comes back as it was, or that only refuses to write, less is excused: see `world.rs`.
    pub fn loses_invalidations(self) -> bool {
        matches!(
            self,
            Fault::RedisKilled | Fault::RedisFlushed | Fault::RedisPaused | Fault::On(Link::HostToRedis, _)
        )
    }

    /// It cannot strike together with the other one.
    fn excludes(self, other: Fault) -> bool {
        self.targets().iter().any(|target| other.targets().contains(target))
    }

    /// The component may repeat a statement whose answer was lost, and then be answered as who comes second.
    pub fn repeats_statements(self) -> bool {
        matches!(self, Fault::PostgresStopped | Fault::PostgresRestored | Fault::On(Link::HostToPostgres, _))
    }

    /// Why a produce request may take effect after who answers for it has looked for it (D4), if it may.
    pub fn delays_requests(self) -> Option<&'static str> {
        match self {
            Fault::PublisherKilled | Fault::BothSidecarsKilled => {
                Some("a request outlived the sidecar that sent it")
            }
            Fault::BrokerPaused => Some("the broker went on with a request that was given up"),
            Fault::On(Link::SidecarsToKafka, _) => Some("a request reached the broker after it was given up"),
            // The lock changes hands while the former publisher's request is under way.
            Fault::PostgresStopped
            | Fault::PostgresRestored
            | Fault::On(Link::PublisherToPostgres | Link::SidecarsToPostgres, _) => {
                Some("a request outlived the lock of the sidecar that sent it")
            }
            // Of a broker that was stopped only what it led, and of a transaction only one that was long: see `world.rs`.
            Fault::FollowerPaused | Fault::TransactionHeld => None,
            // What a leader had and could not replicate is read back, or gone.
            Fault::LeaderKilled | Fault::BrokersRestarted | Fault::PartitionsAdded => None,
            Fault::StandbyKilled
            | Fault::HostKilled
            | Fault::BrokerKilled
            | Fault::BrokerDiskFull
            | Fault::RedisKilled
            | Fault::RedisFlushed
            | Fault::RedisPaused
            | Fault::RedisRestored
            | Fault::RedisRefusing
            | Fault::On(Link::HostToPostgres | Link::HostToRedis | Link::HostToSidecar, _) => None,
        }
    }
}

impl Strike {
    fn new(fault: Fault, rng: &mut Rng) -> Strike {
        let mut ms = |range: std::ops::Range<u64>| Duration::from_millis(rng.u64(range));
        let at = ms(STRIKE_MS);
        let every = ms(100..600);
        let lasts = match fault {
            // Longer than the deadlines, which are KAFKA_TIMEOUT_MS and the like of `world.rs`.
            Fault::BrokerPaused => ms(2_500..4_000),
            Fault::On(_, LinkFault::HalfOpen) => ms(800..4_000),
            Fault::RedisPaused => ms(500..3_000),
            // Time to write, and to have it invalidated.
            Fault::RedisRestored | Fault::RedisRefusing => ms(500..2_500),
            Fault::PostgresRestored => ms(300..1_500),
            // Shorter and longer than `replica.lag.time.max.ms` and the session's timeout.
            Fault::LeaderKilled => ms(0..8_000),
            Fault::FollowerPaused => ms(500..8_000),
            Fault::BrokersRestarted | Fault::PartitionsAdded => Duration::ZERO,
            // Shorter and longer than KAFKA_TRANSACTION_WAIT_MS.
            Fault::TransactionHeld => ms(100..5_000),
            Fault::RedisFlushed => Duration::ZERO,
            Fault::On(_, LinkFault::Reset) => ms(300..2_000),
            Fault::On(_, LinkFault::Late | LinkFault::Truncated) => ms(800..2_500),
            // How long it stays away.
            _ => ms(0..1_500),
        };
        let trouble = match fault {
            Fault::On(_, LinkFault::HalfOpen) => match rng.u8(0..3) {
                0 => Trouble::HalfOpen { up: true, down: false },
                1 => Trouble::HalfOpen { up: false, down: true },
                _ => Trouble::HalfOpen { up: true, down: true },
            },
            Fault::On(_, LinkFault::Late) => Trouble::Late(match rng.u8(0..4) {
                0 => Duration::from_millis(rng.u64(1_200..2_500)), // beyond the deadlines
                _ => Duration::from_millis(rng.u64(20..600)),
            }),
            Fault::On(_, LinkFault::Truncated) => Trouble::Truncated { after_bytes: rng.usize(0..20_000) },
            _ => Trouble::None,
        };
        Strike { fault, at, lasts, trouble, every, is_severed: rng.bool(), choice: rng.usize(..) }
    }

    /// Of a transaction.
    pub fn end(&self) -> &'static str {
        ["commit", "abort", "abandon"][self.choice % 3]
    }

    /// Of Redis that refuses writes.
    pub fn refusal(&self) -> Refusal {
        [Refusal::Replica, Refusal::NoReplicas, Refusal::NoPermission][self.choice % 3]
    }

    /// Produce requests to one partition that this strike may let outlive their sender: one for each time that it makes a
    /// sender give up.
    pub fn requests_delayed_max(&self) -> usize {
        match self.fault {
            Fault::On(_, LinkFault::Reset) => {
                2 + (self.lasts.as_millis() / self.every.as_millis().max(1)) as usize
            }
            Fault::On(_, LinkFault::Truncated) | Fault::BothSidecarsKilled => 3,
            _ => 1,
        }
    }
}

/// The rounds' strikes, one round after the other. Every fault has its turn before any comes again.
pub struct Schedule {
    seed: u64,
    round: u64,
    faults: Vec<Fault>,
    deck: VecDeque<Fault>,
}

impl Schedule {
    pub fn new(seed: u64, faults: Vec<Fault>) -> Schedule {
        Schedule { seed, round: 0, faults, deck: VecDeque::new() }
    }
}

impl Iterator for Schedule {
    type Item = Vec<Strike>;

    fn next(&mut self) -> Option<Vec<Strike>> {
        let mut rng = Rng::with_seed(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.round));
        self.round += 1;
        let count = rng.usize(1..=FAULTS_MAX);
        let mut strikes: Vec<Strike> = Vec::new();
        let mut put_back = Vec::new();
        while strikes.len() < count {
            if self.deck.is_empty() {
                if !put_back.is_empty() {
                    break; // these come first in the next round
                }
                let mut again = self.faults.clone();
                rng.shuffle(&mut again);
                self.deck.extend(again);
            }
            let Some(fault) = self.deck.pop_front() else { break };
            if strikes.iter().any(|strike| strike.fault.excludes(fault)) {
                put_back.push(fault);
            } else {
                strikes.push(Strike::new(fault, &mut rng));
            }
        }
        for fault in put_back.into_iter().rev() {
            self.deck.push_front(fault);
        }
        strikes.sort_by_key(|strike| strike.at);
        Some(strikes)
    }
}

/// How often each fault struck.
pub fn counted<'a>(strikes: impl Iterator<Item = &'a Strike>) -> BTreeMap<Fault, usize> {
    let mut counts = BTreeMap::new();
    for strike in strikes {
        *counts.entry(strike.fault).or_default() += 1;
    }
    counts
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::PublisherKilled => "sidecar killed, the one that publishes",
            Fault::StandbyKilled => "sidecar killed, the one that stands by",
            Fault::BothSidecarsKilled => "both sidecars killed",
            Fault::HostKilled => "host killed",
            Fault::BrokerKilled => "broker killed",
            Fault::BrokerPaused => "broker stopped (SIGSTOP) beyond the deadlines",
            Fault::BrokerDiskFull => "disk of the broker full",
            Fault::LeaderKilled => "leader killed",
            Fault::FollowerPaused => "follower stopped (SIGSTOP)",
            Fault::BrokersRestarted => "brokers restarted one by one",
            Fault::PartitionsAdded => "partitions added",
            Fault::TransactionHeld => "transaction of another producer held open",
            Fault::PostgresStopped => "PostgreSQL shut down immediately",
            Fault::PostgresRestored => "PostgreSQL restored to a state without its last commits",
            Fault::RedisKilled => "Redis killed",
            Fault::RedisFlushed => "Redis flushed",
            Fault::RedisPaused => "Redis stopped (SIGSTOP)",
            Fault::RedisRestored => "Redis killed and started from an older snapshot",
            Fault::RedisRefusing => "Redis refuses writes",
            Fault::On(link, fault) => return write!(f, "{link}: {fault}"),
        })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Link::SidecarsToKafka => "sidecars → Kafka",
            Link::PublisherToPostgres => "publishing sidecar → PostgreSQL",
            Link::SidecarsToPostgres => "both sidecars → PostgreSQL",
            Link::HostToPostgres => "host → PostgreSQL",
            Link::HostToRedis => "host → Redis",
            Link::HostToSidecar => "host → sidecar",
        })
    }
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LinkFault::Reset => "resets",
            LinkFault::Late => "latency",
            LinkFault::HalfOpen => "half-open",
            LinkFault::Truncated => "truncated",
        })
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Strike { fault, at, lasts, trouble, every, is_severed, choice: _ } = self;
        write!(f, "at {at:.1?} for {lasts:.1?}: {fault}")?;
        match (fault, trouble) {
            (Fault::RedisRefusing, _) => write!(f, " ({:?})", self.refusal()),
            (Fault::TransactionHeld, _) => write!(f, " (then {})", self.end()),
            (Fault::On(_, LinkFault::Reset), _) => write!(f, " each {every:.1?}"),
            (_, Trouble::None) => Ok(()),
            (_, Trouble::Late(by)) => write!(f, " of {by:.1?}"),
            (_, Trouble::HalfOpen { up, down }) => {
                let end = if *is_severed { "then reset" } else { "then going on" };
                write!(f, " (up {up}, down {down}, {end})")
            }
            (_, Trouble::Truncated { after_bytes }) => write!(f, " after {after_bytes} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_made_of_its_seed_alone() {
        let first = |seed| {
            let rounds = Schedule::new(seed, Fault::all(1)).take(20);
            rounds.flatten().map(|strike| strike.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(first(7), first(7));
        assert_ne!(first(7), first(8));
    }

    #[test]
    fn faults_with_one_target_strike_one_by_one() {
        let faults = vec![Fault::RedisKilled, Fault::RedisFlushed, Fault::RedisPaused];
        assert!(Schedule::new(1, faults).take(20).all(|strikes| strikes.len() == 1));
    }

    #[test]
    fn every_fault_has_its_turn_and_no_two_of_a_round_have_the_same_target() {
        for brokers in [1, 3] {
            let all = Fault::all(brokers);
            let rounds: Vec<_> = Schedule::new(1, all.clone()).take(3 * all.len()).collect();
            assert_eq!(counted(rounds.iter().flatten()).len(), all.len());
            for strikes in &rounds {
                assert!(!strikes.is_empty());
                for (number, strike) in strikes.iter().enumerate() {
                    assert!(strikes[..number].iter().all(|other| !other.fault.excludes(strike.fault)));
                }
            }
        }
    }
}
