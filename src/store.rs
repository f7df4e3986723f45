//! Task and event, one statement: what is answered with a 2xx is committed with its event.
//!
//! Spin has no transactions for guests, and a guest that is killed after a BEGIN would hand its open
//! transaction to the next user of the pooled connection. So each use case is one statement.

use std::rc::Rc;
use std::time::Duration;

use anyhow::anyhow;
use spin_sdk::pg;
use spin_sdk::pg::{Error as PgError, ParameterValue, PgError as HostError, QueryError, Row};
use thiserror::Error;

use crate::deadline::{TimedOut, within};

mod connection; // on which
mod limits; // of what the server does for a statement
mod statements; // the use cases, and what they ask and answer

use connection::Connection;
pub use statements::{Changed, Deleted, Found, Inserted, Once};

pub struct Store {
    /// For a use case as a whole: connection, statement, and the repetition of both.
    timeout: Duration,
    connection: Connection,
}

#[derive(Debug, Error)]
pub enum StoreError {
    /// Nothing wrong with the request: it can be repeated.
    #[error("PostgreSQL cannot do it at present")]
    Unavailable(#[source] anyhow::Error),
    /// A mistake of ours.
    #[error("PostgreSQL refused a statement")]
    Refused(#[source] anyhow::Error),
}

/// Whether a failed statement may succeed on another connection.
enum Failure {
    Broken(anyhow::Error),
    Final(StoreError),
}

impl Store {
    pub fn new(database_url: &str, timeout: Duration) -> Store {
        Store { timeout, connection: Connection::new(limits::with_limits(database_url, timeout)) }
    }

    /// A connection, to be held by who is about to need it.
    pub async fn connect(&self) -> Result<Rc<pg::Connection>, StoreError> {
        match within(self.timeout, self.connection.get()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(cannot_open(&error)),
            Err(timed_out) => Err(StoreError::Unavailable(TimedOut::into(timed_out))),
        }
    }

    /// Runs a use case, a second time if its connection turns out to be broken, which after a restart
    /// of PostgreSQL the pooled ones are; both within the timeout.
    async fn run<T>(
        &self,
        use_case: impl AsyncFn(&pg::Connection) -> Result<T, PgError>,
    ) -> Result<T, StoreError> {
        let attempts = async {
            match self.attempt(&use_case).await {
                Err(Failure::Broken(_)) => self.attempt(&use_case).await,
                answer => answer,
            }
        };
        match within(self.timeout, attempts).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Failure::Broken(cause))) => Err(StoreError::Unavailable(cause)),
            Ok(Err(Failure::Final(error))) => Err(error),
            Err(timed_out) => {
                // Whoever comes next opens a connection instead of waiting behind this one.
                self.connection.forget_present();
                Err(StoreError::Unavailable(TimedOut::into(timed_out)))
            }
        }
    }

    async fn attempt<T>(
        &self,
        use_case: impl AsyncFn(&pg::Connection) -> Result<T, PgError>,
    ) -> Result<T, Failure> {
        let connection = self.connection.get().await.map_err(|error| Failure::Final(cannot_open(&error)))?;
        use_case(&connection).await.map_err(|error| {
            let failure = classify(error);
            if let Failure::Broken(_) = failure {
                self.connection.forget(&connection);
            }
            failure
        })
    }
}

fn cannot_open(error: &str) -> StoreError {
    let hint = if error.contains("unsupported startup parameter") {
        "; PgBouncer needs ignore_startup_parameters = options"
    } else {
        ""
    };
    StoreError::Unavailable(anyhow!("opening a connection: {error}{hint}"))
}

/// All rows of an answer, column by column. An error in the middle of them comes only with their end,
/// which `collect` awaits.
async fn rows(
    connection: &pg::Connection,
    statement: &str,
    parameters: Vec<ParameterValue>,
) -> Result<Vec<Row>, PgError> {
    connection.query(statement, parameters).await?.collect().await
}

/// Whether what PostgreSQL says is about its state and not about the statement: a deadlock or the like (class 40),
/// resources that are used up (53), a lock that somebody else holds for too long (55P03), a limit of the operator's on
/// a statement's time (57014), that it is a standby now (25006), or that its clock and this host's differ (TA001,
/// migrations/V12).
fn is_passing(code: &str) -> bool {
    code.starts_with("40") || code.starts_with("53") || matches!(code, "55P03" | "57014" | "25006" | "TA001")
}

fn classify(error: PgError) -> Failure {
    let cause = anyhow!("{error:?}");
    match error {
        PgError::PgError(HostError::ConnectionFailed(_)) => Failure::Broken(cause),
        PgError::PgError(HostError::QueryFailed(query)) => match query {
            // Without a structured error PostgreSQL has not answered: the connection is gone.
            QueryError::Text(_) => Failure::Broken(cause),
            // Class 08: connection exceptions. 57P: the server is going down, or not up yet. 53300:
            // too many connections (PostgreSQL documentation, appendix A).
            QueryError::DbError(db)
                if db.code.starts_with("08") || db.code.starts_with("57P") || db.code == "53300" =>
            {
                Failure::Broken(cause)
            }
            QueryError::DbError(db) if is_passing(&db.code) => Failure::Final(StoreError::Unavailable(cause)),
            QueryError::DbError(_) => Failure::Final(StoreError::Refused(cause)),
        },
        PgError::PgError(_) | PgError::Decode(_) => Failure::Final(StoreError::Refused(cause)),
    }
}
