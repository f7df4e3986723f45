//! Questions that come together are asked together: one is under way in the instance, and what gathers meanwhile goes
//! with the next. Whoever finds none under way asks for all that wait: the 16 requests that Spin serves with an
//! instance at once, at most.
//!
//! Every question is answered, or whoever asked it asks again: also if the one who asks for all is given up.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::signal::{Wake, pair};

/// Questions of one kind, and what comes of them.
pub struct Together<Q, A> {
    /// In the order in which they came.
    waiting: RefCell<Vec<Rc<Question<Q, A>>>>,
    is_asking: Cell<bool>,
}

struct Question<Q, A> {
    question: Q,
    answer: Cell<Option<A>>,
    wake: Cell<Option<Wake>>,
}

impl<Q: Clone, A> Together<Q, A> {
    pub fn new() -> Self {
        Together { waiting: RefCell::default(), is_asking: Cell::new(false) }
    }

    /// The answer to `question`. `prepare` gets ready what asking takes, and whatever gathers until then is asked as well;
    /// `ask` gives an answer for each question that it gets, in their order.
    pub async fn ask<P>(
        &self,
        question: Q,
        prepare: impl AsyncFn() -> P,
        ask: impl AsyncFn(P, Vec<Q>) -> Vec<A>,
    ) -> A {
        let mine = Rc::new(Question { question, answer: Cell::new(None), wake: Cell::new(None) });
        self.waiting.borrow_mut().push(Rc::clone(&mine));
        let _mine = Mine { together: self, question: &mine };
        loop {
            if let Some(answer) = mine.answer.take() {
                return answer;
            }
            if self.is_asking.get() {
                let (wake, wait) = pair();
                mine.wake.set(Some(wake));
                wait.woken().await;
            } else {
                let mut asked = Asked::begin(self);
                let prepared = prepare().await;
                let answers = ask(prepared, asked.gather()).await;
                asked.tell(answers);
            }
        }
    }

    /// Somebody has to ask for those that wait.
    fn wake_next(&self) {
        if !self.is_asking.get()
            && let Some(next) = self.waiting.borrow().first()
        {
            next.wake.take();
        }
    }
}

/// A question, until its answer is there or nobody wants it any more.
struct Mine<'a, Q: Clone, A> {
    together: &'a Together<Q, A>,
    question: &'a Rc<Question<Q, A>>,
}

impl<Q: Clone, A> Drop for Mine<'_, Q, A> {
    fn drop(&mut self) {
        self.together.waiting.borrow_mut().retain(|waiting| !Rc::ptr_eq(waiting, self.question));
        // It may have been woken in order to ask for the others.
        self.together.wake_next();
    }
}

/// What is being asked.
struct Asked<'a, Q: Clone, A> {
    together: &'a Together<Q, A>,
    questions: Vec<Rc<Question<Q, A>>>,
}

impl<'a, Q: Clone, A> Asked<'a, Q, A> {
    fn begin(together: &'a Together<Q, A>) -> Self {
        together.is_asking.set(true);
        Asked { together, questions: Vec::new() }
    }

    fn gather(&mut self) -> Vec<Q> {
        self.questions = self.together.waiting.take();
        self.questions.iter().map(|asked| asked.question.clone()).collect()
    }

    fn tell(mut self, answers: Vec<A>) {
        assert_eq!(answers.len(), self.questions.len(), "an answer to each question");
        for (asked, answer) in self.questions.drain(..).zip(answers) {
            asked.answer.set(Some(answer));
            asked.wake.take();
        }
    }
}

impl<Q: Clone, A> Drop for Asked<'_, Q, A> {
    fn drop(&mut self) {
        // Given up in the middle: those that still want an answer have to be asked again.
        let wanted = self.questions.drain(..).filter(|asked| Rc::strong_count(asked) > 1);
        self.together.waiting.borrow_mut().splice(0..0, wanted);
        self.together.is_asking.set(false);
        self.together.wake_next();
    }
}

#[cfg(test)]
mod tests;
