//! Group commit of creates. While one INSERT runs, or waits for its connection, new creates queue.
//! The next INSERT takes the whole queue, since parsing, planning and the commit cost more than rows.
//!
//! All of a group or none. When PostgreSQL refuses the statement, each create is tried alone. Changes
//! are not grouped: a row that another session locks would hold up the others' changes.

use std::rc::Rc;
use std::time::Duration;

use anyhow::anyhow;
use contract::Event;
use spin_sdk::pg;

use crate::batcher::Batcher;
use crate::cache::{Cache, Dropped};
use crate::deadline::{TimedOut, within};
use crate::store::{Store, StoreError};
use crate::task::Task;

pub struct GroupCommit {
    batcher: Batcher<Rc<(Task, Event)>, Committed>,
    /// For the whole commit, waiting included.
    timeout: Duration,
}

/// The outcome of one create.
enum Committed {
    Done(Dropped),
    /// It is not known whether the task is committed. This is why.
    Unavailable(String),
    /// PostgreSQL refused the whole statement, perhaps because of another task in it.
    Refused,
}

impl GroupCommit {
    pub fn new(timeout: Duration) -> GroupCommit {
        GroupCommit { batcher: Batcher::new(), timeout }
    }

    /// Commits a new task and its event, and invalidates the cached lists. It invalidates them also
    /// when it is not known whether the task is committed.
    pub async fn commit(
        &self,
        new: Rc<(Task, Event)>,
        store: &Store,
        cache: &Cache,
    ) -> Result<Dropped, StoreError> {
        let connect = async || store.connect().await;
        let commit = async |connected, all: Vec<_>| commit_all(connected, &all, store, cache).await;
        let committed = within(self.timeout, self.batcher.submit(Rc::clone(&new), connect, commit)).await;
        match committed {
            Ok(Committed::Done(dropped)) => Ok(dropped),
            Ok(Committed::Unavailable(cause)) => Err(StoreError::Unavailable(anyhow!(cause))),
            Ok(Committed::Refused) => {
                let inserted = store.insert_task(&new.0, &new.1).await;
                let dropped = cache.drop_stale(&[]).await;
                inserted.map(|()| dropped)
            }
            Err(timed_out) => {
                cache.drop_stale(&[]).await;
                Err(StoreError::Unavailable(TimedOut::into(timed_out)))
            }
        }
    }
}

async fn commit_all(
    connected: Result<Rc<pg::Connection>, StoreError>,
    all: &[Rc<(Task, Event)>],
    store: &Store,
    cache: &Cache,
) -> Vec<Committed> {
    let committed = match (connected, all) {
        (Ok(_held), [only]) => store.insert_task(&only.0, &only.1).await,
        (Ok(_held), all) => store.insert_tasks(all.iter().map(AsRef::as_ref)).await,
        (Err(error), _) => Err(error),
    };
    let dropped = cache.drop_stale(&[]).await;
    let dropped = committed.map(|()| dropped);
    let told = |_: &Rc<_>| match &dropped {
        Ok(dropped) => Committed::Done(*dropped),
        Err(StoreError::Unavailable(cause)) => Committed::Unavailable(format!("{cause:#}")),
        Err(StoreError::Refused(_)) => Committed::Refused,
    };
    all.iter().map(told).collect()
}
