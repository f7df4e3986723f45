//! What the readiness check knows: the last word of every part that can fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

#[derive(Clone, Default)]
pub struct Health {
    checks: Arc<Mutex<BTreeMap<String, State>>>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Ok,
    Starting,
    /// Another sidecar does it.
    Standby,
    Failing {
        reason: String,
    },
    /// It fails, and neither publishing nor anybody's answer depends on it: no reason to take the sidecar out of service.
    Degraded {
        reason: String,
    },
    /// The broker refuses so many events. That is for a person to decide on, and the sidecar does its work:
    /// it is no reason to take it out of service.
    Parked {
        events: i64,
    },
}

#[derive(Serialize)]
pub struct Report {
    pub ready: bool,
    pub checks: BTreeMap<String, State>,
}

impl Health {
    pub fn starting(&self, check: &str) {
        self.set(check, State::Starting);
    }

    /// Another sidecar publishes: what it takes to do so is not our concern.
    pub fn standby(&self, check: &str) {
        self.set(check, State::Standby);
    }

    /// So many events are parked.
    pub fn parked(&self, events: i64) {
        self.set("parked", if events == 0 { State::Ok } else { State::Parked { events } });
    }

    pub fn forget(&self, is_forgotten: impl Fn(&str) -> bool) {
        self.checks().retain(|check, _| !is_forgotten(check));
    }

    /// Notes how the repetition of invalidations fares, and says whether that is news.
    pub fn note_cache(&self, failure: Option<&anyhow::Error>) -> bool {
        let state = match failure {
            None => State::Ok,
            Some(error) => State::Degraded { reason: format!("{error:#}") },
        };
        self.set("cache", state)
    }

    /// Notes how a part fares, failing or not, and says whether that is news.
    pub fn note(&self, check: &str, failure: Option<&anyhow::Error>) -> bool {
        let state = match failure {
            None => State::Ok,
            Some(error) => State::Failing { reason: format!("{error:#}") },
        };
        self.set(check, state)
    }

    /// Whether one of these parts is failing.
    pub fn is_failing(&self, is_meant: impl Fn(&str) -> bool) -> bool {
        self.checks().iter().any(|(check, state)| is_meant(check) && matches!(state, State::Failing { .. }))
    }

    pub fn report(&self) -> Report {
        let checks = self.checks().clone();
        Report {
            ready: checks.values().all(|state| !matches!(state, State::Starting | State::Failing { .. })),
            checks,
        }
    }

    fn set(&self, check: &str, state: State) -> bool {
        let fails = |state: &State| matches!(state, State::Failing { .. } | State::Degraded { .. });
        let fails_now = fails(&state);
        let before = self.checks().insert(check.to_owned(), state);
        before.as_ref().is_some_and(fails) != fails_now
    }

    fn checks(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
