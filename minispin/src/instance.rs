//! One instance of a component: takes requests as they come, several at once and many in its life, with Spin's numbers.
//! It lives on after a response for as long as its guest has work left, and ends with a trap.

use std::{
    future::{pending, poll_fn},
    mem,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use futures::{StreamExt as _, channel::oneshot, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wasmtime::{AsContextMut as _, Store, component::Accessor};
use wasmtime_wasi_http::{
    WasiHttpView,
    handler::{Prepared, Proxy, Response},
    p3::bindings::{Service, ServicePre},
};

use crate::{
    host::{Component, State},
    instances::{NoInstance, Respond, Waiting, lock},
};

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

/// Starts instances of one component.
pub struct Starter {
    pub component: Arc<Component>,
    pub service: ServicePre<State>,
    pub lifetime: Lifetime,
}

/// What others see of an instance.
#[derive(Default)]
pub struct Vitals {
    /// Requests that it has, or is to take, and that have no response yet.
    pub at_once: AtomicUsize,
    /// How often it has come to look for requests: a guest that computes keeps it from that.
    pub turns: AtomicU64,
    /// Somebody waited for a turn in vain.
    pub is_stuck: AtomicBool,
}

impl Vitals {
    fn turn(&self) {
        self.turns.fetch_add(1, Relaxed);
        if self.is_stuck.load(Relaxed) {
            self.is_stuck.store(false, Relaxed);
        }
    }
}

impl Starter {
    /// Starts one, for the requests that will come by this channel. It ends when the channel has.
    pub fn start(self: &Arc<Self>, requests: mpsc::UnboundedReceiver<Waiting>) -> Arc<Vitals> {
        let vitals = Arc::new(Vitals::default());
        self.lifetime.running.spawn(Arc::clone(self).run(requests, Arc::clone(&vitals)));
        vitals
    }

    async fn run(self: Arc<Self>, mut requests: mpsc::UnboundedReceiver<Waiting>, vitals: Arc<Vitals>) {
        let mut store = Store::new(self.service.engine(), State::new(Arc::clone(&self.component)));
        store.set_epoch_deadline(1);
        // A guest that computes for long must not keep its thread from the other instances.
        store.epoch_deadline_async_yield_and_update(1);
        match self.service.instantiate_async(&mut store).await {
            Ok(service) => {
                let serving = self.serve(store, service, requests, &vitals);
                if let Some(Err(error)) = self.lifetime.abandoned.run_until_cancelled(serving).await {
                    // The alternate form has the guest's backtrace and not the host's.
                    let component = &self.component.id;
                    tracing::error!(
                        component,
                        "an instance ended, and with it the requests it had: {error:#}"
                    );
                }
            }
            Err(error) => {
                requests.close();
                let error = Arc::new(error);
                while let Some(waiting) = requests.recv().await {
                    waiting.refuse(NoInstance(Arc::clone(&error)));
                }
            }
        }
    }

    /// Serves requests until the instance has to go. They have no deadline, as in Spin.
    async fn serve(
        &self,
        mut store: Store<State>,
        service: Service,
        mut requests: mpsc::UnboundedReceiver<Waiting>,
        vitals: &Vitals,
    ) -> wasmtime::Result<()> {
        let handle = *service.wasi_http_handler().func_handle().func();
        let proxy = &Proxy::P3(service);
        let responses = &Responses::default();
        let serving = async |accessor: &Accessor<State>| {
            let mut responding = FuturesUnordered::new();
            let mut idle = pin!(sleep_until(Instant::now() + IDLE_MAX));
            let mut draining = pin!(self.lifetime.draining.cancelled());
            let mut is_idle = false;
            poll_fn(|context| {
                vitals.turn();
                loop {
                    match responding.poll_next_unpin(context) {
                        Poll::Ready(Some(Ok(()))) => continue,
                        Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                        Poll::Ready(None) | Poll::Pending => {}
                    }
                    // The guest may say that it takes nothing now (backpressure.inc).
                    let is_ready = accessor.poll_ready_for_concurrent_call(handle, context).is_ready();
                    let next = if is_ready { requests.poll_recv(context) } else { Poll::Pending };
                    if let Poll::Ready(Some(waiting)) = next {
                        is_idle = false;
                        responding.extend(begin(accessor, proxy, waiting, responses));
                        continue;
                    }
                    if !responding.is_empty() || accessor.poll_no_interesting_tasks(context).is_pending() {
                        return Poll::Pending;
                    }
                    if next.is_ready() || !is_ready {
                        return Poll::Ready(Ok(()));
                    }
                    if !mem::replace(&mut is_idle, true) {
                        idle.as_mut().reset(Instant::now() + IDLE_MAX);
                    }
                    if idle.as_mut().poll(context).is_pending()
                        && draining.as_mut().poll(context).is_pending()
                    {
                        return Poll::Pending;
                    }
                    // What has come in the meantime is served.
                    requests.close();
                }
            })
            .await
        };
        let mut serving = pin!(store.run_concurrent(serving));
        poll_fn(|context| {
            let mut served = serving.as_mut().poll(context);
            // What a guest puts off, such as the beginning of a body, it does in the next turn.
            let mut has_responded = 0;
            while served.is_pending() && lock(responses).len() > has_responded {
                has_responded = lock(responses).len();
                served = serving.as_mut().poll(context);
            }
            // Only now, so that the server finds the beginning of a body, which its guest may have written by now, with its
            // head, and sends them together.
            for (response, respond) in mem::take(&mut *lock(responses)) {
                // Whoever asked may be gone.
                let _: Result<(), _> = respond.send(response);
            }
            served
        })
        .await?
    }
}

/// Responses that are there, and where they go.
type Responses = Mutex<Vec<(wasmtime::Result<Response>, Respond)>>;

/// Begins a request that still waits. What is left of it comes to an end with the response.
fn begin<'a>(
    accessor: &'a Accessor<State>,
    proxy: &'a Proxy,
    waiting: Waiting,
    responses: &'a Responses,
) -> Option<impl Future<Output = wasmtime::Result<()>> + use<'a>> {
    let (request, respond) = waiting.take()?;
    let (responded, mut response) = oneshot::channel();
    let prepared = accessor
        .with(|mut store| Prepared::new(store.as_context_mut(), proxy, request, State::http, responded));
    Some(async move {
        prepared?.run(accessor, pending()).await?;
        drop(waiting);
        if let Ok(Some(response)) = response.try_recv() {
            lock(responses).push((response, respond));
        }
        Ok(())
    })
}
