//! Which topic the outbox belongs to, and how its events were placed on it.

use anyhow::{Context as _, Result};

use deadpool_postgres::{ClientWrapper, Object};

use super::{Outbox, keep, keep_open};
use crate::layout::Layout;
use crate::leader;

const TOPIC: &str = include_str!("topic.sql");
const SOURCES: &str = include_str!("sources.sql");
const ADD_SOURCE: &str = include_str!("add_source.sql");
const CLAIM_TOPIC: &str = include_str!("claim_topic.sql");
const SET_TOPIC: &str = include_str!("set_topic.sql");
const LAYOUTS: &str = include_str!("layouts.sql");
const ADD_LAYOUT: &str = include_str!("add_layout.sql");
const FORGET_LAYOUTS: &str = include_str!("forget_layouts.sql");
const FORGET_POSITIONS: &str = include_str!("forget_positions.sql");

/// The events of one outbox go to one topic.
#[derive(Debug, thiserror::Error)]
#[error(
    "KAFKA_TOPIC is {configured}, but the events of this database go to the topic {registered}: set \
     KAFKA_TOPIC={registered}; or, to move to another topic, stop every sidecar and run `kafka-sidecar topic set {configured}`"
)]
pub struct WrongTopic {
    configured: String,
    registered: String,
}

impl WrongTopic {
    /// # Errors
    /// When the topic that is configured is not the outbox's.
    pub fn check(configured: &str, registered: &str) -> Result<(), WrongTopic> {
        if configured == registered {
            return Ok(());
        }
        Err(WrongTopic { configured: configured.to_owned(), registered: registered.to_owned() })
    }
}

impl Outbox {
    /// The topic of the outbox, if one has been chosen.
    pub async fn topic(&self) -> Result<Option<String>> {
        let client = self.connection().await?;
        let call = async {
            let row = client.query_opt(TOPIC, &[]).await?;
            Ok(row.map(|row| row.try_get(0)).transpose()?)
        };
        keep(self.timed(call).await, client).context("asking for the topic of the outbox")
    }

    /// Makes `topic` the topic of the outbox, unless it has one.
    ///
    /// # Errors
    /// [`WrongTopic`] when it has another one.
    pub async fn claim_topic(&self, topic: &str) -> Result<()> {
        let registered = match self.topic().await? {
            Some(registered) => registered,
            None => {
                let client = self.connection().await?;
                let call = async { Ok(client.execute(CLAIM_TOPIC, &[&topic]).await?) };
                keep(self.timed(call).await, client).context("storing the topic of the outbox")?;
                self.topic().await?.context("the topic of the outbox was stored, and is not there")?
            }
        };
        Ok(WrongTopic::check(topic, &registered)?)
    }

    /// Notes that records will have this source from now on. The outbox has its topic by then.
    /// A source that is noted needs no write: the database may be read-only for now.
    pub async fn add_source(&self, source: &str) -> Result<()> {
        if self.sources().await?.iter().any(|known| known == source) {
            return Ok(());
        }
        let client = self.connection().await?;
        let call = async { Ok(client.execute(ADD_SOURCE, &[&source]).await?) };
        keep(self.timed(call).await, client).context("storing the source of the records")?;
        Ok(())
    }

    /// Every source that records of this outbox may have.
    pub async fn sources(&self) -> Result<Vec<String>> {
        let client = self.connection().await?;
        let call = async {
            let row = client.query_opt(SOURCES, &[]).await?;
            Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
        };
        keep(self.timed(call).await, client).context("asking for the sources of the records")
    }

    /// The publisher's lock, until it is dropped; none if another one has it.
    pub async fn publishers_lock(&self, topic: &str) -> Result<Option<ClientWrapper>> {
        let client = self.connection().await?;
        let call = async { leader::try_lock(&client, topic).await };
        let (is_ours, client) =
            keep_open(self.timed(call).await, client).context("trying for the publisher's lock")?;
        // Not the pool's any more: there the session would keep the lock.
        let client = Object::take(client);
        Ok(is_ours.then_some(client))
    }

    /// Moves the outbox to another topic. Only who has the publisher's lock may.
    pub async fn set_topic(&self, topic: &str) -> Result<()> {
        let client = self.connection().await?;
        let call = async { Ok(client.execute(SET_TOPIC, &[&topic]).await?) };
        keep(self.timed(call).await, client).context("storing the topic of the outbox")?;
        Ok(())
    }

    /// The layouts of a topic, oldest first.
    pub async fn layouts(&self, topic: &str) -> Result<Vec<Layout>> {
        let client = self.connection().await?;
        let call = async {
            let rows = client.query(LAYOUTS, &[&topic]).await?;
            let layout = |row: &tokio_postgres::Row| {
                let partitions: i32 = row.try_get(0)?;
                Ok(Layout { partitions: partitions.try_into()?, begin_offsets: row.try_get(1)? })
            };
            rows.iter().map(layout).collect()
        };
        keep(self.timed(call).await, client).context("loading how the topic's events were placed")
    }

    /// Adds layouts to those of a topic.
    pub async fn add_layouts(&self, topic: &str, number: usize, layouts: &[Layout]) -> Result<()> {
        self.store_layouts(topic, number, layouts, None).await
    }

    /// The topic was made anew: these layouts replace all others, and positions from `partitions` on are forgotten.
    pub async fn replace_layouts(&self, topic: &str, layouts: &[Layout], partitions: u32) -> Result<()> {
        self.store_layouts(topic, 0, layouts, Some(partitions)).await
    }

    async fn store_layouts(
        &self,
        topic: &str,
        number: usize,
        layouts: &[Layout],
        made_anew: Option<u32>,
    ) -> Result<()> {
        let mut client = self.connection().await?;
        let call = async {
            let transaction = client.transaction().await?;
            if let Some(partitions) = made_anew {
                transaction.execute(FORGET_LAYOUTS, &[&topic]).await?;
                transaction.execute(FORGET_POSITIONS, &[&topic, &i32::try_from(partitions)?]).await?;
            }
            for (number, Layout { partitions, begin_offsets }) in (number..).zip(layouts) {
                let [number, partitions] = [i32::try_from(number)?, i32::try_from(*partitions)?];
                transaction.execute(ADD_LAYOUT, &[&topic, &number, &partitions, begin_offsets]).await?;
            }
            Ok(transaction.commit().await?)
        };
        let stored = self.timed(call).await;
        keep(stored, client).context("storing how the topic's events are placed")
    }
}
