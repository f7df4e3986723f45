//! The instances of one component. wasmtime's `ProxyHandler` decides which of them takes a request
//! and when another one starts, as it does in Spin, with Spin's defaults.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use wasmtime::{Store, StoreContextMut, component::GuestTaskId};
use wasmtime_wasi_http::{
    WasiHttpView,
    handler::{
        HandlerState, Instance, Proxy, ProxyHandler, Request, Response, ShouldAccept, WorkerExpiration,
        WorkerState, WorkerStatus,
    },
    p3::bindings::ServicePre,
};

use crate::host::{Component, State};

/// Spin's defaults for components of WASI 0.3.
pub const REQUESTS_MAX: usize = 128;
pub const REQUESTS_AT_ONCE_MAX: usize = 16;
const IDLE_MAX: Duration = Duration::from_secs(1);

/// How instances learn that the host is stopping, and how the host learns that they have ended.
#[derive(Clone, Default)]
pub struct Lifetime {
    /// Idle instances end.
    pub draining: CancellationToken,
    /// All instances end, whatever they are doing.
    pub abandoned: CancellationToken,
    pub running: TaskTracker,
}

/// What every instance of a component is made of.
pub struct Starter {
    pub component: Arc<Component>,
    pub service: ServicePre<State>,
    pub lifetime: Lifetime,
}

pub struct Instances {
    handler: ProxyHandler<Starter>,
    abandoned: CancellationToken,
}

impl Instances {
    pub fn new(starter: Starter) -> Instances {
        let abandoned = starter.lifetime.abandoned.clone();
        Instances { handler: ProxyHandler::new(starter), abandoned }
    }

    /// The component's response.
    ///
    /// # Errors
    /// An `InstantiationError` if no instance could be started, or why the instance ended.
    pub async fn handle(&self, request: Request) -> wasmtime::Result<Response> {
        match self.abandoned.run_until_cancelled(self.handler.handle((), request)).await {
            Some(response) => response,
            None => Err(wasmtime::format_err!("the host stopped before the response")),
        }
    }
}

impl HandlerState for Starter {
    type StoreData = State;
    type WorkerExpiration = Expiration;
    type WorkerState = Running;

    async fn instantiate(&self) -> wasmtime::Result<Instance<State, Expiration, Running>> {
        let Lifetime { draining, abandoned, running } = &self.lifetime;
        let mut store = Store::new(self.service.engine(), State::new(Arc::clone(&self.component)));
        store.set_epoch_deadline(1);
        // A guest that computes for long must not keep its thread from the other instances.
        store.epoch_deadline_async_yield_and_update(1);
        let proxy = Proxy::P3(self.service.instantiate_async(&mut store).await?);
        let expiration = Expiration {
            idle: Box::pin(sleep(IDLE_MAX)),
            draining: Box::pin(draining.clone().cancelled_owned()),
            abandoned: Box::pin(abandoned.clone().cancelled_owned()),
        };
        let state = Running {
            component: Arc::clone(&self.component),
            abandoned: abandoned.clone(),
            _token: running.token(),
        };
        Ok(Instance { store, proxy, view: State::http, expiration, state })
    }
}

/// When an instance ends. Its requests have no deadline, as in Spin.
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
        start: Instant,
    ) -> Poll<()> {
        if self.abandoned.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        match status {
            WorkerStatus::Requests | WorkerStatus::PostReturn => Poll::Pending,
            WorkerStatus::Idle => {
                let deadline = (start + IDLE_MAX).into();
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

/// An instance, from its start to its end.
pub struct Running {
    component: Arc<Component>,
    abandoned: CancellationToken,
    _token: TaskTrackerToken,
}

impl WorkerState for Running {
    type StoreData = State;
    type RequestData = ();

    fn should_accept_request(&self, at_once: usize, total: usize) -> ShouldAccept {
        if total >= REQUESTS_MAX {
            ShouldAccept::Never
        } else if at_once >= REQUESTS_AT_ONCE_MAX {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _store: StoreContextMut<'_, State>,
        (): (),
        _task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        Box::pin(std::future::pending())
    }

    fn drop(&self, _store: Store<State>, result: wasmtime::Result<()>) {
        if let Err(error) = result
            && !self.abandoned.is_cancelled()
        {
            // The alternate form has the guest's backtrace and not the host's.
            let component = &self.component.id;
            tracing::error!(component, "an instance ended, and with it the requests it had: {error:#}");
        }
    }
}
