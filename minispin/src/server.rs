//! Requests in, responses out: a bound on what is in flight, the route, the instance. The component sees the
//! request as Spin shows it, with a full URI and Spin's own headers.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    header::{CONNECTION, HOST, RETRY_AFTER},
    uri::{Authority, Scheme},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::PoolConcurrencyLimitError;
use wasmtime_wasi_http::{Error, WasiBody, handler::InstantiationError};

use crate::{
    instances::Instances,
    routes::{Route, Router},
};

/// What a client that was turned away should wait, in seconds.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");
/// Paths that Spin keeps for itself.
const WELL_KNOWN: &str = "/.well-known/spin/";

/// Answers requests, by whichever component has the route.
pub struct Server {
    pub router: Router<Arc<Served>>,
    requests: Arc<Semaphore>,
}

/// A component and its instances.
pub struct Served {
    pub id: String,
    pub description: Option<String>,
    pub instances: Instances,
}

impl Server {
    /// Past `requests_max` in flight, a request is answered 503 at once.
    pub fn new(router: Router<Arc<Served>>, requests_max: usize) -> Self {
        Self { router, requests: Arc::new(Semaphore::new(requests_max)) }
    }

    pub async fn answer(&self, request: Request<Incoming>, client: SocketAddr) -> Response<WasiBody> {
        let Ok(permit) = self.requests.clone().try_acquire_owned() else {
            return busy("the host has as many requests in flight as `--requests-max` allows");
        };
        let path = request.uri().path().to_owned();
        if let Some(name) = path.strip_prefix(WELL_KNOWN) {
            return match name {
                "health" => plain(StatusCode::OK, "OK"),
                _ => empty(StatusCode::NOT_FOUND),
            };
        }
        let Some((route, served, rest)) = self.router.find(&path) else {
            return empty(StatusCode::NOT_FOUND);
        };
        let request = match prepare(request, route, rest, client) {
            Ok(request) => request,
            Err(problem) => return plain(StatusCode::BAD_REQUEST, problem),
        };
        match served.instances.handle(request).await {
            Ok(response) => response.map(|body| Counted { body, _permit: permit }.boxed_unsync()),
            Err(error) if out_of_instances(&error) => busy("every instance of the pool is in use"),
            Err(error) => {
                tracing::error!(component = served.id, path, %error, "the component gave no response");
                empty(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

/// The request as the component sees it: absolute URI, no `Connection`, Spin's headers.
fn prepare(
    mut request: Request<Incoming>,
    route: &Route,
    rest: &str,
    client: SocketAddr,
) -> Result<Request<WasiBody>, &'static str> {
    let authority = authority(&request)?;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    let uri = Uri::from_parts(parts).map_err(|_invalid| "the request's path is no path")?;

    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    add_spin_headers(headers, &uri, route, rest, client);
    *request.uri_mut() = uri;
    Ok(request.map(|body| body.map_err(Error::from).boxed_unsync()))
}

fn authority(request: &Request<Incoming>) -> Result<Authority, &'static str> {
    let header = match request.headers().get(HOST) {
        None => None,
        Some(host) => {
            Some(Authority::try_from(host.as_bytes()).map_err(|_invalid| "the Host header is no authority")?)
        }
    };
    match (header, request.uri().authority().cloned()) {
        (None, None) => Err("there is no Host header"),
        (Some(header), Some(target)) if header != target => {
            Err("the Host header and the request target disagree")
        }
        (Some(authority), _) | (None, Some(authority)) => Ok(authority),
    }
}

fn add_spin_headers(headers: &mut HeaderMap, uri: &Uri, route: &Route, rest: &str, client: SocketAddr) {
    for (name, value) in [
        ("spin-path-info", rest),
        ("spin-full-url", &uri.to_string()),
        ("spin-matched-route", &route.to_string()),
        ("spin-base-path", "/"),
        ("spin-raw-component-route", &route.to_string()),
        ("spin-component-route", route.prefix()),
        ("spin-client-addr", &client.to_string()),
    ] {
        // A path may hold bytes that a header may not; Spin leaves such a header out as well.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn out_of_instances(error: &wasmtime::Error) -> bool {
    error
        .downcast_ref::<InstantiationError<()>>()
        .is_some_and(|error| error.error.downcast_ref::<PoolConcurrencyLimitError>().is_some())
}

fn busy(reason: &str) -> Response<WasiBody> {
    tracing::warn!(reason, "turned a request away");
    let mut response = empty(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_S);
    response
}

/// Without a body, hyper says so: Content-Length is 0.
fn empty(status: StatusCode) -> Response<WasiBody> {
    respond(status, Empty::new().map_err(Error::from).boxed_unsync())
}

fn plain(status: StatusCode, text: &'static str) -> Response<WasiBody> {
    respond(status, Full::new(Bytes::from_static(text.as_bytes())).map_err(Error::from).boxed_unsync())
}

fn respond(status: StatusCode, body: WasiBody) -> Response<WasiBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// A response body that counts as in flight until it is sent.
struct Counted {
    body: WasiBody,
    _permit: OwnedSemaphorePermit,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
