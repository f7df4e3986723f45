use axum::extract::Request;
use axum::response::Response;
use http::{StatusCode, header};

use super::{PathId, json, task_id, with_etag};
use crate::cache::Cached;
use crate::entity_tags::Conditions;
use crate::instance;
use crate::problem::Problem;

pub(super) async fn task(id: PathId, request: Request) -> Result<Response, Problem> {
    let id = task_id(id)?;
    let conditions = Conditions::parse(request.headers())?;
    let instance = instance::get().await?;
    let lease = match instance.cache.task(id).await {
        Cached::Hit(cached) => match decode(&cached) {
            Some((version, document)) => return found(version, document, &conditions),
            None => None,
        },
        Cached::Miss(lease) => Some(lease),
        Cached::Unavailable => None,
    };
    let task = instance.store.read_task(id).await?.ok_or(Problem::NoSuchTask)?;
    if let Some(lease) = lease {
        instance.cache.store(lease, format!("{}\n{}", task.version, task.document).as_bytes()).await;
    }
    found(task.version, task.document.as_bytes(), &conditions)
}

/// What has happened to a task and is not on the topic yet.
pub(super) async fn events(id: PathId) -> Result<Response, Problem> {
    let id = task_id(id)?;
    let instance = instance::get().await?;
    let events = instance.store.select_events(id).await?.ok_or(Problem::NoSuchTask)?;
    Ok(json(events))
}

/// In the order of RFC 9110, section 13.2.2.
fn found(version: i64, document: &[u8], conditions: &Conditions) -> Result<Response, Problem> {
    if !conditions.wants(version) {
        return Err(Problem::PreconditionFailed(conditions.unmet()));
    }
    if !conditions.has(version) {
        return Ok(with_etag(version, json(document.to_vec())));
    }
    // What a 200 would say of the task, without the task (RFC 9110, section 15.4.5).
    let mut response = with_etag(version, json(Vec::new()));
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().remove(header::CONTENT_TYPE);
    Ok(response)
}

/// What is cached of a task: its version, a line's end, its JSON.
fn decode(cached: &[u8]) -> Option<(i64, &[u8])> {
    let end = cached.iter().position(|byte| *byte == b'\n')?;
    let version = std::str::from_utf8(&cached[..end]).ok()?.parse().ok()?;
    Some((version, &cached[end + 1..]))
}
