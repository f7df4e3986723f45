//! The clients: each creates, changes, deletes and reads, without pause, tasks of its own and some that all of them share.
//!
//! Invariant: whatever a client sent is in the history with what it was told, and a write's title is nobody else's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::history::{Answer, Found, History, Kind, Read, Write};
use crate::Api;

/// Longer than the component takes to say that its database does not answer.
const REQUEST_LIMIT: Duration = Duration::from_secs(8);
/// What a client waits between requests, so that eight of them leave the machine something for the rest.
const PAUSE_MS: std::ops::Range<u64> = 0..12;
/// After a request that was not answered.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);
/// A client with more tasks than this deletes one before anything else.
const OWN_TASKS_MAX: usize = 8;
const SHARED_TASKS: usize = 6;
const BATCH_TASKS: std::ops::Range<usize> = 2..12;
/// How often a creation with an Idempotency-Key is repeated that was not answered.
const REPEATS_MAX: usize = 5;
const LIST_LIMIT: usize = 50;

pub struct Client {
    number: usize,
    api: Api,
    rng: Rng,
    own: Vec<Known>,
    shared: Shared,
    writes: u64,
}

/// Ids of tasks that every client may change.
pub type Shared = Arc<Mutex<Vec<String>>>;

/// A task, and the version that the client saw last.
#[derive(Clone)]
struct Known {
    id: String,
    version: Option<i64>,
}

impl Client {
    pub fn new(number: usize, seed: u64, api: Api, shared: Shared) -> Client {
        let rng = Rng::with_seed(seed ^ (number as u64 + 1).wrapping_mul(0xd134_2543_de82_ef95));
        Client { number, api, rng, own: Vec::new(), shared, writes: 0 }
    }

    pub fn tasks(&self) -> impl Iterator<Item = &str> {
        self.own.iter().map(|known| known.id.as_str())
    }

    /// Until `stop`, and until the last request is answered.
    pub async fn run(mut self, history: History, stop: Arc<AtomicBool>) -> Client {
        while !stop.load(Ordering::Relaxed) {
            self.step(&history).await;
            sleep(Duration::from_millis(self.rng.u64(PAUSE_MS))).await;
        }
        self
    }

    async fn step(&mut self, history: &History) {
        if self.own.len() > OWN_TASKS_MAX {
            let known = self.own.swap_remove(self.rng.usize(..self.own.len()));
            return self.delete(history, &known.id).await;
        }
        let shared = self.shared().len();
        match self.rng.u8(0..100) {
            _ if shared < SHARED_TASKS => self.create(history, true).await,
            0..12 => self.create(history, false).await,
            12..17 => self.create_with_key(history).await,
            17..20 => self.create_many(history).await,
            20..23 => self.create_nonsense(history).await,
            23..35 => self.change(history, Kind::Put).await,
            35..58 => self.change(history, Kind::Patch).await,
            58..66 => {
                if let Some(known) = self.any() {
                    self.delete(history, &known.id).await;
                }
            }
            66..84 => self.read(history).await,
            _ => self.list(history).await,
        }
    }

    async fn create(&mut self, history: &History, is_shared: bool) {
        let (tag, fields) = self.fields(true);
        let request = self.api.post("/api/tasks").json(&fields);
        let sent = Instant::now();
        let answer = self.write(history, sent, (tag, Kind::Create, None), fields, None, request).await;
        self.learn(&answer, is_shared);
    }

    /// Repeats what was not answered with the same key, by which the API knows that it is the same creation.
    async fn create_with_key(&mut self, history: &History) {
        let (tag, fields) = self.fields(true);
        let sent = Instant::now();
        let mut answer = Answer::Unknown("not sent".to_owned());
        for _ in 0..REPEATS_MAX {
            let request = self.api.post("/api/tasks").header("idempotency-key", &tag).json(&fields);
            answer = told(request).await;
            // 409: the first request with this key is still in work, whatever became of its answer.
            if !matches!(answer, Answer::Unknown(_) | Answer::Refused(409)) {
                break;
            }
            sleep(FAILURE_PAUSE).await;
        }
        if answer == Answer::Refused(409) {
            answer = Answer::Unknown("still in work".to_owned());
        }
        self.learn(&answer, false);
        let told = Instant::now();
        let (kind, if_match, batch) = (Kind::Create, None, None);
        history.write(Write { tag, kind, task: None, fields, if_match, batch, sent, told, answer });
    }

    async fn create_many(&mut self, history: &History) {
        let count = self.rng.usize(BATCH_TASKS);
        let (tags, all): (Vec<_>, Vec<_>) = (0..count).map(|_| self.fields(true)).unzip();
        let batch = Some(self.rng.u64(..));
        let sent = Instant::now();
        let answer = told(self.api.post("/api/tasks:batch").json(&all)).await;
        let told = Instant::now();
        for (number, (tag, fields)) in tags.into_iter().zip(all).enumerate() {
            let answer = match &answer {
                Answer::Done(tasks) => {
                    Answer::Done(Some(tasks.as_ref().map(|tasks| tasks[number].clone()).unwrap_or_default()))
                }
                other => other.clone(),
            };
            self.learn(&answer, false);
            let (kind, if_match) = (Kind::Create, None);
            history.write(Write { tag, kind, task: None, fields, if_match, batch, sent, told, answer });
        }
    }

    /// What must be refused.
    async fn create_nonsense(&mut self, history: &History) {
        let (tag, mut fields) = self.fields(true);
        fields["status"] = json!("eaten");
        let request = self.api.post("/api/tasks").json(&fields);
        self.write(history, Instant::now(), (tag, Kind::Create, None), fields, None, request).await;
    }

    async fn change(&mut self, history: &History, kind: Kind) {
        let Some(known) = self.any() else { return };
        let (tag, fields) = self.fields(kind == Kind::Put);
        let path = format!("/api/tasks/{}", known.id);
        let mut request = match kind {
            Kind::Put => self.request("PUT", &path).json(&fields),
            _ => self.request("PATCH", &path).json(&fields),
        };
        let mut if_match = None;
        if let Some(version) = known.version
            && self.rng.u8(0..4) == 0
        {
            // Of another version now and then, which must be refused.
            let version = if self.rng.u8(0..4) == 0 { version + 7 } else { version };
            request = request.header("if-match", format!("\"{version}\""));
            if_match = Some(version);
        }
        let id = known.id.clone();
        let sent = Instant::now();
        let answer = self.write(history, sent, (tag, kind, Some(id)), fields, if_match, request).await;
        match answer {
            Answer::Done(task) => {
                let version = task.as_ref().and_then(|task| task["version"].as_i64());
                self.saw(&known.id, version);
            }
            Answer::Refused(404) => self.forget(&known.id),
            Answer::Refused(_) | Answer::Unknown(_) => self.saw(&known.id, None),
        }
    }

    async fn delete(&mut self, history: &History, id: &str) {
        let tag = self.tag();
        let request = self.request("DELETE", &format!("/api/tasks/{id}"));
        let of = (tag, Kind::Delete, Some(id.to_owned()));
        match self.write(history, Instant::now(), of, Value::Null, None, request).await {
            Answer::Done(_) | Answer::Refused(_) => self.forget(id),
            Answer::Unknown(_) => {}
        }
    }

    async fn read(&mut self, history: &History) {
        let Some(known) = self.any() else { return };
        let sent = Instant::now();
        let read = exchange(self.api.get(&format!("/api/tasks/{}", known.id))).await;
        let found = match read {
            Ok((StatusCode::OK, task)) => {
                self.saw(&known.id, task["version"].as_i64());
                Found::Task(task)
            }
            Ok((StatusCode::NOT_FOUND, _)) => Found::Missing(known.id),
            Ok(_) | Err(_) => return sleep(FAILURE_PAUSE).await,
        };
        history.read(Read { sent, told: Instant::now(), found });
    }

    async fn list(&mut self, history: &History) {
        let (query, is_newest_first) = match self.rng.u8(0..5) {
            0 => ("&sort=-updated_at", false),
            1 => ("&status=done", false),
            2 => ("&sort=priority&status=todo", false),
            _ => ("", true),
        };
        let sent = Instant::now();
        match exchange(self.api.get(&format!("/api/tasks?limit={LIST_LIMIT}{query}"))).await {
            Ok((StatusCode::OK, Value::Array(tasks))) => {
                let found = Found::List { tasks, limit: LIST_LIMIT, is_newest_first };
                history.read(Read { sent, told: Instant::now(), found });
            }
            Ok(_) | Err(_) => sleep(FAILURE_PAUSE).await,
        }
    }

    async fn write(
        &self,
        history: &History,
        sent: Instant,
        (tag, kind, task): (String, Kind, Option<String>),
        fields: Value,
        if_match: Option<i64>,
        request: RequestBuilder,
    ) -> Answer {
        let answer = told(request).await;
        let told = Instant::now();
        let known = answer.clone();
        history.write(Write { tag, kind, task, fields, if_match, batch: None, sent, told, answer });
        if matches!(known, Answer::Unknown(_)) {
            sleep(FAILURE_PAUSE).await;
        }
        known
    }

    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.api.request(method, path).expect("a method of HTTP")
    }

    /// A task of its own, or one that everybody has.
    fn any(&mut self) -> Option<Known> {
        let shared = self.shared().clone();
        if self.rng.u8(0..3) == 0
            && let Some(id) = self.rng.choice(&shared)
        {
            return Some(Known { id: id.clone(), version: None });
        }
        self.rng.choice(&self.own).cloned()
    }

    fn learn(&mut self, answer: &Answer, is_shared: bool) {
        if let Answer::Done(Some(task)) = answer
            && let Some(id) = task["id"].as_str()
        {
            match is_shared {
                true => self.shared().push(id.to_owned()),
                false => self.own.push(Known { id: id.to_owned(), version: Some(1) }),
            }
        }
    }

    fn saw(&mut self, id: &str, version: Option<i64>) {
        if let Some(known) = self.own.iter_mut().find(|known| known.id == id) {
            known.version = version;
        }
    }

    fn forget(&mut self, id: &str) {
        self.own.retain(|known| known.id != id);
        self.shared().retain(|known| known != id);
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tag(&mut self) -> String {
        self.writes += 1;
        format!("client {} write {}", self.number, self.writes)
    }

    /// A title that is nobody else's, and some of the other fields: of a patch fewer, and some of them null.
    fn fields(&mut self, is_whole: bool) -> (String, Value) {
        let tag = self.tag();
        let mut fields = json!({ "title": tag });
        let likely = if is_whole { 2 } else { 4 };
        if self.rng.u8(0..likely) == 0 {
            let length = if self.rng.u8(0..20) == 0 { 5_000 } else { self.rng.usize(0..200) };
            let text: String = (0..length)
                .map(|_| self.rng.choice(['a', 'ä', ' ', '"', '\\', '{', '☃', 'z', '\n']).unwrap())
                .collect();
            fields["description"] = json!(text);
        } else if self.rng.u8(0..likely) == 0 {
            fields["description"] = Value::Null;
        }
        if self.rng.u8(0..likely) == 0 {
            fields["status"] = json!(self.rng.choice(["todo", "in_progress", "done"]));
        }
        if self.rng.u8(0..likely) == 0 {
            fields["priority"] = json!(self.rng.choice(["low", "normal", "high"]));
        }
        if self.rng.u8(0..likely) == 0 {
            fields["due_at"] = match self.rng.bool() {
                true => json!(format!("2031-02-03T04:05:06.{:06}Z", self.rng.u32(0..1_000_000))),
                false => Value::Null,
            };
        }
        if self.rng.u8(0..likely) == 0 {
            let all = ["home", "work", "later", "ä\"b"];
            fields["tags"] = json!(all[..self.rng.usize(0..=all.len())]);
        }
        (tag, fields)
    }
}

/// What an answer to a write means: 4xx was refused, and of anything else but a 2xx it is not known what became.
async fn told(request: RequestBuilder) -> Answer {
    match exchange(request).await {
        Ok((StatusCode::NO_CONTENT, _)) => Answer::Done(None),
        Ok((status, body)) if status.is_success() => Answer::Done(Some(body)),
        Ok((status, _)) if status.is_client_error() => Answer::Refused(status.as_u16()),
        Ok((status, _)) => Answer::Unknown(status.to_string()),
        Err(error) => Answer::Unknown(format!("{error:#}")),
    }
}

/// The status, and the body if it is JSON; it must have come whole.
async fn exchange(request: RequestBuilder) -> Result<(StatusCode, Value)> {
    let response = request.timeout(REQUEST_LIMIT).send().await?;
    let status = response.status();
    let body = response.bytes().await?;
    let body = match status.is_success() && !body.is_empty() {
        true => serde_json::from_slice(&body).context("a 2xx that is not JSON")?,
        false => Value::Null,
    };
    Ok((status, body))
}
