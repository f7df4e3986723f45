//! The instance ends itself soon after its last request and push.
//!
//! Spin starts an instance whenever no other one is free at that moment, and keeps each for a second
//! after its last request. Under load there are dozens with one request each. Each has connections of
//! its own, and commits alone what a few instances would commit together. An instance with
//! backpressure (component model, `backpressure.inc`) takes no more requests, and the host drops it
//! as soon as its tasks are done.
//!
//! Invariant: when backpressure is set, the host has accepted no request that has not started. Such a
//! request would wait for ever. It holds because the host resumes a task that has yielded only when no
//! accepted call is queued, and accepts none until the task yields again or waits. This was read in
//! wasmtime 47 (Spin 4.1) and 48 (`concurrent.rs`, `poll_until`): it takes a low-priority item only if
//! there is no high-priority one.

use std::cell::Cell;
use std::time::Duration;

use spin_sdk::{time, wit_bindgen};

/// How long the instance waits for another request.
const IDLE: Duration = Duration::from_millis(5);

/// Calls of `yield_async`, at least one of which yields to the host. The guest's executor goes on
/// without the host up to twice for each event of the task that is already there, and twice at the
/// end. Besides its sleep a task has at most its response, a push with a timer and a body, and the
/// timer of a held connection.
const YIELDS: usize = 20;

thread_local! {
    static REQUESTS: Requests = const {
        Requests { in_flight: Cell::new(0), started: Cell::new(0), is_watched: Cell::new(false) }
    };
}

/// The requests and pushes of this instance.
struct Requests {
    in_flight: Cell<usize>,
    started: Cell<u64>,
    /// A task is about to end the instance.
    is_watched: Cell<bool>,
}

/// A request, until its response is handed to the host, or a push. While the sidecar hangs, pushes
/// keep the instance open for further requests: otherwise each request would start an instance that
/// waits for the sidecar.
pub struct InFlight(());

impl InFlight {
    pub fn new() -> InFlight {
        REQUESTS.with(|requests| {
            requests.in_flight.update(|count| count + 1);
            requests.started.update(|count| count + 1);
        });
        InFlight(())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        REQUESTS.with(|requests| {
            requests.in_flight.update(|count| count - 1);
            if requests.in_flight.get() == 0 && !requests.is_watched.replace(true) {
                wit_bindgen::spawn(end_when_idle());
            }
        });
    }
}

async fn end_when_idle() {
    let state = || REQUESTS.with(|requests| (requests.in_flight.get(), requests.started.get()));
    loop {
        let (_, started) = state();
        time::sleep(IDLE).await;
        match state() {
            (0, now) if now == started => {
                for _ in 0..YIELDS {
                    wit_bindgen::yield_async().await;
                }
                if state() == (0, started) {
                    wit_bindgen::backpressure_inc();
                    return;
                }
            }
            (0, _) => {}
            // The last one to end watches again.
            _ => break,
        }
    }
    REQUESTS.with(|requests| requests.is_watched.set(false));
}
