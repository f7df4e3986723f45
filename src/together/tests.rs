//! Requests come, wait, are answered or given up, in any order; a scheduler that proptest chooses runs them.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::channel::oneshot;
use proptest::prelude::*;

use super::Together;

#[derive(Clone, Debug)]
enum Step {
    /// Another request asks.
    Come,
    /// What is under way is done: everything is ready for the question, or the question is answered.
    Answer,
    /// A request goes away before its answer is there.
    Leave(prop::sample::Index),
    /// A request that was woken goes on.
    Run(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Come),
        2 => Just(Step::Answer),
        1 => any::<prop::sample::Index>().prop_map(Step::Leave),
        4 => any::<prop::sample::Index>().prop_map(Step::Run),
    ]
}

/// A host that is asked one thing at a time.
#[derive(Default)]
struct Host {
    asked: RefCell<Option<oneshot::Sender<()>>>,
    /// How many are under way, and how often each question was answered.
    under_way: Cell<u32>,
    answered: RefCell<Vec<u32>>,
}

impl Host {
    /// Until the host has done what it is asked to do.
    async fn wait(&self) {
        struct UnderWay<'a>(&'a Cell<u32>);
        impl Drop for UnderWay<'_> {
            fn drop(&mut self) {
                self.0.update(|count| count - 1);
            }
        }
        self.under_way.update(|count| count + 1);
        let _under_way = UnderWay(&self.under_way);
        assert_eq!(self.under_way.get(), 1, "one at a time");
        let (sender, answer) = oneshot::channel();
        self.asked.replace(Some(sender));
        answer.await.expect("the host answers");
    }

    async fn ask(&self, questions: Vec<usize>) -> Vec<usize> {
        self.wait().await;
        for question in &questions {
            self.answered.borrow_mut()[*question] += 1;
        }
        questions.iter().map(|question| question * 10).collect()
    }

    fn answer(&self) {
        if let Some(asked) = self.asked.take() {
            // Who asked may have left.
            let _: Result<(), ()> = asked.send(());
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

/// Lets a request go on, if it was woken. Whether it is done.
fn run(request: &mut Request) -> bool {
    if !request.woken.0.swap(false, Ordering::Relaxed) {
        return false;
    }
    let waker = Waker::from(Arc::clone(&request.woken));
    match request.future.as_mut().poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(answer) => {
            assert_eq!(answer, request.number * 10, "its own answer");
            true
        }
        Poll::Pending => false,
    }
}

proptest! {
    // What goes wrong shows only if nobody comes after it: many short histories.
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn everybody_who_stays_is_answered(steps in prop::collection::vec(step(), 0..30)) {
        let host = Rc::new(Host::default());
        let together: Rc<Together<usize, usize>> = Rc::new(Together::new());
        let mut requests: Vec<Request> = Vec::new();
        for step in steps {
            match step {
                Step::Come => {
                    let number = host.answered.borrow().len();
                    host.answered.borrow_mut().push(0);
                    let (host, together) = (Rc::clone(&host), Rc::clone(&together));
                    let future = Box::pin(async move {
                        let prepare = async || host.wait().await;
                        together.ask(number, prepare, async |(), questions| host.ask(questions).await).await
                    });
                    let woken = Arc::new(Woken(AtomicBool::new(true)));
                    requests.push(Request { number, woken, future });
                }
                Step::Answer => host.answer(),
                Step::Leave(which) if !requests.is_empty() => {
                    let request = requests.swap_remove(which.index(requests.len()));
                    drop(request);
                }
                Step::Run(which) if !requests.is_empty() => {
                    let index = which.index(requests.len());
                    if run(&mut requests[index]) {
                        requests.swap_remove(index);
                    }
                }
                Step::Leave(_) | Step::Run(_) => {}
            }
        }
        // From now on everybody who is woken goes on, and the host answers whenever nobody else can do anything.
        while !requests.is_empty() {
            let before = requests.len();
            let can_run = requests.iter().any(|request| request.woken.0.load(Ordering::Relaxed));
            requests.retain_mut(|request| !run(request));
            if requests.len() == before && !can_run {
                assert!(host.asked.borrow().is_some(), "somebody asks for those that wait");
                host.answer();
            }
        }
        prop_assert_eq!(host.under_way.get(), 0);
    }
}

#[test]
fn what_gathers_while_one_is_asked_is_asked_at_once() {
    let host = Rc::new(Host::default());
    host.answered.borrow_mut().resize(4, 0);
    let together: Together<usize, usize> = Together::new();
    let mut asked_at_once = Vec::new();
    let sizes = RefCell::new(&mut asked_at_once);
    let mut all: Vec<_> = (0..4)
        .map(|number| {
            let (host, sizes) = (Rc::clone(&host), &sizes);
            let ask = async move |(), questions: Vec<usize>| {
                sizes.borrow_mut().push(questions.len());
                host.ask(questions).await
            };
            Box::pin(together.ask(number, async || (), ask))
        })
        .collect();
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        all.retain_mut(|request| request.as_mut().poll(&mut context).is_pending());
        host.answer();
    }
    assert!(all.is_empty());
    drop(all);
    assert_eq!(asked_at_once, [1, 3]);
}

#[test]
fn what_gathers_while_things_are_made_ready_is_asked_as_well() {
    let host = Rc::new(Host::default());
    host.answered.borrow_mut().resize(3, 0);
    let together: Together<usize, usize> = Together::new();
    let mut all: Vec<_> = (0..3)
        .map(|number| {
            let (preparing, asked) = (Rc::clone(&host), Rc::clone(&host));
            let prepare = async move || preparing.wait().await;
            Box::pin(together.ask(number, prepare, async move |(), questions| asked.ask(questions).await))
        })
        .collect();
    let mut context = Context::from_waker(Waker::noop());
    let mut done = || {
        host.answer();
        all.retain_mut(|request| request.as_mut().poll(&mut context).is_pending());
        all.len()
    };
    // All come, the first one has made ready, and all are answered.
    assert_eq!([done(), done(), done()], [3, 3, 0]);
}

#[test]
fn who_left_in_the_middle_keeps_nobody_from_being_asked() {
    let host = Rc::new(Host::default());
    host.answered.borrow_mut().resize(4, 0);
    let together: Rc<Together<usize, usize>> = Rc::new(Together::new());
    let come = |number: usize| {
        let (host, together) = (Rc::clone(&host), Rc::clone(&together));
        let ask = async move |(), questions| host.ask(questions).await;
        let future = Box::pin(async move { together.ask(number, async || (), ask).await });
        let mut request = Request { number, woken: Arc::new(Woken(AtomicBool::new(true))), future };
        assert!(!run(&mut request));
        request
    };
    let (mut first, mut second, third) = (come(0), come(1), come(2));
    host.answer();
    assert!(run(&mut first));
    // The second one asks for the third as well; then the third leaves, and the second.
    assert!(!run(&mut second));
    drop(third);
    let mut last = come(3);
    drop(second);
    assert!(!run(&mut last));
    host.answer();
    assert!(run(&mut last));
}
