//! A lane's publisher: does what the lane wants done, with everything that may become of it.

use contract::Event;
use uuid::Uuid;

use super::World;
use crate::lane::simulation::Safeguard;
use crate::lane::simulation::broker::{Answer, Record};
use crate::lane::simulation::sidecar::{Effect, Term};
use crate::lane::{Found, Gap, Next, OnTopic};

use super::{Id, first};

const READ_RECORDS_MAX: usize = 3;
const REMOVALS_MAX: usize = 2;

impl World {
    /// A publisher begins something, or learns what became of it.
    pub(super) fn work(&mut self, sidecar: usize) -> Result<(), String> {
        let Some(mut term) = self.terms[sidecar].take() else {
            return Ok(());
        };
        match term.effect.take() {
            Some(effect) => self.complete(sidecar, &mut term, effect),
            None => self.begin(sidecar, &mut term),
        }
        self.late_answers(&mut term);
        self.terms[sidecar] = Some(term);
        Ok(())
    }

    fn begin(&mut self, sidecar: usize, term: &mut Term) {
        if term.removals.len() > REMOVALS_MAX {
            return;
        }
        let next = term.next();
        self.trace(format_args!("{sidecar}: {next:?}"));
        term.effect = match next {
            Next::Connect { from } => Some(Effect::Connect { from }),
            Next::Read { from } => Some(Effect::Read { from }),
            Next::Load(gap) => Some(self.load(gap)),
            Next::Publish => self.produce(term),
            Next::Park(refused) => self.row(refused.event_id).map(|id| Effect::Park { id }),
            Next::Prove => Some(Effect::Prove),
            Next::Idle => {
                term.removals.extend(term.lane.looked(self.broker.end()));
                None
            }
        };
    }

    /// The event of a row, which may be gone after a restore.
    fn row(&self, event_id: Uuid) -> Option<Id> {
        self.committed.keys().copied().find(|id| self.event(*id).id == event_id)
    }

    fn load(&self, gap: Gap) -> Effect {
        let task = gap.task_id.as_u128();
        let [after, to] = [gap.after, gap.up_to].map(|version| Id { version: version + 1, ..first(task) });
        let rows = self.database.outbox.range(after..to).map(|(id, row)| (*id, row.seq));
        Effect::Load { gap, rows: rows.filter(|(id, _)| !self.is_parked(*id)).collect() }
    }

    fn produce(&mut self, term: &mut Term) -> Option<Effect> {
        let batch = term.batch();
        let number = self.broker.send(batch.clone());
        if self.without == Some(Safeguard::RemoveAfterAck) {
            self.database.outbox.retain(|id, _| !batch.contains(id));
        }
        if self.without == Some(Safeguard::OneInFlight) {
            let end = self.broker.end();
            term.lane.acked(&(end..).take(batch.len()).collect::<Vec<_>>());
            term.behind.push((number, batch));
            return None;
        }
        Some(Effect::Produce { number, batch })
    }

    /// Without the rule of one request under way: what became of those that nobody waited for.
    fn late_answers(&mut self, term: &mut Term) {
        for (number, batch) in std::mem::take(&mut term.behind) {
            match self.broker.answer(number) {
                Some(Answer::Offsets(_)) => self.database.outbox.retain(|id, _| !batch.contains(id)),
                Some(Answer::Refused) => {}
                None if self.broker.requests.iter().any(|request| request.number == number) => {
                    term.behind.push((number, batch));
                }
                None => {}
            }
        }
    }

    fn complete(&mut self, sidecar: usize, term: &mut Term, effect: Effect) {
        let fails = !self.is_healed && self.random.u32(..8) == 0;
        self.trace(format_args!("{sidecar}: {} {effect:?}", if fails { "fails:" } else { "done:" }));
        let lane = &mut term.lane;
        match effect {
            // A failed produce request may have had its effect, have it yet, or never have it.
            Effect::Produce { number, .. } if fails => {
                self.broker.give_up(number);
                lane.failed();
            }
            Effect::Produce { number, batch } => match self.broker.answer(number) {
                Some(Answer::Offsets(offsets)) => term.removals.push_back(lane.acked(&offsets)),
                Some(Answer::Refused) => lane.refused("poison".to_owned()),
                None if self.broker.requests.iter().any(|request| request.number == number) => {
                    term.effect = Some(Effect::Produce { number, batch });
                }
                // It was lost on the way, and its sender has waited long enough.
                None => lane.failed(),
            },
            // Parking may have been done when its answer is lost.
            Effect::Park { id } => {
                if !fails || self.random.bool() {
                    self.database.outbox.entry(id).and_modify(|row| row.is_parked = true);
                }
                if fails { lane.failed() } else { lane.parked() }
            }
            _ if fails => lane.failed(),
            Effect::Connect { from } => {
                let end = self.broker.end();
                let first = if self.without == Some(Safeguard::PositionFirst) { None } else { term.position };
                let from = from.or(first).unwrap_or_else(|| *self.database.position.get_or_insert(end));
                let is_trusting = self.without == Some(Safeguard::ReadBack);
                lane.connected(if is_trusting { end } else { from }, end);
            }
            Effect::Read { from } if from < self.broker.earliest as i64 => {
                lane.gone(self.broker.earliest as i64);
            }
            Effect::Read { from } => {
                let (found, next_offset) = self.fetch(from);
                term.removals.push_back(lane.read(&found, next_offset, self.broker.end()));
            }
            Effect::Load { gap, rows } => {
                lane.fill(gap, rows.into_iter().map(|(id, seq)| (self.event(id), seq)).collect());
            }
            // It is rare that the followers lag for longer than the wait.
            Effect::Prove if self.broker.high_watermark == self.broker.log.len() => {
                lane.waived(self.broker.end());
            }
            Effect::Prove if self.random.u32(..50) == 0 => {
                self.broker.hide_unreplicated();
                lane.waived(self.broker.end());
            }
            Effect::Prove => {}
        }
    }

    fn fetch(&self, from: i64) -> (Found, i64) {
        let readable = self.broker.log[..self.broker.high_watermark].iter().enumerate();
        let on_topic = |(offset, record): (usize, &Record)| {
            let Event { id, task_id, version, time, .. } = self.event(record.id);
            (task_id, OnTopic { id, version, offset: offset as i64, time })
        };
        let found: Found = readable.skip(from as usize).take(READ_RECORDS_MAX).map(on_topic).collect();
        let next_offset = from + found.len() as i64;
        (found, next_offset)
    }
}
