use std::rc::Rc;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::{body, json, with_etag, written};
use crate::fields::NewTask;
use crate::headers::{Preferences, idempotency_key, traceparent};
use crate::instance;
use crate::problem::Problem;
use crate::store::Inserted;
use crate::task;

pub(super) async fn one(request: Request) -> Result<Response, Problem> {
    let instance = instance::get().await?;
    let (parts, body) = request.into_parts();
    body::expect(&parts.headers, body::JSON)?;
    let key = idempotency_key(&parts.headers).map_err(Problem::Invalid)?;
    let body = body::read(body, body::TASK_BYTES_MAX, &instance.config).await?;
    let new = NewTask::parse(body::parse(&body)?).map_err(Problem::Invalid)?;
    let preferences = Preferences::parse(&parts.headers);

    let new = Rc::new(task::create(new, traceparent(&parts.headers)));
    let (task, event) = &*new;
    let document = serde_json::to_string(task).expect("a task has only string keys");
    let dropped = match key {
        None => instance.creations.commit(Rc::clone(&new), &instance.store, &instance.cache).await?,
        Some(key) => {
            let fingerprint = format!("{:x}", Sha256::digest(&body));
            match instance.store.insert_task_once(task, event, &key, &fingerprint, &document).await? {
                Inserted::Made => instance.cache.drop_stale(&[]).await,
                Inserted::Before { task_id, response } => {
                    // The first answer may not have got as far as the cache.
                    instance.cache.drop_stale(&[]).await;
                    let mut response = created(&task_id, response, preferences);
                    written::tell_applied(preferences.without_wait(), &mut response);
                    return Ok(response);
                }
                Inserted::Other => return Err(Problem::KeyReused),
                Inserted::InWork => return Err(Problem::InWork),
            }
        }
    };
    let response = created(&task.id.to_string(), document, preferences);
    Ok(written::finish(&instance, vec![event.clone()], dropped, preferences, response).await)
}

/// All or none: one statement, and one answer for all of them.
pub(super) async fn many(request: Request) -> Result<Response, Problem> {
    let instance = instance::get().await?;
    let (parts, body) = request.into_parts();
    body::expect(&parts.headers, body::JSON)?;
    let body = body::read(body, body::BATCH_BYTES_MAX, &instance.config).await?;
    let new = NewTask::parse_batch(body::parse(&body)?).map_err(Problem::Invalid)?;
    let preferences = Preferences::parse(&parts.headers);

    let traceparent = traceparent(&parts.headers);
    let tasks: Vec<_> = new.into_iter().map(|new| task::create(new, traceparent.clone())).collect();
    instance.store.insert_tasks(&tasks).await?;
    let (tasks, events): (Vec<_>, Vec<_>) = tasks.into_iter().unzip();
    let document = serde_json::to_string(&tasks).expect("a task has only string keys");
    let response = told(document, preferences);
    let dropped = instance.cache.drop_stale(&[]).await;
    Ok(written::finish(&instance, events, dropped, preferences, response).await)
}

fn created(task_id: &str, document: String, preferences: Preferences) -> Response {
    let mut response = told(document, preferences);
    let location = HeaderValue::from_str(&format!("/api/tasks/{task_id}")).expect("an id is plain text");
    response.headers_mut().insert(header::LOCATION, location);
    with_etag(1, response)
}

/// Clients parse the body of a 201, so that an answer without one has another status, as PUT's and
/// PATCH's has.
fn told(document: String, preferences: Preferences) -> Response {
    if preferences.minimal {
        StatusCode::NO_CONTENT.into_response()
    } else {
        (StatusCode::CREATED, json(document)).into_response()
    }
}
