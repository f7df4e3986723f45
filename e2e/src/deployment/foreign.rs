//! What other applications, the broker's operator and the database do to a deployment from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::StatusCode;
use rskafka::client::partition::{OffsetAt, UnknownTopicHandling};
use serde_json::{Value, json};
use xtask::services::{
    ForeignTransactions, TopicRecord, produce_compressed, produce_foreign, produce_odd_timestamps,
    set_topic_config,
};

use super::{Deployment, Services};
use crate::api::answer;
use crate::told::Told;
use crate::topic::Topic;
use crate::wait::{LIMIT, eventually};

/// Of a topic that the sidecar creates.
pub const PARTITIONS: i32 = 3;

/// `transaction.max.timeout.ms`: for a test's purposes such a transaction stays open for ever.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// A lock in the database that keeps the sidecar from removing rows and from storing positions.
pub struct RemovalsHeld(tokio_postgres::Client);

impl Deployment {
    /// Everything up, some events published and removed, each position at its partition's end.
    ///
    /// The sidecar looks through the outbox only once: each look at rows that are held would ask for
    /// their removal again, and a full queue of removals stops its lanes.
    pub async fn start_at_rest(told: &mut Told) -> Result<Deployment> {
        let mut deployment = Deployment::prepare(&Services::shared()?).await?;
        deployment.start_sidecar(&[("SWEEP_INTERVAL_MS", "3600000")])?;
        deployment.sidecar_is_ready().await?;
        deployment.start_application().await?;
        deployment.create_tasks(told).await?;
        deployment.outbox_is_empty().await?;
        deployment.positions_are_the_ends().await?;
        Ok(deployment)
    }

    /// Sets a configuration of this deployment's topic.
    pub async fn set_topic_config(&self, name: &str, value: &str) -> Result<()> {
        set_topic_config(&self.services.kafka_bootstrap_servers, &self.topic, name, value).await
    }

    /// Writes to every partition of this deployment's topic what other applications may.
    pub async fn produce_foreign(&self) -> Result<()> {
        produce_foreign(&self.services.kafka_bootstrap_servers, &self.topic).await
    }

    /// Writes so many compressed records of another application to each partition.
    pub async fn produce_compressed(&self, compression: &str, records: u32) -> Result<()> {
        let servers = &self.services.kafka_bootstrap_servers;
        produce_compressed(servers, &self.topic, compression, records).await
    }

    /// Writes so many batches of two records with this timestamp to each partition.
    pub async fn produce_odd_timestamps(&self, timestamp_ms: i64, batches: u32) -> Result<()> {
        let servers = &self.services.kafka_bootstrap_servers;
        produce_odd_timestamps(servers, &self.topic, PARTITIONS, timestamp_ms, batches, 2).await
    }

    /// Another application's producer with transactions. They outlast the test unless it ends them.
    pub async fn foreign_transactions(&self) -> Result<ForeignTransactions> {
        let servers = &self.services.kafka_bootstrap_servers;
        ForeignTransactions::start(servers, &self.topic, TRANSACTION_TIMEOUT).await
    }

    /// Creates tasks with one request, so many that every partition gets some.
    pub async fn create_tasks(&self, told: &mut Told) -> Result<Vec<Value>> {
        const TASKS: usize = 40;
        let first = told.events();
        let tasks: Vec<_> =
            (0..TASKS).map(|task| json!({ "title": format!("task {}", first + task) })).collect();
        let created = answer(self.api.post("/api/tasks:batch").json(&tasks)).await?;
        ensure!(created.status == StatusCode::CREATED, "{created:?}");
        let tasks: Vec<Value> = serde_json::from_str(&created.body)?;
        tasks.iter().try_for_each(|task| told.note(task))?;
        Ok(tasks)
    }

    /// Creates such tasks, and waits until the topic has every acknowledged version. Gives their count.
    pub async fn create_tasks_and_see(&self, topic: &Topic, told: &mut Told) -> Result<usize> {
        let created = self.create_tasks(told).await?.len();
        topic.wait_for(|records| told.is_covered_by(records), LIMIT).await?;
        Ok(created)
    }

    /// Keeps the sidecar from removing any row until the lock is released.
    pub async fn hold_removals(&self) -> Result<RemovalsHeld> {
        let holder = self.database().await?;
        holder.batch_execute("begin; lock table positions in exclusive mode").await?;
        Ok(RemovalsHeld(holder))
    }

    /// Kills the sidecar before it could remove what it has published, and releases the lock.
    pub async fn kill_before_removals(&mut self, held: RemovalsHeld) -> Result<()> {
        self.kill_sidecar_and_its_statements().await?;
        Ok(held.0.batch_execute("rollback").await?)
    }

    /// Waits until every partition's stored position is the partition's end.
    pub async fn positions_are_the_ends(&self) -> Result<()> {
        let ends = self.ends().await?;
        let database = self.database().await?;
        let stored = "select partition, next_offset from positions where topic = $1";
        eventually("the positions are the partitions' ends", async || {
            let rows = database.query(stored, &[&self.topic]).await?;
            let positions: BTreeMap<i32, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            ensure!(positions == ends, "the positions are {positions:?}, the ends {ends:?}");
            Ok(Some(()))
        })
        .await
    }

    /// Waits until the sidecar has so many events in its lanes, or none is left in the outbox.
    pub async fn sidecar_has_taken(&self, events: usize) -> Result<()> {
        let (api, database) = (self.sidecar_api()?, self.database().await?);
        eventually("the sidecar has taken the events", async || {
            let metrics = answer(api.get("/metrics")).await?.body;
            let pending = sum(&metrics, "outbox_unacknowledged_events{");
            let rows: i64 = database.query_one("select count(*) from outbox", &[]).await?.get(0);
            Ok((pending >= events as f64 || rows == 0).then_some(()))
        })
        .await
    }

    /// The topic's events once everything is told of: new tasks, after which nothing is left to
    /// publish, show that every partition was read behind all that the test did.
    pub async fn events_to_the_end(&self, topic: &Topic, told: &mut Told) -> Result<Vec<TopicRecord>> {
        self.outbox_is_empty().await?;
        self.create_tasks(told).await?;
        self.outbox_is_empty().await?;
        let records = topic.wait_for(|records| told.is_covered_by(records), LIMIT).await?;
        Ok(records.into_iter().filter(|record| record.header("ce_id").is_some()).collect())
    }

    /// Checks that everything is published, each event once and each task's in order.
    pub async fn all_are_published_once(&self, topic: &Topic, told: &mut Told) -> Result<()> {
        let events = self.events_to_the_end(topic, told).await?;
        told.are_once_and_in_order(&events)
    }

    async fn ends(&self) -> Result<BTreeMap<i32, i64>> {
        let kafka = self.kafka().await?;
        let mut ends = BTreeMap::new();
        for index in 0..PARTITIONS {
            let unknown = UnknownTopicHandling::Error;
            let partition = kafka.partition_client(&self.topic, index, unknown).await?;
            ends.insert(index, partition.get_offset(OffsetAt::Latest).await?);
        }
        Ok(ends)
    }
}

/// The sum of all samples whose line starts so.
pub fn sum(metrics: &str, prefix: &str) -> f64 {
    let samples = metrics.lines().filter(|line| line.starts_with(prefix));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
