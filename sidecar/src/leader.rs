//! One publisher: of several sidecars one holds a lock in PostgreSQL and publishes; the others take
//! forwards, wake it, and take over when it is gone.
//!
//! The lock is the outbox's, whatever the topic. It belongs to a connection of its own. Whoever loses that connection has
//! lost the lock, and stops publishing the moment it knows; it asks every second, in case nobody tells, whether its session
//! still has the lock. And who has not been answered for some seconds, a process that was stopped for example, sends nothing
//! until it has.

mod proof; // that it is ours

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::sync::watch;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket, tls::NoTlsStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use crate::sweep::Wake;
use proof::Proof;

const TRY_LOCK: &str = include_str!("leader/try_lock.sql");

/// How long a standby waits before it tries for the lock again.
const TRY_INTERVAL: Duration = Duration::from_millis(500);

/// How often the holder asks whether its connection still is one, and how long it waits for an answer.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the holder may take the lock for its own without an answer: more than both of the above together.
const SURE: Duration = Duration::from_secs(5);

/// How long the server keeps a session that says nothing. What is left of it to one that was still sure is the time in
/// which its last requests come to an end.
const SESSION_IDLE_MAX: Duration = Duration::from_secs(10);
const _: () = assert!(
    ASK_INTERVAL.as_secs() + ASK_TIMEOUT.as_secs() < SURE.as_secs()
        && SURE.as_secs() < SESSION_IDLE_MAX.as_secs()
);

/// The notification that asks for a pass from the very beginning of the outbox.
const WHOLE: &str = "whole";

pub struct Leader {
    pub database: Config,
    pub topic: String,
    /// Notified when a standby has taken a forward, whose event is in the outbox.
    pub wake: Arc<Wake>,
}

/// The lock, for as long as this is kept and `lost` is not cancelled.
pub struct Leadership {
    pub lost: CancellationToken,
    pub lock: Lock,
    _held: DropGuard,
}

/// The lock, for who is about to do what only its holder may.
#[derive(Clone)]
pub struct Lock {
    /// When the last question that was answered was asked.
    sure_at: watch::Receiver<Instant>,
}

impl Lock {
    /// Waits until it is sure that nobody else has the lock; forever if it is lost.
    pub async fn is_ours(&mut self) {
        let is_lost = self.sure_at.wait_for(|sure_at| sure_at.elapsed() < SURE).await.is_err();
        if is_lost {
            pending::<()>().await;
        }
    }
}

/// The channel on which standbys wake the publisher: one for each outbox, which is a schema. Its name would be too long.
const CHANNEL: &str = "select 'outbox_' || current_schema()::regnamespace::oid";

impl Leader {
    /// Waits until the lock is ours. Says each time what it waits for: `standby` when another sidecar has
    /// the lock, `failed` when nobody can be asked.
    pub async fn acquire(&self, standby: impl Fn(), failed: impl Fn(&anyhow::Error)) -> Leadership {
        let mut told = false;
        loop {
            let tried = tokio::time::timeout(ASK_TIMEOUT, self.try_acquire()).await;
            match tried.context("no answer from PostgreSQL").and_then(|tried| tried) {
                Ok(Some(leadership)) => return leadership,
                Ok(None) => {
                    standby();
                    if !std::mem::replace(&mut told, true) {
                        info!("standing by: another sidecar publishes");
                    }
                }
                Err(error) => failed(&error.context("trying for the publisher's lock")),
            }
            tokio::time::sleep(TRY_INTERVAL).await;
        }
    }

    async fn try_acquire(&self) -> Result<Option<Leadership>> {
        let (client, connection) = self.database.connect(NoTls).await.context("connecting to PostgreSQL")?;
        let lost = CancellationToken::new();
        tokio::spawn(listen(connection, Arc::clone(&self.wake), lost.clone()));
        let asked_at = Instant::now();
        // If the network goes and tells nobody, the server ends the session, and frees the lock, some time
        // after `ask` has given up on it. So this comes before the lock.
        let session = format!("set idle_session_timeout = '{}s'", SESSION_IDLE_MAX.as_secs());
        client.batch_execute(&session).await?;
        if !try_lock(&client, &self.topic).await? {
            return Ok(None);
        }
        let proof = Proof::establish(&client, &self.database, &self.topic).await?;
        let channel: String = client.query_typed_one(CHANNEL, &[]).await?.try_get(0)?;
        client.batch_execute(&format!("listen {channel}")).await?;
        info!("this sidecar publishes");
        let (sure, sure_at) = watch::channel(asked_at);
        tokio::spawn(ask(client, proof, sure, lost.clone()));
        Ok(Some(Leadership { lost: lost.clone(), lock: Lock { sure_at }, _held: lost.drop_guard() }))
    }
}

/// Takes the publisher's lock for the session of this client, unless another one has it.
pub async fn try_lock(client: &Client, topic: &str) -> Result<bool> {
    Ok(client.query_typed_one(TRY_LOCK, &[(&topic, Type::TEXT)]).await?.try_get(0)?)
}

/// Drives the connection, and with its end the lock is lost.
async fn listen(mut connection: Connection<Socket, NoTlsStream>, wake: Arc<Wake>, lost: CancellationToken) {
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(news))) if news.payload() == WHOLE => wake.request_whole(),
            Some(Ok(AsyncMessage::Notification(_))) => wake.request(),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break,
        }
    }
    lost.cancel();
}

/// Keeps the client, and with it the connection, until it does not answer, is not the publisher's or is not wanted any more.
async fn ask(client: Client, proof: Proof, sure: watch::Sender<Instant>, lost: CancellationToken) {
    let asking = async {
        loop {
            tokio::time::sleep(ASK_INTERVAL).await;
            let asked_at = Instant::now();
            let answer = tokio::time::timeout(ASK_TIMEOUT, proof.ask(&client)).await;
            if let Err(error) = answer.context("no answer from PostgreSQL").and_then(|answer| answer) {
                return error;
            }
            sure.send_replace(asked_at);
        }
    };
    if let Some(error) = lost.run_until_cancelled(asking).await {
        warn!(
            error = format!("{error:#}"),
            "this sidecar may not be the publisher any more: publishing stops"
        );
    }
    lost.cancel();
}

/// Tells the publisher that there is something in the outbox, which may be old.
pub async fn wake_publisher(client: &Client, may_be_old: bool) -> Result<()> {
    let what = if may_be_old { WHOLE } else { "" };
    let told = client.execute(&format!("select pg_notify(({CHANNEL}), $1)"), &[&what]).await?;
    ensure!(told == 1, "pg_notify gave {told} rows");
    Ok(())
}
