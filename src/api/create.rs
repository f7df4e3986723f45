use std::rc::Rc;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::auth::Token;
use super::{BATCH_PATH, TASKS_PATH, body, json, with_etag, written};
use crate::fields::{Invalid, NewTask};
use crate::headers::{Preferences, TraceContext, idempotency_key};
use crate::instance;
use crate::problem::Problem;
use crate::store::{Inserted, Once};
use crate::task;

pub(super) async fn one(request: Request) -> Result<Response, Problem> {
    let instance = instance::get().await?;
    let (parts, body) = request.into_parts();
    body::expect(&parts.headers, body::JSON)?;
    let key = idempotency_key(&parts.headers)?;
    let body = body::read(body, body::TASK_BYTES_MAX, &instance.config).await?;
    let new = NewTask::parse(body::parse(&body)?).map_err(Problem::Invalid)?;
    let preferences = Preferences::parse(&parts.headers);

    let new = Rc::new(task::create(new, TraceContext::parse(&parts.headers)));
    let (task, event) = &*new;
    let document = serde_json::to_string(task).expect("a task has only string keys");
    let dropped = match key {
        None => instance.group_commit.commit(Rc::clone(&new), &instance.store, &instance.cache).await?,
        Some(key) => {
            let request = Once::of(&parts, TASKS_PATH, &key, &body);
            let inserted = instance.store.insert_task_once(task, event, &request, &document).await;
            // Whatever is said of it: the task may have been made before an answer was lost.
            let dropped = instance.cache.drop_stale(&[]).await;
            match inserted? {
                Inserted::Made => dropped,
                Inserted::Before { task_id, response } => {
                    let task_id = task_id.unwrap_or_default();
                    let mut response = created(&task_id, response, preferences);
                    written::tell_applied(preferences.without_wait(), &mut response);
                    return Ok(response);
                }
                Inserted::Other => return Err(key_reused()),
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
    let key = idempotency_key(&parts.headers)?;
    let body = body::read(body, body::BATCH_BYTES_MAX, &instance.config).await?;
    let new = NewTask::parse_batch(body::parse(&body)?).map_err(Problem::Invalid)?;
    let preferences = Preferences::parse(&parts.headers);

    let trace = TraceContext::parse(&parts.headers);
    let new: Vec<_> = new.into_iter().map(|new| task::create(new, trace.clone())).collect();
    let tasks: Vec<_> = new.iter().map(|(task, _)| task).collect();
    let document = serde_json::to_string(&tasks).expect("a task has only string keys");
    let inserted = match key {
        None => instance.store.insert_tasks(&new).await.map(|()| Inserted::Made),
        Some(key) => {
            let request = Once::of(&parts, BATCH_PATH, &key, &body);
            instance.store.insert_tasks_once(&new, &request, &document).await
        }
    };
    let dropped = instance.cache.drop_stale(&[]).await;
    match inserted? {
        Inserted::Made => {}
        Inserted::Before { response, .. } => {
            let mut response = told(response, preferences);
            written::tell_applied(preferences.without_wait(), &mut response);
            return Ok(response);
        }
        Inserted::Other => return Err(key_reused()),
        Inserted::InWork => return Err(Problem::InWork),
    }
    let events = new.into_iter().map(|(_, event)| event).collect();
    let response = told(document, preferences);
    Ok(written::finish(&instance, events, dropped, preferences, response).await)
}

impl Once {
    /// A key belongs to its path, and to the token of who sent it. Neither of the three has a quote
    /// in it, so no two of them have one name. Where the API is open, a key of [`TASKS_PATH`] is
    /// its own name.
    fn of(parts: &Parts, path: &str, key: &str, body: &[u8]) -> Once {
        let token = parts.extensions.get::<Token>().map(|Token(hash)| hex::encode(hash));
        let key = match token {
            None if path == TASKS_PATH => key.to_owned(),
            token => format!("{path}\"{}\"{key}", token.unwrap_or_default()),
        };
        Once { key, fingerprint: format!("{:x}", Sha256::digest(body)) }
    }
}

fn key_reused() -> Problem {
    let detail = "was used for another request; each request needs its own";
    Invalid::header("Idempotency-Key", "value", detail).into()
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
