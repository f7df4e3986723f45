//! Tells the sidecar, after the response. An event that does not get there is no error: it is in the
//! outbox, and the sweep publishes it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use contract::{BATCH_CONTENT_TYPE, DROPPED_EVENTS, EVENTS_PATH, Event, Receipt, Receipts};
use http::{Request, StatusCode, header};
use spin_sdk::http::body::IncomingBodyExt as _;
use spin_sdk::http::{FullBody, IntoRequest as _};
use spin_sdk::{time, wit_bindgen};
use thiserror::Error;

use crate::deadline::{TimedOut, within};
use crate::idle::InFlight;
use crate::{log, spawned};

/// One request to the sidecar: well below what it takes at once.
const BATCH_EVENTS_MAX: usize = 64;
const BATCH_PAYLOAD_BYTES_MAX: usize = 512 * 1024;

/// From the beginning of one request to that of the next, unless that is full: each costs the sidecar and the host more
/// than its events do. An event that comes after a pause goes at once.
const LINGER: Duration = Duration::from_millis(5);

/// Past it events are left to the sweep, as they are when a request has timed out: a sidecar that hangs is not to fill the
/// instance's memory, nor to keep it from ending.
const WAITING_EVENTS_MAX: usize = 1_024;

/// What a forward gets on top of the wait, to be handed over and answered.
const SEND_TIME: Duration = Duration::from_millis(500);

pub struct Forwarder {
    url: String,
    authorization: String,
    timeout: Duration,
    waiting: RefCell<Vec<Event>>,
    running: Cell<bool>,
    /// Events that were left to the sweep without being sent, and of which the sidecar does not
    /// know yet.
    dropped: Cell<u64>,
    /// So that the log tells when the sidecar goes and comes, and not of every event.
    failing: Cell<bool>,
}

#[derive(Debug, Error)]
enum ForwardError {
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    #[error("{0}")]
    Http(String),
    #[error("{0} events are left to its sweep, unsent and not yet counted by it")]
    Dropped(u64),
    #[error("the sidecar answered {0}")]
    Status(StatusCode),
}

impl Forwarder {
    pub fn new(sidecar_url: &str, token: &str, timeout: Duration) -> Forwarder {
        Forwarder {
            url: format!("{sidecar_url}{EVENTS_PATH}"),
            authorization: format!("Bearer {token}"),
            timeout,
            waiting: RefCell::default(),
            running: Cell::new(false),
            dropped: Cell::new(0),
            failing: Cell::new(false),
        }
    }

    /// Queues the event and returns at once. One request is under way at a time in this instance, and
    /// what gathers meanwhile goes with the next: a request for each event costs a third of the
    /// throughput.
    pub fn forward(self: &Rc<Self>, event: Event) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= WAITING_EVENTS_MAX {
            self.dropped.update(|dropped| dropped + 1);
            return;
        }
        waiting.push(event);
        drop(waiting);
        if !self.running.replace(true) {
            let forwarder = Rc::clone(self);
            wit_bindgen::spawn(async move {
                let _in_flight = InFlight::new();
                forwarder.run().await;
                forwarder.running.set(false);
            });
        }
    }

    async fn run(&self) {
        loop {
            let batch = next_batch(&mut self.waiting.borrow_mut());
            if batch.is_empty() {
                return;
            }
            let began = Instant::now();
            let answer = self.send(&batch, None).await;
            self.note(answer.as_ref().err());
            if let Err(ForwardError::TimedOut(_)) = answer {
                let given_up = self.waiting.take().len() as u64;
                self.dropped.update(|dropped| dropped + given_up);
                // The instance may end before it can tell the sidecar.
                if self.dropped.get() > 0 {
                    log::warn("the sidecar hangs", &ForwardError::Dropped(self.dropped.get()));
                }
            }
            let left = LINGER.saturating_sub(began.elapsed());
            if !left.is_zero() && self.waiting.borrow().len() < BATCH_EVENTS_MAX {
                time::sleep(left).await;
            }
        }
    }

    /// Forwards the events and waits for the broker's ack, so long and no longer. Gives back the receipts
    /// of those that are on the topic; the others are on their way, this time or with the sweep.
    pub async fn forward_and_wait(&self, events: Vec<Event>, wait: Duration) -> Vec<Receipt> {
        let deadline = Instant::now() + wait;
        let mut waiting = events;
        let mut receipts = Vec::new();
        while !waiting.is_empty() {
            let batch = next_batch(&mut waiting);
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self.send(&batch, Some(left)).await;
            self.note(answer.as_ref().err());
            receipts.extend(answer.unwrap_or_default());
        }
        receipts
    }

    /// Whether the sidecar publishes or stands by, as its own `/readyz` says.
    pub async fn is_ready(&self) -> bool {
        let url = format!("{}/readyz", self.url.trim_end_matches(EVENTS_PATH));
        let exchange = async {
            let request = Request::get(url).body(FullBody::new(bytes::Bytes::new())).ok()?;
            let response = spin_sdk::http::send(request.into_request().ok()?).await.ok()?;
            Some(response.status() == StatusCode::OK)
        };
        matches!(within(self.timeout, exchange).await, Ok(Some(true)))
    }

    fn note(&self, error: Option<&ForwardError>) {
        match error {
            None if self.failing.replace(false) => log::info("the sidecar takes events again"),
            Some(error) if !self.failing.replace(true) => {
                log::warn("the sidecar does not take events: they are left to its sweep", error);
            }
            _ => {}
        }
    }

    async fn send(&self, batch: &[Event], wait: Option<Duration>) -> Result<Vec<Receipt>, ForwardError> {
        let dropped = self.dropped.take();
        let answer = self.exchange(batch, wait, dropped).await;
        // The sidecar counts them as soon as it knows the token, whatever it makes of the events.
        if let Err(
            ForwardError::TimedOut(_)
            | ForwardError::Http(_)
            | ForwardError::Status(StatusCode::UNAUTHORIZED),
        ) = answer
        {
            self.dropped.update(|since| since + dropped);
        }
        answer
    }

    async fn exchange(
        &self,
        batch: &[Event],
        wait: Option<Duration>,
        dropped: u64,
    ) -> Result<Vec<Receipt>, ForwardError> {
        let body = serde_json::to_vec(batch).map_err(|error| ForwardError::Http(error.to_string()))?;
        let mut request = Request::post(&self.url);
        if let Some(wait) = wait {
            // Between the two of us the preference has milliseconds.
            request = request.header("prefer", format!("wait={:.3}", wait.as_secs_f64()));
        }
        if dropped > 0 {
            request = request.header(DROPPED_EVENTS, dropped);
        }
        let request = request
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, BATCH_CONTENT_TYPE)
            .header(header::CONTENT_LENGTH, body.len())
            .body(FullBody::new(bytes::Bytes::from(body)))
            .map_err(|error| ForwardError::Http(error.to_string()))?;
        let exchange = async {
            let request = request.into_request()?;
            // The body's write begins first, so that the host's client finds it with the head. It would
            // send the head alone, and hold the body back until the sidecar's kernel has acknowledged that,
            // which it delays by 40 ms: Spin does not set TCP_NODELAY here either (see `send` in lib.rs).
            spawned::yield_to_spawned_tasks().await;
            let response = spin_sdk::http::send(request).await?;
            let status = response.status();
            // Read to its end, so that the host can use the connection again.
            let body = response.into_body().bytes().await?;
            Ok((status, body))
        };
        let limit = wait.map_or(self.timeout, |wait| wait + SEND_TIME);
        let (status, body) = within(limit, exchange)
            .await?
            .map_err(|error: spin_sdk::http::Error| ForwardError::Http(error.to_string()))?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body)
                .map(|Receipts { receipts }| receipts)
                .map_err(|error| ForwardError::Http(error.to_string())),
            StatusCode::ACCEPTED => Ok(Vec::new()),
            refused => Err(ForwardError::Status(refused)),
        }
    }
}

/// The oldest events that fit into one request, at least one of them.
fn next_batch(waiting: &mut Vec<Event>) -> Vec<Event> {
    let mut payload_bytes = 0;
    let fitting = waiting.iter().take(BATCH_EVENTS_MAX).take_while(|event| {
        payload_bytes += event.payload.get().len();
        payload_bytes <= BATCH_PAYLOAD_BYTES_MAX
    });
    let count = fitting.count().max(1).min(waiting.len());
    waiting.drain(..count).collect()
}
