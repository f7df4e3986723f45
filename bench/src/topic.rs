//! A topic, as seen by a consumer that waits for records, and by one that only counts them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{OffsetAt, PartitionClient, UnknownTopicHandling};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

const FETCH_BYTES_MAX: i32 = 1024 * 1024;
/// The broker answers at once when there is a record.
const FETCH_WAIT_MS: i32 = 500;
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// On connections of its own: a broker answers a connection's requests one after the other, and one that
/// waits for records holds up the next.
pub async fn partition(bootstrap: &str, topic: &str, partition: i32) -> Result<PartitionClient> {
    let client = ClientBuilder::new(vec![bootstrap.to_owned()]).build().await?;
    let client = client.partition_client(topic, partition, UnknownTopicHandling::Retry).await;
    client.with_context(|| format!("partition {partition} of {topic}"))
}

/// How many records there are in all.
pub async fn records(partitions: &[PartitionClient]) -> Result<i64> {
    let mut records = 0;
    for partition in partitions {
        records +=
            partition.get_offset(OffsetAt::Latest).await? - partition.get_offset(OffsetAt::Earliest).await?;
    }
    Ok(records)
}

/// Notes when each task's record was first seen. Ends when it is dropped.
pub struct Consumer {
    seen: Arc<Mutex<HashMap<String, Instant>>>,
    _fetching: JoinSet<Result<()>>,
}

impl Consumer {
    /// From the topic's end on.
    pub async fn start(bootstrap: &str, topic: &str, partitions: i32) -> Result<Consumer> {
        let seen = Arc::<Mutex<HashMap<String, Instant>>>::default();
        let mut fetching = JoinSet::new();
        for index in 0..partitions {
            let client = partition(bootstrap, topic, index).await?;
            let offset = client.get_offset(OffsetAt::Latest).await?;
            fetching.spawn(fetch(client, offset, Arc::clone(&seen)));
        }
        Ok(Consumer { seen, _fetching: fetching })
    }

    /// When each record was seen, as soon as these tasks' are or `limit` is over. Records of other writes,
    /// such as those of a warm-up, may be among them.
    pub async fn wait_for(&self, tasks: &[&str], limit: Duration) -> HashMap<String, Instant> {
        let deadline = Instant::now() + limit;
        loop {
            let seen = self.seen.lock().expect("no panic while holding the map").clone();
            if tasks.iter().all(|task| seen.contains_key(*task)) || Instant::now() > deadline {
                return seen;
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}

async fn fetch(
    client: PartitionClient,
    mut offset: i64,
    seen: Arc<Mutex<HashMap<String, Instant>>>,
) -> Result<()> {
    loop {
        let (records, _) = client.fetch_records(offset, 1..FETCH_BYTES_MAX, FETCH_WAIT_MS).await?;
        let now = Instant::now();
        let Some(last) = records.last() else { continue };
        offset = last.offset + 1;
        let mut seen = seen.lock().expect("no panic while holding the map");
        for record in records {
            let value: Value = serde_json::from_slice(&record.record.value.unwrap_or_default())?;
            if let Some(id) = value["data"]["id"].as_str() {
                seen.entry(id.to_owned()).or_insert(now);
            }
        }
    }
}
