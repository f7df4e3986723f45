//! A lane's publisher: does what the lane wants done, with everything that may become of it.

use super::World;
use crate::lane::simulation::Safeguard;
use crate::lane::simulation::broker::Answer;
use crate::lane::simulation::sidecar::{Effect, Term};
use crate::lane::{Found, Gap, Next, OnTopic};

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
            Next::Park(refused) => Some(Effect::Park { id: (refused.task_id.as_u128(), refused.version) }),
            Next::Remove(published) => {
                term.removals.push_back(published);
                None
            }
            Next::Idle => None,
        };
    }

    fn load(&self, gap: Gap) -> Effect {
        let task = gap.task_id.as_u128();
        let rows = self.outbox.range((task, gap.after + 1)..=(task, gap.up_to)).map(|(id, _)| *id);
        Effect::Load { gap, rows: rows.filter(|id| !self.is_parked(*id)).collect() }
    }

    fn produce(&mut self, term: &mut Term) -> Option<Effect> {
        let batch = term.batch();
        let number = self.broker.send(batch.clone());
        if self.without == Some(Safeguard::RemoveAfterAck) {
            self.outbox.retain(|id, _| !batch.contains(id));
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
                Some(Answer::Offsets(_)) => self.outbox.retain(|id, _| !batch.contains(id)),
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
                    self.outbox.entry(id).and_modify(|is_parked| *is_parked = true);
                }
                if fails { lane.failed() } else { lane.parked() }
            }
            _ if fails => lane.failed(),
            Effect::Connect { from } => {
                let end = self.broker.end();
                let first = if self.without == Some(Safeguard::PositionFirst) { None } else { term.position };
                let from = from.or(first).unwrap_or_else(|| *self.position.get_or_insert(end));
                let is_trusting = self.without == Some(Safeguard::ReadBack);
                lane.connected(if is_trusting { end } else { from }, end);
            }
            Effect::Read { from } if from < self.broker.earliest as i64 => {
                lane.gone(self.broker.earliest as i64);
            }
            Effect::Read { from } => {
                let (found, next_offset) = self.fetch(from);
                term.removals.push_back(lane.read(found, next_offset, self.broker.end()));
            }
            Effect::Load { gap, rows } => lane.fill(gap, rows.into_iter().map(|id| self.event(id)).collect()),
        }
    }

    fn fetch(&self, from: i64) -> (Found, i64) {
        let mut found = Found::default();
        let records = self.broker.log.iter().enumerate().skip(from as usize).take(READ_RECORDS_MAX);
        let mut next_offset = from;
        for (offset, record) in records {
            let event = self.event((record.task, record.version));
            found.ids.push(event.id);
            let on_topic = OnTopic { version: record.version, offset: offset as i64, time: event.time };
            let newest = found.newest.entry(event.task_id).or_insert(on_topic);
            if on_topic.version > newest.version {
                *newest = on_topic;
            }
            next_offset = offset as i64 + 1;
        }
        (found, next_offset)
    }
}
