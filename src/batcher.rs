//! Groups requests for the host that come together.
//!
//! While one batch is under way, new items queue; the next batch takes the whole queue. The request
//! that finds no batch under way runs the next one for everybody: at most the 16 requests that Spin
//! serves at once with an instance.
//!
//! Invariant: every item gets its result, or its request submits it again. This holds also when the
//! request that runs a batch is cancelled.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::waker::{Wake, pair};

/// Items of one kind, and their results.
pub struct Batcher<T, R> {
    /// In the order in which they came.
    queue: RefCell<Vec<Rc<Pending<T, R>>>>,
    is_running: Cell<bool>,
}

struct Pending<T, R> {
    item: T,
    result: Cell<Option<R>>,
    wake: Cell<Option<Wake>>,
}

impl<T: Clone, R> Batcher<T, R> {
    pub fn new() -> Self {
        Batcher { queue: RefCell::default(), is_running: Cell::new(false) }
    }

    /// The result of `item`. `prepare` gets what a batch needs, such as a connection; items that come
    /// meanwhile join the batch. `run` gives a result for each item, in their order.
    pub async fn submit<P>(
        &self,
        item: T,
        prepare: impl AsyncFn() -> P,
        run: impl AsyncFn(P, Vec<T>) -> Vec<R>,
    ) -> R {
        let pending = Rc::new(Pending { item, result: Cell::new(None), wake: Cell::new(None) });
        self.queue.borrow_mut().push(Rc::clone(&pending));
        let _submitted = Submitted { batcher: self, pending: &pending };
        loop {
            if let Some(result) = pending.result.take() {
                return result;
            }
            if self.is_running.get() {
                let (wake, wait) = pair();
                pending.wake.set(Some(wake));
                wait.woken().await;
            } else {
                let mut batch = Batch::begin(self);
                let prepared = prepare().await;
                let results = run(prepared, batch.take_queue()).await;
                batch.complete(results);
            }
        }
    }

    /// One of those that wait has to run the next batch.
    fn wake_next(&self) {
        if !self.is_running.get()
            && let Some(next) = self.queue.borrow().first()
        {
            next.wake.take();
        }
    }
}

/// An item, until its request has the result or is cancelled.
struct Submitted<'a, T: Clone, R> {
    batcher: &'a Batcher<T, R>,
    pending: &'a Rc<Pending<T, R>>,
}

impl<T: Clone, R> Drop for Submitted<'_, T, R> {
    fn drop(&mut self) {
        self.batcher.queue.borrow_mut().retain(|queued| !Rc::ptr_eq(queued, self.pending));
        // It may have been woken in order to run a batch for the others.
        self.batcher.wake_next();
    }
}

/// The batch that is under way.
struct Batch<'a, T: Clone, R> {
    batcher: &'a Batcher<T, R>,
    items: Vec<Rc<Pending<T, R>>>,
}

impl<'a, T: Clone, R> Batch<'a, T, R> {
    fn begin(batcher: &'a Batcher<T, R>) -> Self {
        batcher.is_running.set(true);
        Batch { batcher, items: Vec::new() }
    }

    fn take_queue(&mut self) -> Vec<T> {
        self.items = self.batcher.queue.take();
        self.items.iter().map(|pending| pending.item.clone()).collect()
    }

    fn complete(mut self, results: Vec<R>) {
        assert_eq!(results.len(), self.items.len(), "a result for each item");
        for (pending, result) in self.items.drain(..).zip(results) {
            pending.result.set(Some(result));
            pending.wake.take();
        }
    }
}

impl<T: Clone, R> Drop for Batch<'_, T, R> {
    fn drop(&mut self) {
        // Cancelled: items whose requests still wait go back to the head of the queue.
        let wanted = self.items.drain(..).filter(|pending| Rc::strong_count(pending) > 1);
        self.batcher.queue.borrow_mut().splice(0..0, wanted);
        self.batcher.is_running.set(false);
        self.batcher.wake_next();
    }
}

#[cfg(test)]
mod tests;
