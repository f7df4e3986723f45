//! The world around the lanes, and the steps that it takes.

mod publisher; // what a lane wants done, done or not

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use contract::Event;
use tokio::sync::oneshot;

use super::Safeguard;
use super::broker::Broker;
use super::sidecar::{Effect, Term};
use crate::lane::tests::event;
use crate::lane::{BatchLimits, Published};
use crate::offered::{Companion, Offered};

/// Task and version: one event.
pub type Id = (u128, u64);

/// A row as the sweep saw it, and whether it was then its task's oldest.
pub type Row = (Id, bool);

const TASKS: u128 = 5;
const SIDECARS: usize = 2;
pub const LIMITS: BatchLimits = BatchLimits { events_max: 4, bytes_max: 1_000_000 };

pub struct World {
    pub broker: Broker,
    /// When each was committed, in steps.
    pub committed: BTreeMap<Id, i64>,
    now: i64,
    outbox: BTreeMap<Id, bool>, // parked?
    position: Option<i64>,
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
            broker: Broker::default(),
            committed: BTreeMap::new(),
            now: 0,
            outbox: BTreeMap::new(),
            position: None,
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
            74..92 => self.serve(),
            92..95 if !self.is_healed => self.lose(sidecar),
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
        let is_published = self.outbox.keys().all(|id| self.is_parked(*id));
        is_published && self.forwards.is_empty() && self.terms.iter().flatten().all(Term::is_idle)
    }

    pub fn what_is_left(&self) -> String {
        format!("{:?}, parked among them {:?}", self.outbox, self.broker.poison)
    }

    /// The event, or an older one of its task.
    pub fn is_parked(&self, (task, version): Id) -> bool {
        self.outbox.range((task, 0)..=(task, version)).any(|(_, is_parked)| *is_parked)
    }

    fn commit(&mut self) {
        let task = self.random.u128(..TASKS);
        let version = self.committed.range((task, 0)..=(task, u64::MAX)).count() as u64 + 1;
        self.committed.insert((task, version), self.now);
        self.outbox.insert((task, version), false);
        for _ in 0..self.random.usize(..3) {
            self.forwards.push((task, version));
        }
        self.trace(format_args!("commit {task}/{version}"));
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
            self.offer(sidecar, id, false, Some(receipt));
        }
    }

    /// The sweep reads a page, or offers a row of the one that it has read.
    fn sweep(&mut self, sidecar: usize) {
        let rows: Vec<Row> = self
            .outbox
            .keys()
            .filter(|id| !self.is_parked(**id))
            .map(|id| (*id, self.outbox.range((id.0, 0)..*id).next().is_none()))
            .collect();
        let Some(term) = &mut self.terms[sidecar] else {
            return;
        };
        if term.page.is_empty() {
            term.page.extend(rows);
        }
        for _ in 0..self.random.usize(1..4) {
            let next = self.terms[sidecar].as_mut().and_then(|term| term.page.pop_front());
            if let Some((id, is_oldest)) = next {
                self.offer(sidecar, id, is_oldest, None);
            }
        }
    }

    fn offer(&mut self, sidecar: usize, id: Id, is_oldest: bool, receipt: Option<oneshot::Sender<i64>>) {
        let oldest = is_oldest || self.without == Some(Safeguard::GapCheck);
        let companion = Companion { hold: None, receipt };
        let event = self.event(id);
        if let Some(term) = &mut self.terms[sidecar] {
            let offer = term.lane.offer(Offered { event, oldest, companion });
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
        if let (true, Some(term)) = (fails, &mut self.terms[sidecar]) {
            term.removals.push_front(published);
        }
        self.trace(format_args!("{sidecar}: removal, done {is_done}, failed {fails}"));
    }

    fn remove_rows(&mut self, Published { ids, next_offset }: &Published) {
        self.outbox.retain(|id, _| !ids.contains(&event(id.0, id.1).id));
        self.position = self.position.max(Some(*next_offset));
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
            let start =
                if self.without == Some(Safeguard::LookUp) { DateTime::UNIX_EPOCH } else { time(self.now) };
            self.terms[sidecar] = Some(Term::new(start, self.position));
        }
    }

    /// Retention removes a part of the partition, perhaps more than is safe.
    fn retention(&mut self) {
        let earliest = self.random.usize(self.broker.earliest..=self.broker.log.len());
        self.broker.forget(earliest);
        self.trace(format_args!("retention: the partition begins at {earliest}"));
    }

    /// Some event that is still to come will be refused.
    fn poison(&mut self) {
        let task = self.random.u128(..TASKS);
        let version = self.committed.range((task, 0)..=(task, u64::MAX)).count() as u64 + 1;
        self.broker.poison.insert((task, version));
    }

    /// An operator has parked events retried, after whatever was wrong with them has been put right, or not.
    fn retry(&mut self) {
        if self.random.bool() {
            self.broker.poison.clear();
        }
        self.outbox.values_mut().for_each(|is_parked| *is_parked = false);
        self.trace("parked events are retried");
    }

    /// Whoever was told an offset finds the event there.
    fn receipts_are_true(&mut self) -> Result<(), String> {
        let broker = &self.broker;
        let mut wrong = None;
        self.receipts.retain_mut(|(id, receipt)| match receipt.try_recv() {
            Ok(offset) => {
                let record = &broker.log.get(offset as usize);
                if record.is_none_or(|record| (record.task, record.version) != *id) {
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
        Event { time: time(self.committed[&id]), ..event(id.0, id.1) }
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

pub fn id(event: &Event) -> Id {
    (event.task_id.as_u128(), event.version)
}
