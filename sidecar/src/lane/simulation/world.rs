//! The world around the lanes, and the steps that it takes.

mod publisher; // what a lane wants done, done or not

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use contract::Event;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Safeguard;
use super::broker::Broker;
use super::sidecar::{Effect, Term};
use crate::lane::tests::event;
use crate::lane::{BatchLimits, Published, Start};
use crate::offered::{Companion, Offered};

/// One event. After each restore of the database its history goes on in another branch.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Id {
    pub task: u128,
    pub version: u64,
    pub branch: u64,
}

pub struct Commit {
    /// In steps.
    pub at: i64,
    /// The task's event before this one.
    pub previous: Option<Id>,
}

/// A row as the sweep saw it, with its number, and whether it was then its task's oldest.
pub type Row = (Id, i64, bool);

/// What the database holds.
#[derive(Clone, Default)]
struct Database {
    /// The last event of each task.
    tasks: BTreeMap<u128, Id>,
    outbox: BTreeMap<Id, OutboxRow>,
    last_seq: i64,
    position: Option<i64>,
}

#[derive(Clone, Debug)]
struct OutboxRow {
    seq: i64,
    is_parked: bool,
}

const TASKS: u128 = 5;
const SIDECARS: usize = 2;
pub const LIMITS: BatchLimits = BatchLimits { events_max: 4, bytes_max: 1_000_000 };

pub struct World {
    pub broker: Broker,
    pub committed: BTreeMap<Id, Commit>,
    /// Events that the database has lost. They may be on the topic.
    pub lost: BTreeSet<Id>,
    now: i64,
    branch: u64,
    database: Database,
    backup: Option<Database>,
    /// Removals that outlive the sidecars that asked for them.
    orphans: Vec<Published>,
    /// Forwards under way: the component has sent them once, and they arrive when they like.
    forwards: Vec<Id>,
    receipts: Vec<(Id, oneshot::Receiver<i64>)>,
    terms: [Option<Term>; SIDECARS],
    random: fastrand::Rng,
    without: Option<Safeguard>,
    is_healed: bool,
    is_traced: bool,
}

impl World {
    pub fn new(seed: u64, without: Option<Safeguard>, is_traced: bool) -> World {
        World {
            broker: Broker { has_followers: seed.is_multiple_of(2), ..Broker::default() },
            committed: BTreeMap::new(),
            lost: BTreeSet::new(),
            now: 0,
            branch: 0,
            database: Database::default(),
            backup: None,
            orphans: Vec::new(),
            forwards: Vec::new(),
            receipts: Vec::new(),
            terms: [const { None }; SIDECARS],
            random: fastrand::Rng::with_seed(seed),
            without,
            is_healed: false,
            is_traced,
        }
    }

    /// One thing happens somewhere.
    pub fn step(&mut self) -> Result<(), String> {
        self.now += 1;
        let sidecar = self.random.usize(..SIDECARS);
        match self.random.u32(..100) {
            0..12 if !self.is_healed => self.commit(),
            12..20 => self.deliver(sidecar),
            20..32 => self.sweep(sidecar),
            32..62 => self.work(sidecar)?,
            62..74 => self.remove(sidecar),
            74..86 => self.serve(),
            86..92 => self.broker.replicate(),
            92..94 if !self.is_healed => self.lose(sidecar),
            94 if !self.is_healed => self.back_up_or_restore(),
            95 if !self.is_healed => self.retention(),
            96 if !self.is_healed => self.retry(),
            97 if !self.is_healed => self.poison(),
            _ => self.start(sidecar),
        }
        self.receipts_are_true()
    }

    /// From here on nothing fails, and nothing new comes.
    pub fn heal(&mut self) {
        self.is_healed = true;
        self.trace("healed");
    }

    pub fn is_settled(&self) -> bool {
        let is_published = self.database.outbox.keys().all(|id| self.is_parked(*id));
        is_published && self.forwards.is_empty() && self.terms.iter().flatten().all(Term::is_idle)
    }

    pub fn what_is_left(&self) -> String {
        format!("{:?}, parked among them {:?}", self.database.outbox, self.broker.poison)
    }

    /// The event, or an older one of its task.
    pub fn is_parked(&self, id: Id) -> bool {
        self.database.outbox.range(first(id.task)..=id).any(|(_, row)| row.is_parked)
    }

    fn commit(&mut self) {
        let task = self.random.u128(..TASKS);
        let previous = self.database.tasks.get(&task).copied();
        let id = self.next_id(task);
        self.database.last_seq += 1;
        let row = OutboxRow { seq: self.database.last_seq, is_parked: false };
        self.database.tasks.insert(task, id);
        self.database.outbox.insert(id, row);
        self.committed.insert(id, Commit { at: self.now, previous });
        for _ in 0..self.random.usize(..3) {
            self.forwards.push(id);
        }
        self.trace(format_args!("commit {id:?}"));
    }

    fn next_id(&self, task: u128) -> Id {
        let version = self.database.tasks.get(&task).map_or(0, |id| id.version) + 1;
        Id { task, version, branch: self.branch }
    }

    /// The database is copied, or loses what came after the copy. Its connections break with it.
    fn back_up_or_restore(&mut self) {
        match self.backup.take() {
            None if self.database.position.is_some() => {
                self.trace("the database is copied");
                self.backup = Some(self.database.clone());
            }
            Some(backup) => {
                self.trace("the database loses what came after the copy");
                for sidecar in 0..SIDECARS {
                    self.lose(sidecar);
                }
                self.orphans.clear();
                let mut survivors = BTreeSet::new();
                for last in backup.tasks.values() {
                    let mut event = Some(*last);
                    while let Some(id) = event {
                        survivors.insert(id);
                        event = self.committed[&id].previous;
                    }
                }
                let lost = self.committed.keys().filter(|id| !survivors.contains(id));
                self.lost.extend(lost.copied());
                self.database = backup;
                self.branch += 1;
            }
            None => {}
        }
    }

    /// A forward arrives at a sidecar that publishes, or is lost.
    fn deliver(&mut self, sidecar: usize) {
        if self.forwards.is_empty() {
            return;
        }
        let id = self.forwards.swap_remove(self.random.usize(..self.forwards.len()));
        if self.random.bool() {
            let (receipt, offset) = oneshot::channel();
            self.receipts.push((id, offset));
            self.offer(sidecar, id, false, None, Some(receipt));
        }
    }

    /// The sweep reads a page, or offers a row of the one that it has read.
    fn sweep(&mut self, sidecar: usize) {
        let outbox = &self.database.outbox;
        let rows: Vec<Row> = outbox
            .iter()
            .filter(|(id, _)| !self.is_parked(**id))
            .map(|(id, row)| (*id, row.seq, outbox.range(first(id.task)..*id).next().is_none()))
            .collect();
        let Some(term) = &mut self.terms[sidecar] else {
            return;
        };
        if term.page.is_empty() {
            term.page.extend(rows);
        }
        for _ in 0..self.random.usize(1..4) {
            let next = self.terms[sidecar].as_mut().and_then(|term| term.page.pop_front());
            if let Some((id, seq, is_oldest)) = next {
                self.offer(sidecar, id, is_oldest, Some(seq), None);
            }
        }
    }

    fn offer(
        &mut self,
        sidecar: usize,
        id: Id,
        is_oldest: bool,
        seq: Option<i64>,
        receipt: Option<oneshot::Sender<i64>>,
    ) {
        let oldest = is_oldest || self.without == Some(Safeguard::GapCheck);
        let companion = Companion { hold: None, receipt };
        let event = self.event(id);
        if let Some(term) = &mut self.terms[sidecar] {
            let offer = term.lane.offer(Offered { event, oldest, seq, companion });
            self.trace(format_args!("{sidecar}: offered {id:?}, oldest {oldest}: {offer:?}"));
        }
    }

    /// Acknowledged rows go, or the database fails before or after it has done so.
    fn remove(&mut self, sidecar: usize) {
        if !self.orphans.is_empty() && self.random.bool() {
            let published = self.orphans.swap_remove(self.random.usize(..self.orphans.len()));
            self.trace(format_args!("removal for one that is dead: {published:?}"));
            self.remove_rows(&published);
        }
        let fails = !self.is_healed && self.random.u32(..8) == 0;
        let is_done = !fails || self.random.bool();
        let Some(term) = &mut self.terms[sidecar] else {
            return;
        };
        let Some(published) = term.removals.pop_front() else {
            return;
        };
        if is_done {
            self.remove_rows(&published);
        }
        if let Some(term) = &mut self.terms[sidecar] {
            match fails {
                true => term.removals.push_front(published),
                false => term.removed += 1,
            }
        }
        self.trace(format_args!("{sidecar}: removal, done {is_done}, failed {fails}"));
    }

    fn remove_rows(&mut self, Published { ids, next_offset }: &Published) {
        let is_removed = |id: &Id| ids.contains(&uuid(*id, self.without));
        self.database.outbox.retain(|id, _| !is_removed(id));
        self.database.position = self.database.position.max(Some(*next_offset));
    }

    /// The broker gets to one of the requests, or loses it on the way.
    fn serve(&mut self) {
        if self.broker.requests.is_empty() {
            return;
        }
        let index = self.random.usize(..self.broker.requests.len());
        if !self.is_healed && self.random.u32(..10) == 0 && self.broker.requests[index].answer.is_none() {
            let lost = self.broker.requests.remove(index);
            self.trace(format_args!("lost on its way: {lost:?}"));
            return;
        }
        self.broker.serve(index);
        self.trace(format_args!("broker: {:?}", self.broker.requests[index]));
        let is_forgotten = self.broker.requests[index].is_given_up;
        if is_forgotten {
            self.broker.requests.remove(index);
        }
    }

    /// A sidecar dies, or loses the lock, which for what it leaves behind is the same.
    fn lose(&mut self, sidecar: usize) {
        if let Some(term) = self.terms[sidecar].take() {
            self.trace(format_args!("{sidecar}: dies"));
            if let Some(Effect::Produce { number, .. }) = term.effect {
                self.broker.give_up(number);
            }
            for (number, _) in term.behind {
                self.broker.give_up(number);
            }
            self.orphans.extend(term.removals.into_iter().next());
        }
    }

    /// A sidecar starts, and publishes if nobody else does.
    fn start(&mut self, sidecar: usize) {
        let is_locked = self.terms.iter().any(Option::is_some) && self.without != Some(Safeguard::Lock);
        if self.terms[sidecar].is_none() && !is_locked {
            self.trace(format_args!("{sidecar}: publishes"));
            let is_looking = self.without != Some(Safeguard::LookUp);
            let start = Start {
                now: if is_looking { time(self.now) } else { DateTime::UNIX_EPOCH },
                lanes: 1,
                last_seq: self.database.last_seq,
                is_replicated: self.broker.has_followers && self.without != Some(Safeguard::Doubt),
            };
            self.terms[sidecar] = Some(Term::new(start, self.database.position));
        }
    }

    /// Retention removes a part of the partition, perhaps more than is safe.
    fn retention(&mut self) {
        let earliest = self.random.usize(self.broker.earliest..=self.broker.high_watermark);
        self.broker.forget(earliest);
        self.trace(format_args!("retention: the partition begins at {earliest}"));
    }

    /// Some event that is still to come will be refused.
    fn poison(&mut self) {
        let task = self.random.u128(..TASKS);
        self.broker.poison.insert(self.next_id(task));
    }

    /// An operator has parked events retried, after whatever was wrong with them has been put right, or not.
    fn retry(&mut self) {
        if self.random.bool() {
            self.broker.poison.clear();
        }
        self.database.outbox.values_mut().for_each(|row| row.is_parked = false);
        self.trace("parked events are retried");
    }

    /// Whoever was told an offset finds the event there.
    fn receipts_are_true(&mut self) -> Result<(), String> {
        let broker = &self.broker;
        let mut wrong = None;
        self.receipts.retain_mut(|(id, receipt)| match receipt.try_recv() {
            Ok(offset) => {
                let record = &broker.log.get(offset as usize);
                if record.is_none_or(|record| record.id != *id) {
                    wrong = Some(format!("wrong receipt: {id:?} at {offset}"));
                }
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
        wrong.map_or(Ok(()), Err)
    }

    fn event(&self, id: Id) -> Event {
        let Commit { at, previous } = self.committed[&id];
        let previous_id = match self.without {
            Some(Safeguard::PreviousEvent) => None,
            _ => previous.map(|previous| uuid(previous, self.without)),
        };
        Event {
            id: uuid(id, self.without),
            previous_id,
            time: time(at),
            traceparent: Some(id.branch.to_string()),
            tracestate: None,
            ..event(id.task, id.version)
        }
    }

    fn trace(&self, what: impl std::fmt::Display) {
        if self.is_traced {
            println!("{what}");
        }
    }
}

fn time(step: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(step)
}

/// The first event that a task can have.
pub fn first(task: u128) -> Id {
    Id { task, version: 0, branch: 0 }
}

/// The event's id. Its branch decides as well, unless versions are taken for identities.
fn uuid(Id { task, version, branch }: Id, without: Option<Safeguard>) -> Uuid {
    let branch = if without == Some(Safeguard::Identity) { 0 } else { u128::from(branch) };
    Uuid::from_u128((task << 96) + (branch << 64) + u128::from(version))
}

/// The simulation's events carry their branch where others carry a trace.
pub fn id(event: &Event) -> Id {
    let branch = event.traceparent.as_ref().and_then(|branch| branch.parse().ok());
    Id { task: event.task_id.as_u128(), version: event.version, branch: branch.unwrap_or_default() }
}
