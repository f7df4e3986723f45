//! What an operator asks of the outbox: parked events, and a view of everything for `verify`.

use std::pin::pin;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio_postgres::{IsolationLevel, Row};
use uuid::Uuid;

use super::{Outbox, keep};

const PARKED: &str = include_str!("parked.sql");
const RETRY_PARKED: &str = include_str!("retry_parked.sql");
const DROP_PARKED: &str = include_str!("drop_parked.sql");

/// An event that the broker refuses. As JSON it is what `parked list --json` promises.
#[derive(Serialize)]
pub struct Parked {
    #[serde(rename = "event_id")]
    pub id: Uuid,
    pub event_type: String,
    pub task_id: Uuid,
    pub version: i64,
    pub bytes: i32,
    pub parked_at: DateTime<Utc>,
    pub reason: String,
    /// Later events of the task.
    #[serde(rename = "later_events")]
    pub waiting: i64,
}

/// An event that is given up.
#[derive(Serialize)]
pub struct Dropped {
    pub event_id: Uuid,
    version: i64,
    /// What would have been the record's value; a string if that is not even JSON.
    event: Box<RawValue>,
}

/// A row of the outbox, or a task, at one moment.
pub struct Seen {
    pub task_id: Uuid,
    pub version: u64,
    /// Nil for a task.
    pub event_id: Uuid,
    pub is_deletion: bool,
}

impl Outbox {
    pub async fn parked(&self, rows_max: u32) -> Result<Vec<Parked>> {
        let client = self.connection().await?;
        let call = async {
            let rows = client.query(PARKED, &[&i64::from(rows_max)]).await?;
            rows.iter().map(parked).collect()
        };
        keep(self.timed(call).await, client).context("listing parked events")
    }

    /// Lets parked events be published: these, or all. Gives back which.
    pub async fn retry_parked(&self, ids: Option<&[Uuid]>) -> Result<Vec<Uuid>> {
        let client = self.connection().await?;
        let call = async {
            let rows = client.query(RETRY_PARKED, &[&ids]).await?;
            rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
        };
        keep(self.timed(call).await, client).context("retrying parked events")
    }

    /// Removes parked events. Gives each back.
    pub async fn drop_parked(&self, ids: &[Uuid]) -> Result<Vec<Dropped>> {
        let client = self.connection().await?;
        let call = async {
            let rows = client.query(DROP_PARKED, &[&ids]).await?;
            rows.iter().map(dropped).collect()
        };
        keep(self.timed(call).await, client).context("dropping parked events")
    }

    /// Every task and every row of the outbox, as they were at one moment; of these tasks, or of all. Takes as long
    /// as reading both tables does.
    pub async fn look(
        &self,
        of: Option<&[Uuid]>,
        mut task: impl FnMut(Seen),
        mut row: impl FnMut(Seen),
    ) -> Result<()> {
        let mut client = self.connection().await?;
        let moment = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        moment.batch_execute("set local enable_seqscan = on").await?;
        let tasks = "select id, version, '00000000-0000-0000-0000-000000000000'::uuid, false from tasks where $1::uuid[] is null or id = any ($1)";
        let mut tasks = pin!(moment.query_raw(tasks, [&of]).await.context("reading the tasks")?);
        while let Some(found) = tasks.try_next().await? {
            task(seen(&found)?);
        }
        let rows = "select aggregateid, version, id, type = 'TASK_DELETED' from outbox \
                    where $1::uuid[] is null or aggregateid = any ($1)";
        let mut rows = pin!(moment.query_raw(rows, [&of]).await.context("reading the outbox")?);
        while let Some(found) = rows.try_next().await? {
            row(seen(&found)?);
        }
        Ok(())
    }
}

fn seen(row: &Row) -> Result<Seen> {
    let version: i64 = row.try_get(1)?;
    Ok(Seen {
        task_id: row.try_get(0)?,
        version: version.try_into().context("a version below 0")?,
        event_id: row.try_get(2)?,
        is_deletion: row.try_get(3)?,
    })
}

fn dropped(row: &Row) -> Result<Dropped> {
    let payload: String = row.try_get("payload")?;
    let event = RawValue::from_string(payload.clone()).or_else(|_not_json| to_raw_value(&payload))?;
    Ok(Dropped { event_id: row.try_get("id")?, version: row.try_get("version")?, event })
}

fn parked(row: &Row) -> Result<Parked> {
    Ok(Parked {
        id: row.try_get("id")?,
        event_type: row.try_get("type")?,
        task_id: row.try_get("aggregateid")?,
        version: row.try_get("version")?,
        bytes: row.try_get("bytes")?,
        parked_at: row.try_get("parked_at")?,
        reason: row.try_get("parked_reason")?,
        waiting: row.try_get("waiting")?,
    })
}
