//! The broker of one partition, and the requests on their way to it.

use std::collections::BTreeSet;

use super::world::Id;

/// An event on the partition, forever: retention moves `earliest` and takes nothing out of sight of the check.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: Id,
    /// The event may be there twice: its sender had given up on the request when it took effect, or could
    /// not know any more what was there.
    pub excuse: bool,
}

/// A produce request, from its sending until it is forgotten on both sides.
#[derive(Debug)]
pub struct Request {
    pub number: u64,
    pub batch: Vec<Id>,
    /// Nobody waits for the answer any more.
    pub is_given_up: bool,
    pub answer: Option<Answer>,
}

#[derive(Clone, Debug)]
pub enum Answer {
    Offsets(Vec<i64>),
    Refused,
}

#[derive(Default)]
pub struct Broker {
    pub log: Vec<Record>,
    /// Where retention has the log begin.
    pub earliest: usize,
    /// Records after this many are appended and not replicated: nobody can read them.
    pub high_watermark: usize,
    /// Without followers every record is replicated as soon as it is appended.
    pub has_followers: bool,
    pub requests: Vec<Request>,
    /// Events that it refuses.
    pub poison: BTreeSet<Id>,
    /// Events with an occurrence that no reading back can find: retention has removed it, or it was
    /// not replicated for longer than anybody waits.
    pub hidden: BTreeSet<Id>,
    pub numbers: u64,
}

impl Broker {
    pub fn end(&self) -> i64 {
        self.high_watermark as i64
    }

    pub fn send(&mut self, batch: Vec<Id>) -> u64 {
        self.numbers += 1;
        self.requests.push(Request { number: self.numbers, batch, is_given_up: false, answer: None });
        self.numbers
    }

    /// A request arrives, and has its effect.
    pub fn serve(&mut self, index: usize) {
        let Request { batch, is_given_up, answer, .. } = &mut self.requests[index];
        if answer.is_some() {
            return;
        }
        if batch.iter().any(|id| self.poison.contains(id)) {
            *answer = Some(Answer::Refused);
            return;
        }
        let first = self.log.len() as i64;
        *answer = Some(Answer::Offsets((first..).take(batch.len()).collect()));
        self.log.extend(
            batch.iter().map(|id| Record { id: *id, excuse: *is_given_up || self.hidden.contains(id) }),
        );
        if !self.has_followers {
            self.replicate();
        }
    }

    /// The followers have everything.
    pub fn replicate(&mut self) {
        self.high_watermark = self.log.len();
    }

    /// The answer to a request, once there is one and every record up to its own is replicated.
    pub fn answer(&mut self, number: u64) -> Option<Answer> {
        let index = self.requests.iter().position(|request| request.number == number)?;
        if let Some(Answer::Offsets(offsets)) = &self.requests[index].answer
            && offsets.last().is_some_and(|last| *last >= self.high_watermark as i64)
        {
            return None;
        }
        let answer = self.requests[index].answer.take()?;
        self.requests.remove(index);
        Some(answer)
    }

    /// The sender waits no longer. What has not arrived may still do so.
    pub fn give_up(&mut self, number: u64) {
        for request in &mut self.requests {
            request.is_given_up |= request.number == number;
        }
        self.requests.retain(|request| !request.is_given_up || request.answer.is_none());
    }

    /// Somebody has waited in vain for the followers.
    pub fn hide_unreplicated(&mut self) {
        self.hidden.extend(self.log[self.high_watermark..].iter().map(|record| record.id));
    }

    /// Retention removes what stands before `earliest`.
    pub fn forget(&mut self, earliest: usize) {
        let gone = &self.log[self.earliest..earliest];
        self.hidden.extend(gone.iter().map(|record| record.id));
        self.earliest = earliest;
    }
}
