//! The measured requests of the API, served by axum without Wasm: the same statements, the same cache
//! rules, the same forward to the same sidecar. What it is slower or faster by is what Wasm costs.
//!
//! Left out, since the load does not ask for it: PUT, DELETE, batches, idempotency keys, conditions,
//! waiting, tokens, CORS, filters and orders of lists, the limits of fields, the opaque form of
//! cursors, the deadlines of each call, and repairing what Redis was not told. So it flatters native.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use clap::Parser;
use http::{StatusCode, header};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::cache::{Cache, Cached};
use crate::forward::Forwarder;
use crate::store::Store;
use crate::task::NewTask;

mod task;
mod store; // task and event, one statement
mod cache; // what readers may see
mod forward; // tell the sidecar

/// As minispin has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Config {
    #[arg(long, env)]
    listen: SocketAddr,
    #[arg(long, env)]
    database_url: String,
    #[arg(long, env)]
    redis_url: String,
    #[arg(long, env)]
    cache_key_prefix: String,
    #[arg(long, env)]
    sidecar_url: String,
    #[arg(long, env)]
    sidecar_token: String,
}

#[derive(Clone)]
struct App {
    store: Store,
    cache: Cache,
    forwarder: Forwarder,
}

struct Failure(anyhow::Error);

type Answer = Result<Response, Failure>;

#[tokio::main]
async fn main() -> Result<()> {
    let config = Config::parse();
    let app = App {
        store: Store::new(&config.database_url)?,
        cache: Cache::connect(&config.redis_url, &config.cache_key_prefix).await?,
        forwarder: Forwarder::start(&config.sidecar_url, &config.sidecar_token),
    };
    let router = Router::new()
        .route("/", get(async || "hello, world\n"))
        .route("/api/tasks", get(list).post(create))
        .route("/api/tasks/{id}", get(read).patch(change))
        .with_state(Arc::new(app));
    let listener = TcpListener::bind(config.listen).await?;
    println!("Serving http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

async fn create(State(app): State<Arc<App>>, Json(new): Json<NewTask>) -> Answer {
    let (task, event) = task::create(new);
    let document = serde_json::to_string(&task)?;
    app.store.insert_task(&task, &event).await?;
    app.cache.drop_stale(None).await?;
    app.forwarder.forward(event);
    let mut response = json(document);
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert(header::LOCATION, format!("/api/tasks/{}", task.id).parse()?);
    with_etag(1, response)
}

async fn change(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
    Json(changes): Json<task::Changes>,
) -> Answer {
    let Some(changed) = app.store.change_task(id, &changes).await? else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    app.cache.drop_stale(Some(id)).await?;
    if let Some(event) = changed.event {
        app.forwarder.forward(event);
    }
    with_etag(changed.version, json(changed.document))
}

async fn read(State(app): State<Arc<App>>, Path(id): Path<Uuid>) -> Answer {
    let lease = match app.cache.task(id).await? {
        Cached::Hit { head, document } => return with_etag(head.parse()?, json(document)),
        Cached::Miss(lease) => lease,
    };
    let Some((document, version)) = app.store.read_task(id).await? else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    app.cache.store(lease, &version.to_string(), &document).await?;
    with_etag(version, json(document))
}

/// Limit and offset, which is all that the load asks for.
fn page(query: &str) -> Result<(i64, i64)> {
    let (mut limit, mut offset) = (20, 0);
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match name {
            "limit" => limit = value.parse()?,
            "offset" => offset = value.parse()?,
            other => anyhow::bail!("no {other} here"),
        }
    }
    Ok((limit, offset))
}

async fn list(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Answer {
    let (limit, offset) = page(query.as_deref().unwrap_or_default())?;
    let name = format!("sort=-created_at&limit={limit}&offset={offset}");
    let lease = match app.cache.list(&name).await? {
        Cached::Hit { head, document } => return linked(&head, document),
        Cached::Miss(lease) => lease,
    };
    let found = app.store.list_tasks(limit, offset).await?;
    let next = found.last.map(|(key, id)| format!("cursor={key},{id}&limit={limit}"));
    let next = next.unwrap_or_default();
    app.cache.store(lease, &next, &found.list).await?;
    linked(&next, found.list)
}

fn linked(next: &str, list: String) -> Answer {
    let mut response = json(list);
    if !next.is_empty() {
        let link = format!("</api/tasks?{next}>; rel=\"next\"");
        response.headers_mut().insert(header::LINK, link.parse()?);
    }
    identified(response)
}

fn json(document: String) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "private, no-cache")];
    (headers, Body::from(document)).into_response()
}

fn with_etag(version: i64, mut response: Response) -> Answer {
    response.headers_mut().insert(header::ETAG, format!("\"{version}\"").parse()?);
    identified(response)
}

fn identified(mut response: Response) -> Answer {
    response.headers_mut().insert("x-request-id", Uuid::now_v7().to_string().parse()?);
    Ok(response)
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        eprintln!("{:#}", self.0);
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    }
}
