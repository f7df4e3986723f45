use axum::extract::Request;
use axum::response::Response;
use http::{HeaderValue, header};

use super::json;
use crate::cache::Cached;
use crate::instance;
use crate::problem::Problem;
use crate::query::Query;

pub(super) async fn list(request: Request) -> Result<Response, Problem> {
    let query = Query::parse(request.uri().query().unwrap_or_default()).map_err(Problem::Invalid)?;
    let instance = instance::get().await?;
    let name = query.canonical();
    let lease = match instance.cache.list(&name).await {
        Cached::Hit(cached) => match decode(&cached) {
            Some((next, list)) => return Ok(page(next, list.to_vec())),
            None => None,
        },
        Cached::Miss(lease) => Some(lease),
        Cached::Unavailable => None,
    };
    let found = instance.store.list_tasks(&query).await?;
    let next = found.last.map(|last| query.next(last)).unwrap_or_default();
    if let Some(lease) = lease {
        instance.cache.store(lease, format!("{next}\n{}", found.list).as_bytes()).await;
    }
    Ok(page(&next, found.list.into_bytes()))
}

/// The list, and the way to the next page (RFC 8288) if there is one.
fn page(next: &str, list: Vec<u8>) -> Response {
    let mut response = json(list);
    if !next.is_empty() {
        let link = HeaderValue::from_str(&format!("</api/tasks?{next}>; rel=\"next\""));
        response.headers_mut().insert(header::LINK, link.expect("a query string is plain text"));
    }
    response
}

/// What is cached of a list: the next page's query string, a line's end, the list.
fn decode(cached: &[u8]) -> Option<(&str, &[u8])> {
    let end = cached.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&cached[..end]).ok()?, &cached[end + 1..]))
}
