//! Outbound HTTP: wasi:http/client over a pool of connections that all instances of a component share.
//! Nothing leaves before the allowed hosts were asked, and every failure keeps the error code Spin gives it.

use std::{
    error::Error as _,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::http::{Request, Response, Uri, header::HOST, uri::Scheme};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{net::TcpStream, time::Sleep};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::Component;
use crate::allowed_hosts::Destination;

/// Spin's limit where the guest sets none: for connecting, for the first byte, and between two reads.
const TIMEOUT: Duration = Duration::from_secs(600);

/// A pool of connections, to be shared.
#[derive(Clone)]
pub struct Client(legacy::Client<Connector, WasiBody>);

impl Client {
    pub fn new() -> Self {
        Self(legacy::Client::builder(TokioExecutor::new()).build(Connector))
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

/// The hooks of one instance.
pub struct Outbound(Arc<Component>);

impl Outbound {
    pub fn new(component: Arc<Component>) -> Self {
        Self(component)
    }
}

type Processed = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        // What the guest makes of the response concerns nobody here; dropping the body closes the connection.
        _: Processed,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Processed), Error>> + Send> {
        let component = self.0.clone();
        Box::new(async move {
            let response = send(&component, request, options.unwrap_or_default()).await?;
            // Errors of the connection arrive through the body.
            Ok((response, Box::new(async { Ok(()) }) as Processed))
        })
    }
}

async fn send(
    component: &Component,
    mut request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Response<WasiBody>, Error> {
    let uri = request.uri();
    match Destination::parse(&uri.to_string(), "https") {
        Ok(destination) if component.permits(&destination) => {}
        Ok(_) => return Err(Error::HttpRequestDenied),
        Err(problem) => {
            tracing::warn!(component = component.id, %uri, problem, "refused a request: no absolute URL");
            return Err(Error::HttpRequestDenied);
        }
    }
    if uri.scheme() != Some(&Scheme::HTTP) {
        tracing::warn!(component = component.id, %uri, "refused a request: minispin has no TLS, Spin does");
        return Err(Error::InternalError(Some("minispin does not speak https; run with Spin".into())));
    }
    // The client sets it again from the URL.
    request.headers_mut().remove(HOST);

    let connect_timeout = options.connect_timeout.unwrap_or(TIMEOUT);
    let response = CONNECT_TIMEOUT.scope(connect_timeout, component.http.0.request(request));
    let response = tokio::time::timeout(options.first_byte_timeout.unwrap_or(TIMEOUT), response)
        .await
        .map_err(|_elapsed| Error::ConnectionReadTimeout)?
        .map_err(|error| error_code(&error))?;

    let between_bytes = options.between_bytes_timeout.unwrap_or(TIMEOUT);
    Ok(response.map(|body| TimedBody { body: Some(body), between_bytes, silence: None }.boxed_unsync()))
}

/// The connector's reason, else that of a body which the guest broke off, else a protocol error.
fn error_code(error: &legacy::Error) -> Error {
    let mut cause = error.source();
    while let Some(current) = cause {
        if let Some(failure) = current.downcast_ref::<ConnectFailure>() {
            return failure.code();
        }
        cause = current.source();
    }
    tracing::warn!(?error, "an outbound request failed");
    Error::HttpProtocolError
}

tokio::task_local! {
    /// The connect timeout of the request being sent: the pooled client has no way to pass it to a connector.
    static CONNECT_TIMEOUT: Duration;
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum ConnectFailure {
    #[error("the URL names no host")]
    NoHost,
    #[error("address not available")]
    NotFound,
    #[error("connecting took too long")]
    TimedOut,
    #[error("connection refused")]
    Refused,
}

impl ConnectFailure {
    fn code(self) -> Error {
        match self {
            Self::NoHost => Error::HttpRequestUriInvalid,
            Self::NotFound => {
                Error::DnsError { rcode: Some("address not available".into()), info_code: Some(0) }
            }
            Self::TimedOut => Error::ConnectionTimeout,
            Self::Refused => Error::ConnectionRefused,
        }
    }
}

/// Opens plain TCP connections, without TCP_NODELAY, as Spin does.
#[derive(Clone)]
struct Connector;

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectFailure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let timeout = CONNECT_TIMEOUT.try_with(|timeout| *timeout).unwrap_or(TIMEOUT);
        Box::pin(async move {
            let host = uri.host().ok_or(ConnectFailure::NoHost)?;
            let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
            let addresses: Vec<_> = tokio::net::lookup_host(&address)
                .await
                .map_err(|error| {
                    tracing::debug!(address, %error, "the name does not resolve");
                    ConnectFailure::NotFound
                })?
                .collect();
            match tokio::time::timeout(timeout, TcpStream::connect(&*addresses)).await {
                Ok(Ok(stream)) => Ok(TokioIo::new(stream)),
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
                    Err(ConnectFailure::NotFound)
                }
                Ok(Err(error)) => {
                    tracing::debug!(address, %error, "no connection");
                    Err(ConnectFailure::Refused)
                }
                Err(_elapsed) => Err(ConnectFailure::TimedOut),
            }
        })
    }
}

/// A response body that fails when the other side is silent for too long.
struct TimedBody {
    /// Gone once it was silent, which closes its connection.
    body: Option<Incoming>,
    between_bytes: Duration,
    /// Runs while a read is waiting.
    silence: Option<Pin<Box<Sleep>>>,
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = pin!(body).poll_frame(context) {
            this.silence = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::from)));
        }
        let between_bytes = this.between_bytes;
        let silence = this.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(between_bytes)));
        ready!(silence.as_mut().poll(context));
        this.body = None;
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}
