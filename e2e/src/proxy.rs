//! A TCP proxy that makes trouble: it delays, holds back, cuts short, or resets what passes through it.
//!
//! Invariant: bytes arrive in their order or not at all. What a sender wrote before it went away is delivered all the
//! same, as on a real network: that is how a request outlives its sender.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks of one direction of a connection that the proxy holds; past it the sender has to wait.
const CHUNKS_MAX: usize = 64;

/// What happens to everything that passes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Trouble {
    #[default]
    None,
    /// Each byte comes so much later, in both directions.
    Late(Duration),
    /// Connections stay open, new ones are accepted, and nothing passes in these directions.
    HalfOpen { up: bool, down: bool },
    /// Each connection ends in the middle of a message, so many bytes later.
    Truncated { after_bytes: usize },
}

pub struct Proxy {
    port: u16,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

struct State {
    target: AtomicU16,
    trouble: watch::Sender<Trouble>,
    /// Counts the cuts: each ends all connections that there are.
    cuts: watch::Sender<u64>,
    in_hand: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    /// From the client to the server.
    Up,
    Down,
}

/// A connection was cut short on purpose.
struct Truncated;

struct Chunk {
    arrived: Instant,
    bytes: Vec<u8>,
    _in_hand: InHand,
}

/// Counts as long as it lives.
struct InHand(Arc<AtomicUsize>);

impl Proxy {
    /// Listens on a port of its own; `lead_to` says where it leads.
    pub async fn start() -> Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State {
            target: AtomicU16::new(0),
            trouble: watch::Sender::default(),
            cuts: watch::Sender::default(),
            in_hand: Arc::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Proxy { port, state, accepting })
    }

    /// One that leads where the URL does, and the URL that leads through it.
    pub async fn on_the_way_to(url: &str) -> Result<(Proxy, String)> {
        let proxy = Proxy::start().await?;
        let (_, port, _) = parts(url)?;
        proxy.lead_to(port.parse()?);
        let through = proxy.through(url)?;
        Ok((proxy, through))
    }

    /// The same URL with the proxy's port.
    pub fn through(&self, url: &str) -> Result<String> {
        let (start, _, path) = parts(url)?;
        Ok(format!("{start}:{}/{path}", self.port))
    }

    pub fn lead_to(&self, port: u16) {
        self.state.target.store(port, Ordering::Relaxed);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// From now on. With `Trouble::None` what was held back goes on its way.
    pub fn make(&self, trouble: Trouble) {
        self.state.trouble.send_replace(trouble);
    }

    /// Resets every connection. What it holds of them is lost.
    pub fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Nothing is on its way.
    pub fn is_idle(&self) -> bool {
        self.state.in_hand.load(Ordering::Relaxed) == 0
    }
}

/// What stands before a URL's port, the port, and the path.
fn parts(url: &str) -> Result<(&str, &str, &str)> {
    let (start, rest) = url.rsplit_once(':').context("a URL with a port")?;
    let (port, path) = rest.split_once('/').context("a URL with a path")?;
    Ok((start, port, path))
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new(); // which end with this
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                // Counted from here, so that a cut while we connect is not missed.
                let cuts = state.cuts.subscribe();
                connections.spawn(carry(Arc::clone(&state), client, cuts));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(state: Arc<State>, mut client: TcpStream, mut cuts: watch::Receiver<u64>) {
    let target = state.target.load(Ordering::Relaxed);
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _: (io::Result<()>, io::Result<()>) = (client.set_nodelay(true), server.set_nodelay(true));
    let is_cut = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let up = pump(&state, from_client, to_server, Direction::Up);
        let down = pump(&state, from_server, to_client, Direction::Down);
        tokio::select! {
            _ = async { tokio::try_join!(up, down) } => false,
            _ = cuts.changed() => true,
        }
    };
    if is_cut {
        // Closed without a lingering rest is a reset.
        let _: (io::Result<()>, io::Result<()>) = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// One direction of a connection, until its sender has ended it and all that it sent is delivered.
async fn pump(
    state: &State,
    mut from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    direction: Direction,
) -> Result<(), Truncated> {
    let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
    let reading = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(count) = from.read(&mut buffer).await {
            let bytes = buffer[..count].to_vec();
            let chunk = Chunk { arrived: Instant::now(), bytes, _in_hand: InHand::new(&state.in_hand) };
            if count == 0 || sender.send(chunk).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    tokio::try_join!(reading, deliver(state, chunks, to, direction))?;
    Ok(())
}

async fn deliver(
    state: &State,
    mut chunks: mpsc::Receiver<Chunk>,
    mut to: WriteHalf<'_>,
    direction: Direction,
) -> Result<(), Truncated> {
    let mut trouble = state.trouble.subscribe();
    let mut passed_bytes = 0;
    let mut is_gone = false;
    while let Some(chunk) = chunks.recv().await {
        let allowed = loop {
            if trouble.has_changed().unwrap_or(false) {
                passed_bytes = 0;
            }
            let now = *trouble.borrow_and_update();
            match now {
                Trouble::Late(by) if Instant::now() < chunk.arrived + by => tokio::select! {
                    () = sleep_until(chunk.arrived + by) => {}
                    _ = trouble.changed() => passed_bytes = 0,
                },
                Trouble::HalfOpen { up, down } if if direction == Direction::Up { up } else { down } => {
                    if trouble.changed().await.is_err() {
                        return Ok(()); // the proxy is gone
                    }
                    passed_bytes = 0;
                }
                Trouble::Truncated { after_bytes } => break after_bytes.saturating_sub(passed_bytes),
                Trouble::None | Trouble::Late(_) | Trouble::HalfOpen { .. } => break usize::MAX,
            }
        };
        let bytes = &chunk.bytes[..chunk.bytes.len().min(allowed)];
        passed_bytes += bytes.len();
        // A receiver that is gone does not keep the sender from sending, nor the other direction from arriving.
        is_gone = is_gone || to.write_all(bytes).await.is_err();
        if bytes.len() < chunk.bytes.len() {
            return Err(Truncated);
        }
    }
    let _ = to.shutdown().await;
    Ok(())
}

impl InHand {
    fn new(count: &Arc<AtomicUsize>) -> InHand {
        count.fetch_add(1, Ordering::Relaxed);
        InHand(Arc::clone(count))
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy before a server that sends back what it gets.
    async fn before_an_echo() -> Proxy {
        let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Proxy::start().await.unwrap();
        proxy.lead_to(echo.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        proxy
    }

    async fn exchange(stream: &mut TcpStream) -> io::Result<[u8; 5]> {
        let mut got = [0; 5];
        stream.write_all(b"hello").await?;
        stream.read_exact(&mut got).await?;
        Ok(got)
    }

    #[tokio::test]
    async fn without_trouble_everything_passes_and_nothing_is_kept() {
        let proxy = before_an_echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(&exchange(&mut stream).await.unwrap(), b"hello");
        drop(stream);
        while !proxy.is_idle() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_is_late_comes_late_both_ways() {
        let proxy = before_an_echo().await;
        proxy.make(Trouble::Late(Duration::from_millis(40)));
        let started = Instant::now();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(&exchange(&mut stream).await.unwrap(), b"hello");
        assert!(started.elapsed() >= Duration::from_millis(80));
    }

    #[tokio::test]
    async fn half_open_holds_back_until_it_is_over_even_what_comes_from_who_is_gone() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Proxy::start().await.unwrap();
        proxy.lead_to(server.local_addr().unwrap().port());
        proxy.make(Trouble::HalfOpen { up: true, down: false });
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut accepted, _) = server.accept().await.unwrap();
        client.write_all(b"late").await.unwrap();
        drop(client);
        let mut got = Vec::new();
        let waited = tokio::time::timeout(Duration::from_millis(50), accepted.read_to_end(&mut got)).await;
        assert!(waited.is_err() && got.is_empty() && !proxy.is_idle());
        proxy.make(Trouble::None);
        accepted.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"late");
    }

    #[tokio::test]
    async fn a_truncated_connection_ends_in_the_middle() {
        let proxy = before_an_echo().await;
        proxy.make(Trouble::Truncated { after_bytes: 3 });
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(exchange(&mut stream).await.is_err());
        proxy.make(Trouble::None);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(&exchange(&mut stream).await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn a_cut_resets_what_is_open_and_nothing_else() {
        let proxy = before_an_echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        exchange(&mut stream).await.unwrap();
        proxy.cut();
        let error = stream.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(&exchange(&mut stream).await.unwrap(), b"hello");
    }
}
