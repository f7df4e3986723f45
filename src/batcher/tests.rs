//! Requests submit items, wait, get results or are cancelled, in any order that proptest chooses.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::channel::oneshot;
use proptest::prelude::*;

use super::Batcher;

#[derive(Clone, Debug)]
enum Step {
    /// Another request submits an item.
    Submit,
    /// The host finishes its call: the preparation, or the batch.
    Finish,
    /// A request is cancelled before it has its result.
    Cancel(prop::sample::Index),
    /// A woken request is polled.
    Poll(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Submit),
        2 => Just(Step::Finish),
        1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        4 => any::<prop::sample::Index>().prop_map(Step::Poll),
    ]
}

/// A host with one call at a time.
#[derive(Default)]
struct Host {
    call: RefCell<Option<oneshot::Sender<()>>>,
    calls: Cell<u32>,
    /// How often each item had a result.
    results: RefCell<Vec<u32>>,
}

impl Host {
    /// Calls the host and waits for the end of the call.
    async fn wait(&self) {
        struct Call<'a>(&'a Cell<u32>);
        impl Drop for Call<'_> {
            fn drop(&mut self) {
                self.0.update(|count| count - 1);
            }
        }
        self.calls.update(|count| count + 1);
        let _call = Call(&self.calls);
        assert_eq!(self.calls.get(), 1, "one at a time");
        let (sender, end) = oneshot::channel();
        self.call.replace(Some(sender));
        end.await.expect("the host finishes");
    }

    async fn run(&self, items: Vec<usize>) -> Vec<usize> {
        self.wait().await;
        for item in &items {
            self.results.borrow_mut()[*item] += 1;
        }
        items.iter().map(|item| item * 10).collect()
    }

    fn finish(&self) {
        if let Some(call) = self.call.take() {
            // The request may be cancelled.
            let _: Result<(), ()> = call.send(());
        }
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Request {
    number: usize,
    woken: Arc<Woken>,
    future: Pin<Box<dyn Future<Output = usize>>>,
}

/// Polls a request if it was woken. Whether it is done.
fn poll(request: &mut Request) -> bool {
    if !request.woken.0.swap(false, Ordering::Relaxed) {
        return false;
    }
    let waker = Waker::from(Arc::clone(&request.woken));
    match request.future.as_mut().poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(result) => {
            assert_eq!(result, request.number * 10, "its own result");
            true
        }
        Poll::Pending => false,
    }
}

proptest! {
    // What goes wrong shows only if nobody comes after it: many short histories.
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn every_request_that_stays_gets_its_result(steps in prop::collection::vec(step(), 0..30)) {
        let host = Rc::new(Host::default());
        let batcher: Rc<Batcher<usize, usize>> = Rc::new(Batcher::new());
        let mut requests: Vec<Request> = Vec::new();
        for step in steps {
            match step {
                Step::Submit => {
                    let number = host.results.borrow().len();
                    host.results.borrow_mut().push(0);
                    let (host, batcher) = (Rc::clone(&host), Rc::clone(&batcher));
                    let future = Box::pin(async move {
                        let prepare = async || host.wait().await;
                        batcher.submit(number, prepare, async |(), items| host.run(items).await).await
                    });
                    let woken = Arc::new(Woken(AtomicBool::new(true)));
                    requests.push(Request { number, woken, future });
                }
                Step::Finish => host.finish(),
                Step::Cancel(which) if !requests.is_empty() => {
                    let request = requests.swap_remove(which.index(requests.len()));
                    drop(request);
                }
                Step::Poll(which) if !requests.is_empty() => {
                    let index = which.index(requests.len());
                    if poll(&mut requests[index]) {
                        requests.swap_remove(index);
                    }
                }
                Step::Cancel(_) | Step::Poll(_) => {}
            }
        }
        // From here on every woken request is polled, and the host finishes when no request can go on.
        while !requests.is_empty() {
            let before = requests.len();
            let can_run = requests.iter().any(|request| request.woken.0.load(Ordering::Relaxed));
            requests.retain_mut(|request| !poll(request));
            if requests.len() == before && !can_run {
                assert!(host.call.borrow().is_some(), "a request runs a batch for those that wait");
                host.finish();
            }
        }
        prop_assert_eq!(host.calls.get(), 0);
    }
}

#[test]
fn items_that_queue_during_a_batch_go_with_the_next() {
    let host = Rc::new(Host::default());
    host.results.borrow_mut().resize(4, 0);
    let batcher: Batcher<usize, usize> = Batcher::new();
    let mut batch_sizes = Vec::new();
    let sizes = RefCell::new(&mut batch_sizes);
    let mut all: Vec<_> = (0..4)
        .map(|number| {
            let (host, sizes) = (Rc::clone(&host), &sizes);
            let run = async move |(), items: Vec<usize>| {
                sizes.borrow_mut().push(items.len());
                host.run(items).await
            };
            Box::pin(batcher.submit(number, async || (), run))
        })
        .collect();
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        all.retain_mut(|request| request.as_mut().poll(&mut context).is_pending());
        host.finish();
    }
    assert!(all.is_empty());
    drop(all);
    assert_eq!(batch_sizes, [1, 3]);
}

#[test]
fn items_that_come_during_the_preparation_join_the_batch() {
    let host = Rc::new(Host::default());
    host.results.borrow_mut().resize(3, 0);
    let batcher: Batcher<usize, usize> = Batcher::new();
    let mut all: Vec<_> = (0..3)
        .map(|number| {
            let (preparing, running) = (Rc::clone(&host), Rc::clone(&host));
            let prepare = async move || preparing.wait().await;
            Box::pin(batcher.submit(number, prepare, async move |(), items| running.run(items).await))
        })
        .collect();
    let mut context = Context::from_waker(Waker::noop());
    let mut done = || {
        host.finish();
        all.retain_mut(|request| request.as_mut().poll(&mut context).is_pending());
        all.len()
    };
    // All submit, the first one has prepared, and all have results.
    assert_eq!([done(), done(), done()], [3, 3, 0]);
}

#[test]
fn a_cancelled_batch_does_not_hold_up_the_others() {
    let host = Rc::new(Host::default());
    host.results.borrow_mut().resize(4, 0);
    let batcher: Rc<Batcher<usize, usize>> = Rc::new(Batcher::new());
    let submit = |number: usize| {
        let (host, batcher) = (Rc::clone(&host), Rc::clone(&batcher));
        let run = async move |(), items| host.run(items).await;
        let future = Box::pin(async move { batcher.submit(number, async || (), run).await });
        let mut request = Request { number, woken: Arc::new(Woken(AtomicBool::new(true))), future };
        assert!(!poll(&mut request));
        request
    };
    let (mut first, mut second, third) = (submit(0), submit(1), submit(2));
    host.finish();
    assert!(poll(&mut first));
    // The second one runs a batch with the third. Then the third is cancelled, and the second.
    assert!(!poll(&mut second));
    drop(third);
    let mut last = submit(3);
    drop(second);
    assert!(!poll(&mut last));
    host.finish();
    assert!(poll(&mut last));
}
