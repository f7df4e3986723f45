//! Serves HTTP on a listening socket, with a limit on connections and on each phase of one. A
//! client that sends or takes nothing gives its place back: its request's head, the next request of
//! a kept connection and the taking of a response have deadlines here; a body and a wait for
//! receipts have theirs in `ingest`.
//!
//! What has come is acknowledged at once. Spin does not set TCP_NODELAY when it connects, and often
//! writes a request's head before it has the body: the body then waits for the head's ACK, which
//! the kernel at this end would delay by 40 ms. So each time something was read the kernel is told
//! not to (tcp(7), TCP_QUICKACK: the option does not last).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;
use tracing::{debug, warn};

/// Limits of one listener.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Connections at once. Others wait, unaccepted, until one of these has ended.
    pub connections_max: usize,
    /// For the head of a request to arrive, from the connection's begin or the last response on.
    pub head_timeout: Duration,
    /// For the client to take some of a response.
    pub write_timeout: Duration,
}

impl Limits {
    /// For events from components.
    pub fn ingest() -> Limits {
        // As many as the system lets this process have.
        let open_files_max = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1_024);
        let connections_max = usize::try_from(open_files_max / 2).map_or(1_024, |half| half.min(1_024));
        Limits { connections_max, ..Limits::operations() }
    }

    /// For probes and for what scrapes metrics.
    pub fn operations() -> Limits {
        Limits {
            connections_max: 64,
            head_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(20),
        }
    }
}

/// After a failed accept, for want of file descriptors for example, the next one waits this long.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Serves until `closing`, then finishes the requests that have begun.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, closing: CancellationToken) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let connections = GracefulShutdown::new();
    let accepting = async {
        // Nobody closes the semaphore.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let served = converse(stream, router.clone(), limits, connections.watcher(), place);
                    tokio::spawn(served);
                }
                Err(error) => {
                    warn!(%error, "no connection could be accepted");
                    tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
    };
    closing.run_until_cancelled(accepting).await;
    drop(listener);
    connections.shutdown().await;
}

async fn converse(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    watcher: Watcher,
    _place: OwnedSemaphorePermit,
) {
    let mut stream = TimeoutWriter::new(QuickAckStream(stream));
    stream.set_timeout(Some(limits.write_timeout));
    let service = service_fn(|request| router.clone().call(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = watcher.watch(connection).await {
        debug!(%error, "a connection ended early");
    }
}

struct QuickAckStream(TcpStream);

impl AsyncRead for QuickAckStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = read {
            acknowledge(&self.0);
        }
        read
    }
}

impl AsyncWrite for QuickAckStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(target_os = "linux")]
fn acknowledge(stream: &TcpStream) {
    // Later is not wrong.
    let _: rustix::io::Result<()> = rustix::net::sockopt::set_tcp_quickack(stream, true);
}

/// Other kernels have no such option.
#[cfg(not(target_os = "linux"))]
fn acknowledge(_: &TcpStream) {}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// More than the kernel takes in for a client that does not read.
    const LARGE_BYTES: usize = 64 * 1024 * 1024;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(3_600);

    /// What a second client is answered when the first one, which has the only place, has sent this
    /// and nothing more.
    async fn second_answer_after(first: &str, head_timeout: Duration, write_timeout: Duration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(async || "second"))
            .route("/large", get(async || vec![0_u8; LARGE_BYTES]));
        let limits = Limits { connections_max: 1, head_timeout, write_timeout };
        let closing = CancellationToken::new();
        let _stop = closing.clone().drop_guard();
        tokio::spawn(serve(listener, router, limits, closing));
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(first.as_bytes()).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        let answered = second.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(60), answered).await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn half_a_head_gives_its_place_back() {
        for first in ["", "GET / HT", "GET / HTTP/1.1\r\n\r\n"] {
            assert!(second_answer_after(first, SHORT, LONG).await.ends_with("second"), "{first}");
        }
    }

    #[tokio::test]
    async fn a_response_that_nobody_takes_gives_its_place_back() {
        let first = "GET /large HTTP/1.1\r\n\r\n";
        assert!(second_answer_after(first, LONG, SHORT).await.ends_with("second"));
    }
}
