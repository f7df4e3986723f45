//! A part of the outbox, row by row as PostgreSQL sends it: it sends no more than is read, and so no page takes memory,
//! however large its events are.

use std::pin::Pin;

use anyhow::{Context as _, Result};
use contract::Event;
use deadpool_postgres::Object;
use futures::{FutureExt as _, TryStreamExt as _};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, RowStream};
use uuid::Uuid;

use super::{Outbox, event, keep_open};

const PAGE: &str = include_str!("page.sql");

/// What has not been read of a page yet.
pub struct Page {
    outbox: Outbox,
    /// Until something fails.
    client: Option<Object>,
    rows: Pin<Box<RowStream>>,
}

/// A row that the sweep found.
pub struct Unpublished {
    pub event: Event,
    /// No older event of the task was in the outbox when it was read.
    pub oldest: bool,
    /// Numbers grow in the order in which rows are inserted.
    pub seq: i64,
}

/// A row that is no event: somebody else has written it, or changed it.
pub struct Unreadable {
    pub event_id: Uuid,
    pub reason: String,
}

impl Outbox {
    /// The oldest rows after `after`, at most `rows_max`.
    pub async fn page(&self, after: Uuid, rows_max: u32) -> Result<Page> {
        let client = self.connection().await?;
        let rows_max = i64::from(rows_max);
        let call = async {
            let statement = client.prepare_cached(PAGE).await?;
            let parameters: [&(dyn ToSql + Sync); 2] = [&after, &rows_max];
            Ok(client.query_raw(&statement, parameters).await?)
        };
        let (rows, client) =
            keep_open(self.timed(call).await, client).context("reading a page of the outbox")?;
        Ok(Page { outbox: self.clone(), client: Some(client), rows: Box::pin(rows) })
    }
}

impl Page {
    /// The next row, if there is one.
    pub async fn next(&mut self) -> Result<Option<Result<Unpublished, Unreadable>>> {
        let client = self.client.take().context("this page has failed before")?;
        // What has come already needs no deadline.
        let answer = match self.rows.try_next().now_or_never() {
            Some(next) => Ok(next.map_err(anyhow::Error::from)),
            None => self.outbox.timed(async { Ok(self.rows.try_next().await?) }).await,
        };
        let (row, client) = keep_open(answer, client).context("reading on in a page of the outbox")?;
        self.client = Some(client);
        let Some(row) = row else { return Ok(None) };
        let event_id = row.try_get(0)?;
        let unreadable = |error: anyhow::Error| Unreadable { event_id, reason: format!("{error:#}") };
        Ok(Some(unpublished(&row).map_err(unreadable)))
    }
}

fn unpublished(row: &Row) -> Result<Unpublished> {
    Ok(Unpublished { event: event(row)?, seq: row.try_get(9)?, oldest: row.try_get(10)? })
}
