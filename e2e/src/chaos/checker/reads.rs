//! Each read against the writes that were over before it began, and against the topic: a read shows what was committed, and
//! nothing older than what its reader could know.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use serde_json::Value;

use super::super::history::{Answer, Found, Kind, Read, Write};
use super::{Checker, Excuses, Violation, data_digest, is_refused};

/// Newer than any version.
const DELETED: i64 = i64::MAX;

/// What was acknowledged in this round, per task, and when.
struct Acknowledged<'a> {
    of_task: HashMap<&'a str, Vec<(Instant, i64)>>,
    created: Vec<(Instant, Created<'a>)>,
    /// When a deletion was sent that may have happened.
    deletions: HashMap<&'a str, Instant>,
    /// Creations that a restored database may have lost.
    losable: HashSet<&'a str>,
}

/// Time and id of a creation: the order of a list.
type Created<'a> = (&'a str, &'a str);

fn created(task: &Value) -> Created<'_> {
    let field = |name: &str| task[name].as_str().unwrap_or_default();
    (field("created_at"), field("id"))
}

impl Checker {
    pub(super) fn compare_with_reads(&mut self, writes: &[Write], reads: &[Read], excuses: &Excuses) {
        let known = Acknowledged::new(writes, excuses);
        for read in reads {
            self.totals.reads += 1;
            // What was written before Redis failed must be read all the same.
            let stale = excuses.cache.iter().filter(|stale| stale.reads_from <= read.told);
            let stale_from = stale.map(|stale| stale.writes_from).min();
            let must_be_fresh = stale_from.is_none();
            let known_until = stale_from.map_or(read.sent, |from| from.min(read.sent));
            self.totals.reads_excused += usize::from(!must_be_fresh);
            let mut found = HashSet::new();
            let tasks = match &read.found {
                Found::Task(task) => std::slice::from_ref(task),
                Found::List { tasks, .. } => tasks,
                Found::Missing(_) => &[],
            };
            for task in tasks {
                let id = task["id"].as_str().unwrap_or_default();
                found.insert(id);
                self.compare_state(id, task);
                let floor = self.floor(&known, id, known_until);
                if task["version"].as_i64().unwrap_or_default() < floor {
                    let floor =
                        if floor == DELETED { "its deletion".to_owned() } else { format!("version {floor}") };
                    self.violation(
                        Violation::Stale,
                        format!("{floor} was told before this was asked: {task}"),
                    );
                }
            }
            match &read.found {
                Found::Missing(id) if must_be_fresh && !self.may_be_missing(&known, id, read.told) => {
                    self.violation(Violation::Stale, format!("404, but nobody deleted {id}"));
                }
                Found::List { tasks, limit, is_newest_first: true } => {
                    // Behind the last one are other pages.
                    let is_whole = tasks.len() < *limit;
                    let last = tasks.last().map(created).unwrap_or_default();
                    for (told, creation) in &known.created {
                        let (_, id) = creation;
                        let belongs = *told < known_until && (is_whole || *creation > last);
                        if belongs && !found.contains(id) && !self.may_be_missing(&known, id, read.told) {
                            self.violation(Violation::Stale, format!("a list without {id}, created before"));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// What was read is what the topic says of that version.
    fn compare_state(&mut self, id: &str, task: &Value) {
        let version = task["version"].as_i64().unwrap_or_default();
        let digest = data_digest(task);
        let events = self.tasks.get(id).into_iter().flat_map(|known| &known.events);
        let mut same =
            events.filter(|((_, of), _)| *of == version).map(|(_, event)| event.data_digest).peekable();
        let is_missing = same.peek().is_none();
        let is_known = same.any(|known| known == digest);
        if is_known || self.losable.contains_key(task["title"].as_str().unwrap_or_default()) {
            return;
        }
        match is_missing {
            true => self.violation(Violation::Lost, format!("read, but not on the topic: {task}")),
            false => self.violation(Violation::Altered, format!("not the state on the topic: {task}")),
        }
    }

    /// The version that a read must show at least, if it was sent then.
    fn floor(&self, known: &Acknowledged<'_>, id: &str, sent: Instant) -> i64 {
        let settled = match self.tasks.get(id) {
            Some(task) if task.was_deleted => DELETED,
            Some(task) => task.settled,
            None => 0,
        };
        let acknowledged = known.of_task.get(id).into_iter().flatten();
        acknowledged.filter(|(told, _)| *told < sent).map(|(_, version)| *version).fold(settled, i64::max)
    }

    /// Someone may have deleted it by then.
    fn may_be_missing(&self, known: &Acknowledged<'_>, id: &str, told: Instant) -> bool {
        let this_round = known.deletions.get(id).is_some_and(|sent| *sent < told);
        this_round || known.losable.contains(id) || self.tasks.get(id).is_some_and(|task| task.was_deleted)
    }
}

impl<'a> Acknowledged<'a> {
    fn new(writes: &'a [Write], excuses: &Excuses) -> Acknowledged<'a> {
        let mut of_task: HashMap<_, Vec<_>> = HashMap::new();
        let (mut creations, mut deletions, mut losable) = (Vec::new(), HashMap::new(), HashSet::new());
        for write in writes {
            let (told, task) = match &write.answer {
                Answer::Done(Some(task)) => (task["version"].as_i64(), task["id"].as_str()),
                Answer::Done(None) => (Some(DELETED), write.task.as_deref()),
                _ => (None, None),
            };
            let is_losable = excuses.restored.is_some_and(|restored| restored.may_have_lost(write));
            if is_losable && write.kind == Kind::Create {
                losable.extend(task);
            } else if let (Some(version), Some(task), false) = (told, task, is_losable) {
                of_task.entry(task).or_default().push((write.told, version));
                if let (Kind::Create, Answer::Done(Some(answer))) = (write.kind, &write.answer) {
                    creations.push((write.told, created(answer)));
                }
            }
            if let (Kind::Delete, Some(task), false) =
                (write.kind, write.task.as_deref(), is_refused(write, excuses))
            {
                let sent = deletions.entry(task).or_insert(write.sent);
                *sent = write.sent.min(*sent);
            }
        }
        Acknowledged { of_task, created: creations, deletions, losable }
    }
}
