//! The component's own statements, prepared once for each connection, as a native program does.

use anyhow::Result;
use chrono::{DateTime, Utc};
use contract::{Event, EventType, timestamp};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use serde_json::value::RawValue;
use tokio_postgres::NoTls;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::task::{Changes, Task};

/// As many as Spin's pool has.
const CONNECTIONS_MAX: usize = 64;
const NORMAL: i16 = 1;

const INSERT_TASK: &str = include_str!("../../../src/store/insert_task.sql");
const CHANGE_TASK: &str = include_str!("../../../src/store/change_task.sql");
const READ_TASK: &str = include_str!("../../../src/store/read_task.sql");
const LIST_TASKS: &str = include_str!("../../../src/store/list_tasks.sql");

#[derive(Clone)]
pub struct Store {
    pool: Pool,
    list_tasks: String,
}

pub struct Changed {
    pub document: String,
    pub version: i64,
    pub event: Option<Event>,
}

pub struct Page {
    pub list: String,
    pub last: Option<(String, String)>,
}

impl Store {
    pub fn new(database_url: &str) -> Result<Store> {
        let manager = Manager::from_config(
            database_url.parse()?,
            NoTls,
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager).max_size(CONNECTIONS_MAX).build()?;
        // Newest first, as `src/store/statements.rs` writes it.
        let list_tasks = LIST_TASKS
            .replace("{key_text}", "created_at::text")
            .replace("{key}", "created_at")
            .replace("{type}", "timestamptz")
            .replace("{direction}", "desc")
            .replace("{after}", "<");
        Ok(Store { pool, list_tasks })
    }

    pub async fn insert_task(&self, task: &Task, event: &Event) -> Result<()> {
        let connection = self.pool.get().await?;
        let statement = connection.prepare_cached(INSERT_TASK).await?;
        let parameters: [&(dyn ToSql + Sync); 13] = [
            &task.id,
            &task.title,
            &task.description,
            &task.status,
            &NORMAL,
            &None::<&str>,
            &task.tags,
            &timestamp::to_text(&task.created_at),
            &event.id,
            &event.event_type.as_str(),
            &event.payload.get(),
            &event.traceparent,
            &event.tracestate,
        ];
        connection.execute(&statement, &parameters).await?;
        Ok(())
    }

    pub async fn change_task(&self, id: Uuid, changes: &Changes) -> Result<Option<Changed>> {
        let event_id = Uuid::now_v7();
        let connection = self.pool.get().await?;
        let statement = connection.prepare_cached(CHANGE_TASK).await?;
        let parameters: [&(dyn ToSql + Sync); 19] = [
            &id,
            &event_id,
            &timestamp::to_text(&timestamp::now()),
            &None::<&str>,
            &None::<Vec<i64>>,
            &None::<Vec<i64>>,
            &changes.title.is_some(),
            &changes.title,
            &false,
            &None::<&str>,
            &false,
            &None::<&str>,
            &false,
            &None::<i16>,
            &false,
            &None::<&str>,
            &false,
            &None::<Vec<String>>,
            &None::<&str>,
        ];
        let Some(row) = connection.query_opt(&statement, &parameters).await? else {
            return Ok(None);
        };
        let (document, version) = (row.get("document"), row.get("version"));
        let payload: Option<String> = row.get("payload");
        let event = match payload {
            Some(payload) => Some(Event {
                id: event_id,
                event_type: EventType::TaskUpdated,
                task_id: id,
                version: u64::try_from(version)?,
                previous_id: row.get::<_, Option<&str>>("previous_id").map(str::parse).transpose()?,
                time: row.get::<_, &str>("time").parse::<DateTime<Utc>>()?,
                traceparent: None,
                tracestate: None,
                cache_stale: false,
                payload: RawValue::from_string(payload)?,
            }),
            None => None,
        };
        Ok(Some(Changed { document, version, event }))
    }

    pub async fn read_task(&self, id: Uuid) -> Result<Option<(String, i64)>> {
        let connection = self.pool.get().await?;
        let statement = connection.prepare_cached(READ_TASK).await?;
        let row = connection.query_opt(&statement, &[&id]).await?;
        Ok(row.map(|row| (row.get(0), row.get(1))))
    }

    pub async fn list_tasks(&self, limit: i64, offset: i64) -> Result<Page> {
        let connection = self.pool.get().await?;
        let statement = connection.prepare_cached(&self.list_tasks).await?;
        let (nothing, no_tags) = (None::<&str>, None::<Vec<String>>);
        let parameters: [&(dyn ToSql + Sync); 9] =
            [&nothing, &None::<i16>, &no_tags, &nothing, &nothing, &nothing, &None::<Uuid>, &limit, &offset];
        let row = connection.query_one(&statement, &parameters).await?;
        let (key, id): (Option<String>, Option<String>) = (row.get("last_key"), row.get("last_id"));
        Ok(Page { list: row.get("list"), last: key.zip(id) })
    }
}
