use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::request::Parts;
use uuid::Uuid;

use super::{PathId, body, json, task_id, with_etag, written};
use crate::config::Config;
use crate::entity_tags::Conditions;
use crate::fields::{Changes, Errors, Invalid, NewTask, Shown};
use crate::headers::{IDEMPOTENCY_KEY, Preferences, TraceContext};
use crate::instance::{self, Instance};
use crate::problem::{PATCH_MEDIA_TYPES, Problem};
use crate::store::{Changed, Deleted, Found};

pub(super) async fn put(id: PathId, request: Request) -> Result<Response, Problem> {
    let id = task_id(id)?;
    let instance = instance::get().await?;
    let (parts, body) = request.into_parts();
    body::expect(&parts.headers, body::JSON)?;
    refuse_key(&parts)?;
    let body = body::read(body, body::TASK_BYTES_MAX, &instance.config).await?;
    let (new, shown) = NewTask::parse_put(body::parse(&body)?).map_err(Problem::Invalid)?;
    if shown.id.is_some_and(|shown| shown != id) {
        return Err(mismatched(&["id"]));
    }
    change(&instance, id, &parts, &Changes::all(new), &shown).await
}

pub(super) async fn patch(id: PathId, request: Request) -> Result<Response, Problem> {
    let id = task_id(id)?;
    let instance = instance::get().await?;
    let (parts, body) = request.into_parts();
    body::expect(&parts.headers, PATCH_MEDIA_TYPES)?;
    refuse_key(&parts)?;
    let body = body::read(body, body::TASK_BYTES_MAX, &instance.config).await?;
    let changes = Changes::parse_patch(body::parse(&body)?).map_err(Problem::Invalid)?;
    change(&instance, id, &parts, &changes, &Shown::default()).await
}

pub(super) async fn delete(id: PathId, request: Request) -> Result<Response, Problem> {
    let id = task_id(id)?;
    let instance = instance::get().await?;
    let (parts, _) = request.into_parts();
    refuse_key(&parts)?;
    let conditions = conditions(&parts, &instance.config)?;
    let trace = TraceContext::parse(&parts.headers);
    let deleted = instance.store.delete_task(id, &conditions, trace).await;
    // Whatever is said of it, as in `change`.
    let dropped = instance.cache.drop_stale(&[id]).await;
    match deleted? {
        Deleted::Done(event) => {
            let response = StatusCode::NO_CONTENT.into_response();
            let preferences = Preferences { minimal: false, ..Preferences::parse(&parts.headers) };
            Ok(written::finish(&instance, vec![event], dropped, preferences, response).await)
        }
        Deleted::Refused => Err(Problem::PreconditionFailed(conditions.unmet())),
        Deleted::Missing => Err(Problem::NoSuchTask),
    }
}

async fn change(
    instance: &Instance,
    id: Uuid,
    parts: &Parts,
    changes: &Changes,
    shown: &Shown,
) -> Result<Response, Problem> {
    let conditions = conditions(parts, &instance.config)?;
    let preferences = Preferences::parse(&parts.headers);
    let trace = TraceContext::parse(&parts.headers);
    let outcome = instance.store.change_task(id, changes, shown, &conditions, trace).await;
    // Whatever is said of it: this same statement may have made the change before its answer was lost.
    let dropped = instance.cache.drop_stale(&[id]).await;
    match outcome? {
        Changed::Done(task, event) => {
            let response = changed(task, preferences);
            Ok(written::finish(instance, vec![event], dropped, preferences, response).await)
        }
        // Nothing was written now, so there is nothing to tell or to wait for.
        Changed::Same(task) => {
            let mut response = changed(task, preferences);
            written::tell_applied(preferences.without_wait(), &mut response);
            Ok(response)
        }
        Changed::Refused => Err(Problem::PreconditionFailed(conditions.unmet())),
        Changed::Mismatched(names) => Err(mismatched(&names)),
        Changed::Missing => Err(Problem::NoSuchTask),
    }
}

fn changed(task: Found, preferences: Preferences) -> Response {
    let response =
        if preferences.minimal { StatusCode::NO_CONTENT.into_response() } else { json(task.document) };
    with_etag(task.version, response)
}

/// These fields of a PUT's body are not the task's.
fn mismatched(names: &[&str]) -> Problem {
    let mut errors = Errors::default();
    for name in names {
        let detail = "is not what the task has; read the task again, or leave the field out";
        errors.push(|| Invalid::at(format!("/{name}"), "value", detail));
    }
    Problem::Invalid(errors)
}

/// What cannot be honoured must not be ignored: who sends a key relies on it.
fn refuse_key(parts: &Parts) -> Result<(), Problem> {
    if parts.headers.contains_key(IDEMPOTENCY_KEY) { Err(Problem::UnexpectedIdempotencyKey) } else { Ok(()) }
}

fn conditions(parts: &Parts, config: &Config) -> Result<Conditions, Problem> {
    let conditions = Conditions::parse(&parts.headers)?;
    if config.require_if_match && !conditions.has_if_match() {
        return Err(Problem::PreconditionRequired);
    }
    Ok(conditions)
}
