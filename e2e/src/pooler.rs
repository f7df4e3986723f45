//! A connection pool in front of PostgreSQL that gives a session to a client for one transaction at a time, as PgBouncer does
//! in transaction mode. For one user and one database, who need no password.

use std::sync::Arc;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;

const SESSIONS_MAX: usize = 4;

pub struct Pooler {
    port: u16,
    accepting: JoinHandle<()>,
}

impl Pooler {
    /// On a free port, in front of the server at `server`.
    pub async fn start(server: u16) -> Result<Pooler> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let sessions =
            Arc::new(Sessions { server, idle: Mutex::default(), places: Semaphore::new(SESSIONS_MAX) });
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A client that goes in the middle is no failure of the pool.
                tokio::spawn(serve(client, Arc::clone(&sessions)));
            }
        });
        Ok(Pooler { port, accepting })
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Sessions {
    server: u16,
    /// A stack: the most recently used session goes first.
    idle: Mutex<Vec<TcpStream>>,
    places: Semaphore,
}

impl Sessions {
    /// A session between two transactions, and what the server said when it began, if it begins now.
    async fn get(&self, startup: &[u8]) -> Result<(TcpStream, Vec<u8>)> {
        if let Some(session) = self.idle.lock().await.pop() {
            return Ok((session, Vec::new()));
        }
        let mut session = TcpStream::connect(("127.0.0.1", self.server)).await?;
        session.write_all(startup).await?;
        let mut said = Vec::new();
        let mut messages = Messages::default();
        loop {
            let bytes = read(&mut session).await?;
            said.extend(&bytes);
            if messages.push(&bytes).iter().any(|(kind, _)| *kind == b'Z') {
                return Ok((session, said));
            }
        }
    }
}

async fn serve(mut client: TcpStream, sessions: Arc<Sessions>) -> Result<()> {
    let length = client.read_u32().await?;
    let mut startup = length.to_be_bytes().to_vec();
    startup.resize(length as usize, 0);
    client.read_exact(&mut startup[4..]).await?;
    {
        // Each client is greeted by a session of the server, which is the pool's after that.
        let sessions = &sessions;
        let fresh = Sessions { server: sessions.server, idle: Mutex::default(), places: Semaphore::new(0) };
        let (session, greeting) = fresh.get(&startup).await?;
        client.write_all(&greeting).await?;
        let mut idle = sessions.idle.lock().await;
        if idle.len() < SESSIONS_MAX {
            idle.insert(0, session);
        }
    }
    let mut requests = Messages::default();
    loop {
        let mut bytes = read(&mut client).await?;
        let _place = sessions.places.acquire().await?;
        let (mut session, _) = sessions.get(&startup).await?;
        let mut answers = Messages::default();
        let mut unanswered = 0;
        loop {
            let sent = requests.push(&bytes);
            ensure!(!sent.iter().any(|(kind, _)| *kind == b'X'), "the client leaves");
            // A simple query and a Sync are answered with one ReadyForQuery each.
            unanswered += sent.iter().filter(|(kind, _)| matches!(kind, b'Q' | b'S')).count();
            session.write_all(&bytes).await?;
            bytes.clear();
            let mut is_between = false;
            while bytes.is_empty() && !is_between {
                tokio::select! {
                    more = read(&mut client) => bytes = more?,
                    answer = read(&mut session) => {
                        let answer = answer?;
                        for (_, state) in answers.push(&answer).iter().filter(|(kind, _)| *kind == b'Z') {
                            unanswered -= 1;
                            is_between = unanswered == 0 && *state == b'I';
                        }
                        client.write_all(&answer).await?;
                    }
                }
            }
            if is_between {
                break;
            }
        }
        sessions.idle.lock().await.push(session);
    }
}

async fn read(from: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 64 * 1024];
    let count = from.read(&mut bytes).await?;
    ensure!(count > 0, "the connection has ended");
    bytes.truncate(count);
    Ok(bytes)
}

/// Cuts what one side sends into messages.
#[derive(Default)]
struct Messages {
    rest: Vec<u8>,
}

impl Messages {
    /// The kind of each message that is complete now, and the first byte of its body, or 0.
    fn push(&mut self, bytes: &[u8]) -> Vec<(u8, u8)> {
        self.rest.extend(bytes);
        let mut messages = Vec::new();
        while let Some(length) = self.complete() {
            messages.push((self.rest[0], if length > 5 { self.rest[5] } else { 0 }));
            self.rest.drain(..length);
        }
        messages
    }

    fn complete(&self) -> Option<usize> {
        let length = u32::from_be_bytes(self.rest.get(1..5)?.try_into().ok()?) as usize + 1;
        (self.rest.len() >= length).then_some(length)
    }
}
