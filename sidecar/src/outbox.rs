//! The outbox as the sidecar uses it: applies the migrations, knows the topic, reads what is not
//! published, and removes what is. Every call has a deadline, waiting for a pooled connection included.

mod schema; // what it is kept in
mod topic; // where its events go
mod oldest; // where to begin
mod operator; // what a person asks
mod page; // what the sweep reads

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use contract::Event;
use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod,
};
use serde_json::value::RawValue;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{NoTls, Row};
use uuid::Uuid;

use crate::lane::Gap;
use crate::leader;

pub use oldest::Oldest;
pub use operator::{Parked, Seen};
pub use page::{Unpublished, Unreadable};
pub use schema::TooOld;
pub use topic::WrongTopic;

const BACKLOG: &str = include_str!("outbox/backlog.sql");
const STATE: &str = include_str!("outbox/state.sql");
const COUNT: &str = include_str!("outbox/count.sql");
const PARK: &str = include_str!("outbox/park.sql");
const REMOVE: &str = include_str!("outbox/remove.sql");
const POSITIONS: &str = include_str!("outbox/positions.sql");
const POSITION: &str = include_str!("outbox/position.sql");
const LAST_SEQ: &str = include_str!("outbox/last_seq.sql");
const PRUNE: &str = include_str!("outbox/prune.sql");

/// Of every connection in the pool.
const SESSION: &str = include_str!("session.sql");

/// The sweep, the removal, and the backlogs of a few lanes at once.
const CONNECTIONS_MAX: usize = 4;

/// Rows that a lane takes in at once for one task.
const BACKLOG_ROWS_MAX: i64 = 500;

#[derive(Clone)]
pub struct Outbox {
    pool: Pool,
    database: tokio_postgres::Config,
    call_timeout: Duration,
}

/// Rows that are counted when somebody asks how many there are.
const COUNTED_ROWS_MAX: i64 = 100_000;

/// What the database says about the topic and the outbox when a term begins.
pub struct Known {
    /// Where reading back begins, of the partitions that are not new to this database.
    pub positions: BTreeMap<u32, i64>,
    /// The last number that a row has got, whether or not that row is still there.
    pub last_seq: i64,
}

/// What waits in the outbox.
pub struct State {
    pub parked: i64,
    pub oldest_id: Option<Uuid>,
    pub oldest_age_s: f64,
}

impl Outbox {
    /// # Errors
    /// When `database_url` is not the URL of a PostgreSQL database. It does not connect yet.
    pub fn new(database_url: &str, call_timeout: Duration) -> Result<Outbox> {
        let database = database_config(database_url)?;
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(database.clone(), NoTls, recycling))
            .max_size(CONNECTIONS_MAX)
            .post_create(Hook::async_fn(|client: &mut ClientWrapper, _| {
                Box::pin(async { client.batch_execute(SESSION).await.map_err(HookError::Backend) })
            }))
            .build()
            .context("building the connection pool")?;
        Ok(Outbox { pool, database, call_timeout })
    }

    /// How to connect to the database otherwise.
    pub fn database(&self) -> &tokio_postgres::Config {
        &self.database
    }

    /// The rows of a gap, oldest first. If there are too many to load at once, the gap is cut to
    /// those that are.
    pub async fn backlog(&self, gap: &mut Gap) -> Result<Vec<(Event, i64)>> {
        let Gap { task_id, after, up_to } = *gap;
        let client = self.connection().await?;
        let call = async {
            let statement = client.prepare_cached(BACKLOG).await?;
            let [after, up_to] = [after, up_to].map(|version| i64::try_from(version).unwrap_or(i64::MAX));
            let rows = client.query(&statement, &[&task_id, &after, &up_to, &BACKLOG_ROWS_MAX]).await?;
            let row = |row| Ok((event(row)?, row.try_get(9)?));
            rows.iter().map(row).collect::<Result<Vec<(Event, i64)>>>()
        };
        let events = keep(self.timed(call).await, client)
            .with_context(|| format!("loading the backlog of task {task_id}"))?;
        if let Some((last, _)) = events.last()
            && events.len() as i64 == BACKLOG_ROWS_MAX
        {
            gap.up_to = last.version;
        }
        Ok(events)
    }

    /// Parks an event: no page and no backlog has it any more, nor later ones of its task.
    pub async fn park(&self, event_id: Uuid, reason: &str) -> Result<()> {
        let client = self.connection().await?;
        let call = async {
            let statement = client.prepare_cached(PARK).await?;
            Ok(client.execute(&statement, &[&event_id, &reason]).await?)
        };
        keep(self.timed(call).await, client).with_context(|| format!("parking event {event_id}"))?;
        Ok(())
    }

    /// Removes the rows of acknowledged events, and notes how far their partitions are known by that.
    pub async fn remove(&self, topic: &str, ids: &[Uuid], positions: &BTreeMap<u32, i64>) -> Result<()> {
        let (partitions, offsets): (Vec<_>, Vec<_>) =
            positions.iter().map(|(partition, offset)| (*partition as i32, *offset)).unzip();
        let client = self.connection().await?;
        let call = async {
            let statement = client.prepare_cached(REMOVE).await?;
            client.execute(&statement, &[&ids, &topic, &partitions, &offsets]).await?;
            Ok(())
        };
        keep(self.timed(call).await, client)
            .with_context(|| format!("removing {} acknowledged rows", ids.len()))
    }

    /// What a publisher has to know before it reads any row.
    pub async fn known(&self, topic: &str) -> Result<Known> {
        let positions = self.positions(topic).await?;
        let client = self.connection().await?;
        let call = async { Ok(client.query_one(LAST_SEQ, &[]).await?.try_get(0)?) };
        let last_seq = keep(self.timed(call).await, client).context("asking for the last row's number")?;
        Ok(Known { positions, last_seq })
    }

    /// Where reading back begins, of the partitions that are not new to this database.
    pub async fn positions(&self, topic: &str) -> Result<BTreeMap<u32, i64>> {
        let client = self.connection().await?;
        let call = async {
            let statement = client.prepare_cached(POSITIONS).await?;
            let rows = client.query(&statement, &[&topic]).await?;
            let position = |row: &Row| Ok((row.try_get::<_, i32>(0)? as u32, row.try_get(1)?));
            rows.iter().map(position).collect()
        };
        keep(self.timed(call).await, client).context("loading the partitions' positions")
    }

    /// Where reading a partition back begins: at `end`, if the partition is new to this database.
    pub async fn position(&self, topic: &str, partition: u32, end: i64) -> Result<i64> {
        let client = self.connection().await?;
        let call = async {
            let statement = client.prepare_cached(POSITION).await?;
            let row = client.query_one(&statement, &[&topic, &(partition as i32), &end]).await?;
            Ok(row.try_get(0)?)
        };
        keep(self.timed(call).await, client)
            .with_context(|| format!("loading the position of partition {partition}"))
    }

    /// Tells the sidecar that publishes that there is something in the outbox, which may be old.
    pub async fn wake_publisher(&self, may_be_old: bool) -> Result<()> {
        let client = self.connection().await?;
        let call = async { leader::wake_publisher(&client, may_be_old).await };
        keep(self.timed(call).await, client).context("waking the publisher")
    }

    /// From the rows after `after` on, before which there are none.
    pub async fn state(&self, after: Uuid) -> Result<State> {
        let client = self.connection().await?;
        let call = async {
            let statement = client.prepare_cached(STATE).await?;
            let row = client.query_one(&statement, &[&after]).await?;
            Ok(State {
                parked: row.try_get("parked")?,
                oldest_id: row.try_get("oldest_id")?,
                oldest_age_s: row.try_get::<_, Option<f64>>("oldest_age_s")?.unwrap_or(0.0),
            })
        };
        keep(self.timed(call).await, client).context("looking at what waits in the outbox")
    }

    /// The rows after `after`, before which there are none: `COUNTED_ROWS_MAX` if there are more. Reads all that it counts.
    pub async fn count(&self, after: Uuid) -> Result<i64> {
        let client = self.connection().await?;
        let call = async {
            let statement = client.prepare_cached(COUNT).await?;
            Ok(client.query_one(&statement, &[&after, &COUNTED_ROWS_MAX]).await?.try_get(0)?)
        };
        keep(self.timed(call).await, client).context("counting what waits in the outbox")
    }

    /// Removes idempotency keys that are past their time, and says how many.
    pub async fn prune(&self, keys_max: u32) -> Result<u64> {
        let client = self.connection().await?;
        let call = async {
            let statement = client.prepare_cached(PRUNE).await?;
            Ok(client.execute(&statement, &[&i64::from(keys_max)]).await?)
        };
        keep(self.timed(call).await, client).context("removing old idempotency keys")
    }

    /// Within one deadline: waiting for a place, connecting, and the settings, on which the pool puts none.
    async fn connection(&self) -> Result<Object> {
        let got = self.timed(async { Ok(self.pool.get().await?) }).await;
        got.map_err(anyhow::Error::from).flatten().context("connecting to PostgreSQL")
    }

    async fn timed<T>(&self, call: impl Future<Output = Result<T>>) -> Result<Result<T>, NoAnswer> {
        tokio::time::timeout(self.call_timeout, call).await.map_err(|_elapsed| NoAnswer(self.call_timeout))
    }
}

/// How to connect to the database. Of several servers the one that takes writes is meant, unless the URL says otherwise.
fn database_config(database_url: &str) -> Result<tokio_postgres::Config> {
    let mut config: tokio_postgres::Config = database_url.parse().context("parsing DATABASE_URL")?;
    config.application_name("kafka-sidecar");
    if config.get_hosts().len() > 1 && !database_url.contains("target_session_attrs") {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    Ok(config)
}

#[derive(Debug, thiserror::Error)]
#[error("no answer from PostgreSQL within {0:?}")]
struct NoAnswer(Duration);

/// Gives a connection back to the pool, unless it did not answer: then nobody is to wait for it again.
fn keep<T>(answer: Result<Result<T>, NoAnswer>, client: Object) -> Result<T> {
    keep_open(answer, client).map(|(answer, _given_back)| answer)
}

/// The same, with the connection for who has not done with it.
fn keep_open<T>(answer: Result<Result<T>, NoAnswer>, client: Object) -> Result<(T, Object)> {
    match answer {
        Ok(answer) => Ok((answer?, client)),
        Err(no_answer) => {
            drop(Object::take(client));
            Err(no_answer.into())
        }
    }
}

/// Columns by their places in `page.sql` and `backlog.sql`: by name each of them is looked for.
fn event(row: &Row) -> Result<Event> {
    let version: i64 = row.try_get(4)?;
    Ok(Event {
        id: row.try_get(0)?,
        event_type: row.try_get::<_, &str>(1)?.parse()?,
        task_id: row.try_get(2)?,
        version: version.try_into().context("a version below 0")?,
        time: row.try_get(5)?,
        traceparent: row.try_get(6)?,
        tracestate: row.try_get(7)?,
        previous_id: row.try_get(8)?,
        // Nobody knows whether the component got as far as the cache.
        cache_stale: true,
        payload: RawValue::from_string(row.try_get(3)?).context("a payload that is not JSON")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_servers_the_one_that_takes_writes_is_chosen() {
        for (url, expected) in [
            ("postgres://u@a/d", TargetSessionAttrs::Any),
            ("postgres://u@a,b/d", TargetSessionAttrs::ReadWrite),
            ("host=a,b user=u", TargetSessionAttrs::ReadWrite),
            ("postgres://u@a,b/d?target_session_attrs=any", TargetSessionAttrs::Any),
        ] {
            assert_eq!(database_config(url).unwrap().get_target_session_attrs(), expected, "{url}");
        }
    }
}
