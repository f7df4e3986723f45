//! Task and event, one statement: what is answered with a 2xx is committed with its event.
//!
//! Spin has no transactions for guests, and a guest that is killed after a BEGIN would hand its open
//! transaction to the next user of the pooled connection. So each use case is one statement.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use anyhow::anyhow;
use spin_sdk::pg::{Connection, Error as PgError, ParameterValue, PgError as HostError, QueryError, Row};
use thiserror::Error;

use crate::deadline::{TimedOut, within};

mod statements; // the use cases, and what they ask and answer

pub use statements::{Changed, Deleted, Found, Inserted};

pub struct Store {
    database_url: String,
    /// For a use case as a whole: connection, statement, and the repetition of both.
    timeout: Duration,
    /// The instance's connection while any request uses it. Not kept longer, since Spin's pool has 64
    /// for all instances and idle ones that kept theirs would starve the others; and shared by the
    /// requests that run at the same time, since opening one for each costs more than the statement.
    connection: RefCell<Weak<Connection>>,
}

#[derive(Debug, Error)]
pub enum StoreError {
    /// Nothing wrong with the request: it can be repeated.
    #[error("PostgreSQL is not reachable")]
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
    pub fn new(database_url: String, timeout: Duration) -> Store {
        Store { database_url, timeout, connection: RefCell::default() }
    }

    /// Runs a use case, a second time if its connection turns out to be broken, which after a restart
    /// of PostgreSQL the pooled ones are; both within the timeout.
    async fn run<T>(
        &self,
        use_case: impl AsyncFn(&Connection) -> Result<T, PgError>,
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
                self.connection.take();
                Err(StoreError::Unavailable(TimedOut::into(timed_out)))
            }
        }
    }

    async fn attempt<T>(
        &self,
        use_case: impl AsyncFn(&Connection) -> Result<T, PgError>,
    ) -> Result<T, Failure> {
        let connection = self.connection().await?;
        use_case(&connection).await.map_err(|error| {
            let failure = classify(error);
            if let Failure::Broken(_) = failure {
                self.forget(&connection);
            }
            failure
        })
    }

    /// The connection that another request uses, or else a new one. Requests that find none at the
    /// same moment open one each: waiting for another request's future would be a wake-up across
    /// component tasks, which the guest's runtime does not have.
    async fn connection(&self) -> Result<Rc<Connection>, Failure> {
        let shared = self.connection.borrow().upgrade();
        if let Some(connection) = shared {
            return Ok(connection);
        }
        let connection = Connection::open(&self.database_url).await.map_err(|error| {
            Failure::Final(StoreError::Unavailable(anyhow!("opening a connection: {error}")))
        })?;
        let connection = Rc::new(connection);
        self.connection.replace(Rc::downgrade(&connection));
        Ok(connection)
    }

    fn forget(&self, broken: &Rc<Connection>) {
        let mut shared = self.connection.borrow_mut();
        if Weak::ptr_eq(&shared, &Rc::downgrade(broken)) {
            *shared = Weak::new();
        }
    }
}

/// All rows of an answer, column by column. An error in the middle of them comes only with their end,
/// which `collect` awaits.
async fn rows(
    connection: &Connection,
    statement: &str,
    parameters: Vec<ParameterValue>,
) -> Result<Vec<Row>, PgError> {
    connection.query(statement, parameters).await?.collect().await
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
            QueryError::DbError(_) => Failure::Final(StoreError::Refused(cause)),
        },
        PgError::PgError(_) | PgError::Decode(_) => Failure::Final(StoreError::Refused(cause)),
    }
}
