//! Instances of one component: each takes several requests at once and many in its life, with Spin's numbers.
//! An instance lives on after a response for as long as its guest has work left, and ends with a trap.

use std::{
    num::NonZero,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    thread::available_parallelism,
    time::{Duration, Instant},
};

use tokio::time::Sleep;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use wasmtime::{Store, StoreContextMut, component::GuestTaskId};
use wasmtime_wasi_http::{
    WasiHttpView,
    handler::{
        HandlerState, Instance, Proxy, ProxyHandler, ShouldAccept, WorkerExpiration, WorkerState,
        WorkerStatus,
    },
    p3::bindings::ServicePre,
};

use crate::host::{Component, State};

/// Spin's defaults for components of WASI 0.3.
const REQUESTS_PER_INSTANCE_MAX: usize = 128;
pub const REQUESTS_AT_ONCE_MAX: usize = 16;
const IDLE_MAX: Duration = Duration::from_secs(1);

/// The instances of a component.
pub type Instances = ProxyHandler<Starter>;

/// One instance for so many requests at once, and at least one for each processor, is enough: of those beyond, one that has
/// nothing to do ends now and then. Few instances with several requests each do their work with fewer connections and
/// statements than many with one each. Spin keeps them.
const REQUESTS_AT_ONCE_USUAL: usize = 8;
/// How soon another one may end; of the many that a burst leaves behind, as often as would end them all within the second of
/// these.
const SHRINK_INTERVAL: Duration = Duration::from_millis(20);
const SHRINK_MANY_WITHIN: Duration = Duration::from_millis(50);

/// The instances of a component, and what they have to do.
pub struct Load {
    processors: usize,
    instances: AtomicUsize,
    requests: AtomicUsize,
    shrunk: Mutex<Instant>,
}

impl Default for Load {
    fn default() -> Load {
        Load {
            processors: available_parallelism().map_or(1, NonZero::get),
            instances: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            shrunk: Mutex::new(Instant::now()),
        }
    }
}

impl Load {
    /// Whether an instance that has nothing to do is to end; after a yes, no other one for a while.
    fn shrinks(&self) -> bool {
        let enough = self.processors.max(self.requests.load(Relaxed) / REQUESTS_AT_ONCE_USUAL);
        let surplus = self.instances.load(Relaxed).saturating_sub(enough);
        if surplus == 0 {
            return false;
        }
        let mut shrunk = self.shrunk.lock().unwrap_or_else(PoisonError::into_inner);
        let interval = SHRINK_INTERVAL.min(SHRINK_MANY_WITHIN / u32::try_from(surplus).unwrap_or(u32::MAX));
        let is_time = shrunk.elapsed() >= interval;
        if is_time {
            *shrunk = Instant::now();
        }
        is_time
    }
}

/// Counts as one for as long as it is there.
struct One(Arc<Load>, fn(&Load) -> &AtomicUsize);

impl One {
    fn of(load: &Arc<Load>, which: fn(&Load) -> &AtomicUsize) -> One {
        which(load).fetch_add(1, Relaxed);
        One(load.clone(), which)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Relaxed);
    }
}

/// How instances learn that the host is stopping, and how the host learns that they have ended.
#[derive(Clone, Default)]
pub struct Lifetime {
    /// Idle instances end.
    pub draining: CancellationToken,
    /// All instances end, whatever they are doing.
    pub abandoned: CancellationToken,
    pub running: TaskTracker,
}

/// Starts instances of one component.
pub struct Starter {
    pub component: Arc<Component>,
    pub service: ServicePre<State>,
    pub lifetime: Lifetime,
    pub load: Arc<Load>,
}

impl Starter {
    pub fn into_instances(self) -> Instances {
        ProxyHandler::new(self)
    }
}

impl HandlerState for Starter {
    type StoreData = State;
    type WorkerExpiration = Expiration;
    type WorkerState = Running;

    async fn instantiate(&self) -> wasmtime::Result<Instance<State, Expiration, Running>> {
        let mut store = Store::new(self.service.engine(), State::new(self.component.clone()));
        store.set_epoch_deadline(1);
        // A guest that computes for long must not keep its thread from the other instances.
        store.epoch_deadline_async_yield_and_update(1);
        let proxy = Proxy::P3(self.service.instantiate_async(&mut store).await?);
        Ok(Instance {
            store,
            proxy,
            view: State::http,
            expiration: Expiration {
                idle: Box::pin(tokio::time::sleep(IDLE_MAX)),
                draining: Box::pin(self.lifetime.draining.clone().cancelled_owned()),
                abandoned: Box::pin(self.lifetime.abandoned.clone().cancelled_owned()),
            },
            state: Running {
                component: self.component.clone(),
                load: self.load.clone(),
                _counted: One::of(&self.load, |load| &load.instances),
                _tracked: self.lifetime.running.token(),
            },
        })
    }
}

/// Decides when an instance has to go. Requests have no deadline, as in Spin.
pub struct Expiration {
    idle: Pin<Box<Sleep>>,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    abandoned: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl WorkerExpiration for Expiration {
    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        status: WorkerStatus,
        since: Instant,
    ) -> Poll<()> {
        if self.abandoned.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        match status {
            WorkerStatus::Requests | WorkerStatus::PostReturn => Poll::Pending,
            WorkerStatus::Idle => {
                let deadline = (since + IDLE_MAX).into();
                if self.idle.deadline() != deadline {
                    self.idle.as_mut().reset(deadline);
                }
                if self.draining.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                self.idle.as_mut().poll(context)
            }
        }
    }
}

/// What is known of an instance while it runs.
pub struct Running {
    component: Arc<Component>,
    load: Arc<Load>,
    _counted: One,
    _tracked: TaskTrackerToken,
}

impl WorkerState for Running {
    type StoreData = State;
    type RequestData = ();

    fn should_accept_request(&self, at_once: usize, in_all: usize) -> ShouldAccept {
        if in_all >= REQUESTS_PER_INSTANCE_MAX || (at_once == 0 && in_all > 0 && self.load.shrinks()) {
            ShouldAccept::Never
        } else if at_once >= REQUESTS_AT_ONCE_MAX {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _: StoreContextMut<'_, State>,
        (): (),
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        let counted = One::of(&self.load, |load| &load.requests);
        Box::pin(async move {
            let _counted = counted;
            std::future::pending::<()>().await;
        })
    }

    fn drop(&self, store: Store<State>, result: wasmtime::Result<()>) {
        if let Err(error) = result {
            // The alternate form has the guest's backtrace and not the host's.
            let component = &self.component.id;
            tracing::error!(component, "an instance ended, and with it the requests it had: {error:#}");
        }
        drop(store);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_more_instances_than_the_requests_need_one_ends_at_a_time() {
        let load = Arc::new(Load { processors: 2, ..Load::default() });
        let is_time = || *load.shrunk.lock().unwrap() = Instant::now() - SHRINK_INTERVAL;
        let instances: Vec<_> = (0..3).map(|_| One::of(&load, |load| &load.instances)).collect();
        is_time();
        assert!(load.shrinks());
        assert!(!load.shrinks(), "not at once again");
        is_time();
        let requests: Vec<_> =
            (0..3 * REQUESTS_AT_ONCE_USUAL).map(|_| One::of(&load, |load| &load.requests)).collect();
        assert!(!load.shrinks(), "three have something to do");
        drop(requests);
        assert!(load.shrinks());
        is_time();
        drop(instances);
        assert!(!load.shrinks(), "there are none");
    }
}
