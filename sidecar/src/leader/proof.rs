//! Proof that a session is the publisher's: on a primary, the same one as before, with the lock, of an outbox whose topic is
//! the configured one and whose schema this sidecar can work with.
//!
//! A session-level lock belongs to a session of the server. A connection pool in transaction mode gives a client another
//! session for each transaction, and gives the session with the lock to others.

use anyhow::{Context as _, Result, ensure};
use thiserror::Error;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

use crate::outbox::{TooOld, WrongTopic};

const PROOF: &str = include_str!("proof.sql");

/// What the server says of the session that a statement is in.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Session {
    is_in_recovery: bool,
    backend_pid: i32,
    /// What a publisher has written into its session.
    mark: Option<String>,
    holds_lock: bool,
    topic: Option<String>,
    /// The oldest version that may work with the schema.
    minimum_version: Option<i32>,
}

#[derive(Debug, Error)]
enum Unproven {
    #[error(
        "the PostgreSQL server is a standby, where the publisher's lock excludes nobody: DATABASE_URL must lead to the \
         primary; with several hosts, target_session_attrs=read-write finds it"
    )]
    Standby,
    #[error(
        "the connection to PostgreSQL does not keep its session: a connection pool such as PgBouncer in transaction mode stands \
         in between, where the publisher's lock excludes nobody: DATABASE_URL must lead to PostgreSQL itself, or to a pool in \
         session mode"
    )]
    SharedSession,
    #[error(
        "this session has the publisher's lock no longer, although it is the same one: somebody has released it"
    )]
    NoLock,
    #[error("the topic of this outbox is not known")]
    NoTopic,
    #[error(transparent)]
    WrongTopic(#[from] WrongTopic),
    #[error(transparent)]
    TooOld(#[from] TooOld),
}

/// What a session must be to be the publisher's.
#[derive(Clone, Debug)]
pub struct Proof {
    topic: String,
    backend_pid: i32,
    mark: String,
}

impl Proof {
    /// Marks a session that has taken the lock, and makes sure that nobody else can be in it.
    ///
    /// # Errors
    /// When it is not to be used, with the reason.
    pub async fn establish(client: &Client, config: &Config, topic: &str) -> Result<Proof> {
        let before = session(client).await?;
        // A session of our own is new.
        ensure!(before.mark.is_none(), Unproven::SharedSession);
        let proof = Proof {
            topic: topic.to_owned(),
            backend_pid: before.backend_pid,
            mark: Uuid::now_v7().to_string(),
        };
        let mark = "select set_config('outbox.publisher', $1, false)";
        client.query_typed(mark, &[(&proof.mark, Type::TEXT)]).await?;
        // A pool gives a session that is between two transactions to whoever begins one: then either this is ours, or ours is
        // another one while this lasts.
        let (other, connection) = config.connect(NoTls).await.context("connecting once more")?;
        tokio::spawn(connection);
        other.batch_execute("begin").await?;
        let other_pid: i32 = other.query_typed_one("select pg_backend_pid()", &[]).await?.try_get(0)?;
        ensure!(other_pid != proof.backend_pid, Unproven::SharedSession);
        proof.ask(client).await?;
        other.batch_execute("rollback").await?;
        Ok(proof)
    }

    /// # Errors
    /// When the session is not the publisher's any more, with the reason, or when nobody answers.
    pub async fn ask(&self, client: &Client) -> Result<()> {
        Ok(self.check(&session(client).await?)?)
    }

    fn check(&self, session: &Session) -> Result<(), Unproven> {
        if session.is_in_recovery {
            return Err(Unproven::Standby);
        }
        if session.backend_pid != self.backend_pid || session.mark.as_ref() != Some(&self.mark) {
            return Err(Unproven::SharedSession);
        }
        if !session.holds_lock {
            return Err(Unproven::NoLock);
        }
        let topic = session.topic.as_ref().ok_or(Unproven::NoTopic)?;
        WrongTopic::check(&self.topic, topic)?;
        Ok(TooOld::check(session.minimum_version.unwrap_or(0))?)
    }
}

async fn session(client: &Client) -> Result<Session> {
    // Unnamed: behind a pool there would be no statement that was prepared before.
    let row = client.query_typed_one(PROOF, &[]).await?;
    Ok(Session {
        is_in_recovery: row.try_get(0)?,
        backend_pid: row.try_get(1)?,
        mark: row.try_get(2)?,
        holds_lock: row.try_get(3)?,
        topic: row.try_get(4)?,
        minimum_version: row.try_get(5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_session_with_the_lock_on_a_primary_publishes() {
        let proof = Proof { topic: "t".to_owned(), backend_pid: 7, mark: "m".to_owned() };
        let ours = Session {
            is_in_recovery: false,
            backend_pid: 7,
            mark: Some("m".to_owned()),
            holds_lock: true,
            topic: Some("t".to_owned()),
            minimum_version: Some(1),
        };
        assert!(proof.check(&ours).is_ok());
        for (other, reason) in [
            (Session { is_in_recovery: true, ..ours.clone() }, "standby"),
            (Session { backend_pid: 8, ..ours.clone() }, "PgBouncer"),
            (Session { mark: Some("another".to_owned()), ..ours.clone() }, "PgBouncer"),
            (Session { mark: None, ..ours.clone() }, "PgBouncer"),
            (Session { holds_lock: false, ..ours.clone() }, "no longer"),
            (Session { topic: None, ..ours.clone() }, "not known"),
            (Session { topic: Some("u".to_owned()), ..ours.clone() }, "topic set t"),
            (Session { minimum_version: Some(i32::MAX), ..ours.clone() }, "start a newer one"),
        ] {
            let error = proof.check(&other).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
