//! The instances of one component, and which of them takes a request: few with several requests each, as long as none has
//! more than Spin gives it. They do the same work with fewer connections and statements than many with one request each,
//! which is what Spin comes to: it starts one whenever all are computing, and deals requests out in turn.

use std::{
    num::NonZero,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    thread::available_parallelism,
    time::Duration,
};

use futures::channel::oneshot;
use thiserror::Error;
use tokio::{sync::mpsc, time::sleep};
use wasmtime_wasi_http::handler::{Request, Response};

use crate::instance::{REQUESTS_AT_ONCE_MAX, REQUESTS_MAX, Starter, Vitals};

/// How long a request waits for its instance to look for it. Past it another one takes it: the guest computes, is in a call
/// that holds the instance, or takes nothing (backpressure).
const TURN_WAIT: Duration = Duration::from_millis(50);

/// No instance could be started.
#[derive(Debug, Error)]
#[error("no instance could be started: {0:#}")]
pub struct NoInstance(pub Arc<wasmtime::Error>);

/// Where a request's response goes.
pub type Respond = oneshot::Sender<wasmtime::Result<Response>>;

/// A request, until an instance takes it.
type Untaken = Arc<Mutex<Option<(Request, Respond)>>>;

/// A request that an instance is to take. Counts there for as long as it is kept.
pub struct Waiting {
    untaken: Untaken,
    vitals: Arc<Vitals>,
}

impl Waiting {
    fn new(untaken: &Untaken, vitals: &Arc<Vitals>) -> Waiting {
        vitals.at_once.fetch_add(1, Relaxed);
        Waiting { untaken: Arc::clone(untaken), vitals: Arc::clone(vitals) }
    }

    /// None if another instance has taken it, or nobody waits for it any more.
    pub fn take(&self) -> Option<(Request, Respond)> {
        lock(&self.untaken).take().filter(|(_, response)| !response.is_canceled())
    }

    pub fn refuse(self, error: NoInstance) {
        if let Some((_, response)) = self.take() {
            // Whoever asked may be gone.
            let _: Result<(), _> = response.send(Err(error.into()));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.vitals.at_once.fetch_sub(1, Relaxed);
    }
}

/// An instance that takes requests.
struct Open {
    requests: mpsc::UnboundedSender<Waiting>,
    vitals: Arc<Vitals>,
    /// Requests that it may still get.
    left: usize,
}

pub struct Instances {
    starter: Arc<Starter>,
    processors: usize,
    /// The oldest first.
    open: Mutex<Vec<Open>>,
}

impl Instances {
    pub fn new(starter: Starter) -> Instances {
        let processors = available_parallelism().map_or(1, NonZero::get);
        Instances { starter: Arc::new(starter), processors, open: Mutex::default() }
    }

    /// The component's response.
    ///
    /// # Errors
    /// [`NoInstance`], or why the instance ended.
    pub async fn handle(&self, request: Request) -> wasmtime::Result<Response> {
        let (respond, mut response) = oneshot::channel();
        let untaken = Arc::new(Mutex::new(Some((request, respond))));
        let ended = || wasmtime::format_err!("the instance ended before the response");
        let mut vitals = self.give(&untaken);
        loop {
            let turn = vitals.turn();
            tokio::select! {
                answer = &mut response => return answer.map_err(|oneshot::Canceled| ended())?,
                () = sleep(TURN_WAIT) => {}
            }
            if lock(&untaken).is_none() {
                return response.await.map_err(|oneshot::Canceled| ended())?;
            }
            if self.starter.lifetime.abandoned.is_cancelled() {
                return Err(ended());
            }
            // One that has had no turn is being started.
            if vitals.has_ended() || turn.is_some_and(|turn| vitals.is_stuck_after(turn)) {
                vitals = self.give(&untaken);
            }
        }
    }

    /// Gives a request to an instance.
    fn give(&self, untaken: &Untaken) -> Arc<Vitals> {
        let mut open = lock(&self.open);
        open.retain(|instance| !instance.requests.is_closed());
        loop {
            let index = self.place(&mut open);
            let Open { requests, vitals, left } = &mut open[index];
            let vitals = Arc::clone(vitals);
            let given = requests.send(Waiting::new(untaken, &vitals));
            *left -= 1;
            // One that ends just now takes nothing any more.
            if *left == 0 || given.is_err() {
                open.remove(index);
            }
            if given.is_ok() {
                return vitals;
            }
        }
    }

    /// The instance that takes the next request.
    fn place(&self, open: &mut Vec<Open>) -> usize {
        let taking = open.iter().enumerate().filter(|(_, instance)| !instance.vitals.is_stuck());
        let loads = taking.map(|(index, instance)| (index, instance.vitals.at_once.load(Relaxed)));
        choose(loads, self.processors).unwrap_or_else(|| {
            let (requests, received) = mpsc::unbounded_channel();
            let vitals = self.starter.start(received);
            open.push(Open { requests, vitals, left: REQUESTS_MAX });
            open.len() - 1
        })
    }
}

/// Of instances and the requests that each has, the oldest first, the one that takes the next; none if another is to be
/// started. As many are used as there are processors, or as the requests need; those beyond come to the end of their time.
fn choose(loads: impl Iterator<Item = (usize, usize)> + Clone, processors: usize) -> Option<usize> {
    let requests: usize = loads.clone().map(|(_, load)| load).sum();
    let needed = (requests + 1).div_ceil(REQUESTS_AT_ONCE_MAX).max(processors);
    let has_room = |(_, load): &(usize, usize)| *load < REQUESTS_AT_ONCE_MAX;
    let least = loads.clone().take(needed).filter(has_room).min_by_key(|(_, load)| *load);
    match least {
        Some((_, load)) if load > 0 && loads.clone().count() < needed => None,
        Some((index, _)) => Some(index),
        None => loads.filter(has_room).min_by_key(|(_, load)| *load).map(|(index, _)| index),
    }
}

/// Nothing is left half done under a lock here, whatever panics.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(loads: &[usize]) -> Option<usize> {
        choose(loads.iter().copied().enumerate(), 2)
    }

    /// Takes so many requests in, one after the other, and none of them ends.
    fn take_in(loads: &mut Vec<usize>, requests: usize) {
        for _ in 0..requests {
            let index = chosen(loads).unwrap_or_else(|| {
                loads.push(0);
                loads.len() - 1
            });
            loads[index] += 1;
        }
    }

    #[test]
    fn requests_share_as_few_instances_as_can_take_them_and_one_for_each_processor() {
        let mut loads = Vec::new();
        take_in(&mut loads, 1);
        assert_eq!(loads, [1]);
        take_in(&mut loads, 1);
        assert_eq!(loads, [1, 1]);
        take_in(&mut loads, 30);
        assert_eq!(loads, [16, 16]);
        take_in(&mut loads, 1);
        assert_eq!(loads, [16, 16, 1]);
    }

    #[test]
    fn what_a_burst_leaves_behind_is_not_used_again() {
        let mut loads = vec![0; 30];
        take_in(&mut loads, 32);
        assert_eq!(loads[..3], [16, 16, 0]);
        // Unless the first ones are full, whatever the others have.
        assert_eq!(chosen(&[16, 16, 16, 2]), Some(3));
    }
}
