//! The listening socket and its connections. A stop is gradual: no new connections, then requests in flight,
//! then what guests still do after their responses, all within one limit.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    rt::TokioIo,
    server::graceful::{GracefulShutdown, Watcher},
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::Instant,
};

use crate::{instance::Lifetime, server::Server};

/// Connections that the system may hold before they are accepted; it may hold fewer.
const BACKLOG: u32 = 4096;
/// After a failed accept, for want of file descriptors for example, the next one waits this long.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Binds the address. Port 0 takes a free one; `local_addr` tells which.
pub fn listen(address: SocketAddr) -> Result<TcpListener> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().with_context(|| format!("listening on {address}; `--listen` takes another address"))
}

pub(crate) async fn serve(
    listener: TcpListener,
    server: Arc<Server>,
    lifetime: Lifetime,
    shutdown_max: Duration,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let connections = GracefulShutdown::new();
    let accepting = async {
        loop {
            match listener.accept().await {
                // Like Spin, without TCP_NODELAY: guests that answer in two writes have to notice here too.
                Ok((stream, client)) => {
                    tokio::spawn(converse(server.clone(), stream, client, connections.watcher()));
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = shutdown => {}
    }
    drop(listener);
    tracing::info!("stopping: finishing what was begun");

    let deadline = Instant::now() + shutdown_max;
    let finished = async {
        connections.shutdown().await;
        lifetime.draining.cancel();
        lifetime.running.close();
        lifetime.running.wait().await;
    };
    if tokio::time::timeout_at(deadline, finished).await.is_err() {
        tracing::warn!(
            instances = lifetime.running.len(),
            "stopped with work unfinished: it took longer than {shutdown_max:?}"
        );
    }
    lifetime.abandoned.cancel();
    Ok(())
}

async fn converse(server: Arc<Server>, stream: TcpStream, client: SocketAddr, watcher: Watcher) {
    let service = service_fn(|request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request, client).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        match client_went_away(&error) {
            true => tracing::debug!(%client, %error, "the client went away"),
            false => tracing::warn!(%client, %error, "a connection failed"),
        }
    }
}

/// Clients that leave in the middle of a message are no fault of the host's, and there are many.
fn client_went_away(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    let broken = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).is_some_and(|cause| {
        matches!(
            cause.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected
        )
    });
    broken || error.is_incomplete_message() || error.is_canceled()
}
