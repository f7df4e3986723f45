//! Connections: so many and no more, each only for as long as something comes; and what has come is acknowledged at once.
//!
//! Spin does not set TCP_NODELAY when it connects, and often writes a request's head before it has the body: the body then
//! waits for the head's ACK, which the kernel at this end would delay by 40 ms. So each time something was read the kernel
//! is told not to (tcp(7), TCP_QUICKACK: the option does not last).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections at once. Others wait until one of these has ended.
const CONNECTIONS_MAX: usize = 1_024;

/// How long a connection on which nothing comes is kept: longer than the longest wait for a receipt, and than senders keep
/// an idle connection for their next request.
const SILENCE_MAX: Duration = Duration::from_secs(120);

pub struct Prompt {
    listener: TcpListener,
    places: Arc<Semaphore>,
    silence_max: Duration,
}

pub struct PromptStream {
    stream: TcpStream,
    silence_max: Duration,
    silence_ends: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Prompt {
    pub fn new(listener: TcpListener) -> Prompt {
        Prompt { listener, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)), silence_max: SILENCE_MAX }
    }
}

impl Listener for Prompt {
    type Io = PromptStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (PromptStream, SocketAddr) {
        // Nobody closes the semaphore.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, client) = Listener::accept(&mut self.listener).await;
        let silence_max = self.silence_max;
        let silence_ends = Box::pin(tokio::time::sleep(silence_max));
        (PromptStream { stream, silence_max, silence_ends, _place: place }, client)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for PromptStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(read) => {
                read?;
                acknowledge(&self.stream);
                let silence_ends = Instant::now() + self.silence_max;
                self.silence_ends.as_mut().reset(silence_ends);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                self.silence_ends.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for PromptStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_connection_ends_some_time_after_the_last_that_came() -> io::Result<()> {
        let mut prompt = Prompt::new(TcpListener::bind("127.0.0.1:0").await?);
        prompt.silence_max = Duration::from_millis(20);
        let mut client = TcpStream::connect(prompt.local_addr()?).await?;
        let (mut stream, _) = prompt.accept().await;
        client.write_all(b"something").await?;
        assert_eq!(stream.read(&mut [0; 9]).await?, 9);
        assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        Ok(())
    }

    #[tokio::test]
    async fn who_comes_when_there_is_no_place_waits_for_one() -> io::Result<()> {
        let mut prompt = Prompt::new(TcpListener::bind("127.0.0.1:0").await?);
        prompt.places = Arc::new(Semaphore::new(1));
        let _clients = [
            TcpStream::connect(prompt.local_addr()?).await?,
            TcpStream::connect(prompt.local_addr()?).await?,
        ];
        let (first, _) = prompt.accept().await;
        assert!(tokio::time::timeout(Duration::from_millis(10), prompt.accept()).await.is_err());
        drop(first);
        prompt.accept().await;
        Ok(())
    }
}
