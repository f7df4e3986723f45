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
pub struct Vitals {
    /// Requests that it has, or is to take, and that have no response yet.
    pub at_once: AtomicUsize,
    /// How often it has come to look for requests: a guest that computes keeps it from that.
    turns: AtomicU64,
    /// The turn after which somebody waited for another one in vain.
    stuck_after: AtomicU64,
    has_ended: AtomicBool,
}

impl Vitals {
    /// None before the first one.
    pub fn turn(&self) -> Option<u64> {
        Some(self.turns.load(Relaxed)).filter(|turn| *turn > 0)
    }

    /// Whether there has been no other turn: then it is stuck until there is.
    pub fn is_stuck_after(&self, turn: u64) -> bool {
        let is_stuck = self.turns.load(Relaxed) == turn;
        if is_stuck {
            self.stuck_after.store(turn, Relaxed);
        }
        is_stuck
    }

    pub fn is_stuck(&self) -> bool {
        self.stuck_after.load(Relaxed) == self.turns.load(Relaxed)
    }

    /// It takes nothing any more.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
    }
}

impl Default for Vitals {
    fn default() -> Vitals {
        Vitals {
            at_once: AtomicUsize::new(0),
            turns: AtomicU64::new(0),
            stuck_after: AtomicU64::new(u64::MAX),
            has_ended: AtomicBool::new(false),
        }
    }
}

/// Tells that an instance has ended, however that came.
struct End(Arc<Vitals>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Relaxed);
    }
}

impl Starter {
    /// Starts one, for the requests that will come by this channel. It ends when the channel has.
    pub fn start(self: &Arc<Self>, requests: mpsc::UnboundedReceiver<Waiting>) -> Arc<Vitals> {
        let vitals = Arc::new(Vitals::default());
        self.lifetime.running.spawn(Arc::clone(self).run(requests, End(Arc::clone(&vitals))));
        vitals
    }

    async fn run(self: Arc<Self>, mut requests: mpsc::UnboundedReceiver<Waiting>, end: End) {
        let mut store = Store::new(self.service.engine(), State::new(Arc::clone(&self.component)));
        store.set_epoch_deadline(1);
        // A guest that computes for long must not keep its thread from the other instances.
        store.epoch_deadline_async_yield_and_update(1);
        match self.service.instantiate_async(&mut store).await {
            Ok(service) => {
                let serving = self.serve(store, service, requests, &end.0);
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
                let mut has_taken = false;
                loop {
                    match responding.poll_next_unpin(context) {
                        Poll::Ready(Some(Ok(()))) => continue,
                        Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                        Poll::Ready(None) | Poll::Pending => {}
                    }
                    if has_taken {
                        // The runtime begins it and then comes back: what computes for long keeps no other one.
                        return Poll::Pending;
                    }
                    // The guest may say that it takes nothing now (backpressure.inc).
                    let is_ready = accessor.poll_ready_for_concurrent_call(handle, context).is_ready();
                    let next = if is_ready {
                        vitals.turns.fetch_add(1, Relaxed);
                        requests.poll_recv(context)
                    } else {
                        Poll::Pending
                    };
                    if let Poll::Ready(Some(waiting)) = next {
                        is_idle = false;
                        let begun = begin(accessor, proxy, waiting, responses);
                        has_taken = begun.is_some();
                        responding.extend(begun);
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
                    let is_time =
                        idle.as_mut().poll(context).is_ready() || draining.as_mut().poll(context).is_ready();
                    if !is_time || requests.is_closed() {
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
            let mut ready = lock(responses).len();
            if ready > 0 && served.is_pending() {
                // What a guest has put off, such as the beginning of a body, so that the server finds it with the head and
                // sends them together.
                served = serving.as_mut().poll(context);
            }
            let mut responses = lock(responses);
            if served.is_ready() {
                ready = responses.len();
            } else if responses.len() > ready {
                context.waker().wake_by_ref();
            }
            for (response, respond) in responses.drain(..ready) {
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

/// Begins a request, if it still waits. What this gives ends when the response is there.
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
