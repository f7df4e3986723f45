//! Which events may be appended to the partition although reading it back does not show them.
//!
//! A broker shows a record only when every in-sync replica has it (the high watermark). A produce
//! request with acks=all is answered only then, for everything up to its own records. So the
//! acknowledgement of an event that surely was not sent before ends the doubt about all others.

use std::collections::VecDeque;

use foldhash::{HashSet, HashSetExt as _};
use uuid::Uuid;

use crate::offered::{Offered, event_bytes};

/// The doubt of a lane. Without replicas every appended record can be read: there is none.
pub struct Doubt {
    is_replicated: bool,
    events: Doubtful,
    /// When the partition is read up to this offset, there is no doubt any more.
    proven_at: Option<i64>,
}

enum Doubtful {
    None,
    /// All events, except those of rows that were committed after the term began, and which the lane
    /// itself has not sent.
    Older {
        last_seq: i64,
        new: HashSet<Uuid>,
        sent: HashSet<Uuid>,
    },
    /// Those whose produce request failed.
    Sent(HashSet<Uuid>),
}

impl Doubt {
    pub fn new(last_seq: i64, is_replicated: bool) -> Doubt {
        let events = match is_replicated {
            true => Doubtful::Older { last_seq, new: HashSet::new(), sent: HashSet::new() },
            false => Doubtful::None,
        };
        Doubt { is_replicated, events, proven_at: None }
    }

    pub fn exists(&self) -> bool {
        !matches!(self.events, Doubtful::None)
    }

    /// The outbox has a row for this event, with this number.
    pub fn note_row(&mut self, id: Uuid, seq: Option<i64>) {
        if let Doubtful::Older { last_seq, new, .. } = &mut self.events
            && seq.is_some_and(|seq| seq > *last_seq)
        {
            new.insert(id);
        }
    }

    /// A produce request with these events has failed: they may be appended.
    pub fn add(&mut self, ids: impl IntoIterator<Item = Uuid>) {
        let ids: HashSet<Uuid> = ids.into_iter().collect();
        if !self.is_replicated || ids.is_empty() {
            return;
        }
        match &mut self.events {
            Doubtful::None => self.events = Doubtful::Sent(ids),
            Doubtful::Older { sent, .. } | Doubtful::Sent(sent) => sent.extend(ids),
        }
    }

    /// Every record before this offset can be read.
    pub fn prove(&mut self, offset: i64) {
        self.proven_at = Some(offset);
    }

    /// The offsets have lost their meaning.
    pub fn forget_proof(&mut self) {
        self.proven_at = None;
    }

    /// Everything before this offset has been read.
    pub fn note_read(&mut self, offset: i64) {
        if self.proven_at.is_some_and(|proven_at| proven_at <= offset) {
            self.clear();
        }
    }

    pub fn clear(&mut self) {
        self.events = Doubtful::None;
        self.proven_at = None;
    }

    /// Takes the events out of the queue that nobody can have sent before, so many and no more. An
    /// event behind a doubtful one of its task stays.
    pub fn take_new(
        &self,
        queue: &mut VecDeque<Offered>,
        events_max: usize,
        bytes_max: usize,
    ) -> Vec<Offered> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let mut waiting: HashSet<Uuid> = HashSet::new();
        for offered in std::mem::take(queue) {
            let task_id = offered.event.task_id;
            let fits = taken.is_empty()
                || (taken.len() < events_max && bytes + event_bytes(&offered.event) <= bytes_max);
            if fits && self.is_new(offered.event.id) && !waiting.contains(&task_id) {
                bytes += event_bytes(&offered.event);
                taken.push(offered);
            } else {
                waiting.insert(task_id);
                queue.push_back(offered);
            }
        }
        taken
    }

    fn is_new(&self, id: Uuid) -> bool {
        match &self.events {
            Doubtful::None => true,
            Doubtful::Older { new, sent, .. } => new.contains(&id) && !sent.contains(&id),
            Doubtful::Sent(sent) => !sent.contains(&id),
        }
    }
}
