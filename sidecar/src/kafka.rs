//! rskafka, with an end to everything. Left alone it retries forever and waits forever for an answer;
//! here a call makes one attempt under a deadline, and who repeats it decides so.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rskafka::BackoffConfig;
use rskafka::client::error::{Error, ProtocolError, RequestError};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::{Record, RecordAndOffset};
use tracing::{info, warn};

use crate::config::Config;

#[derive(Clone)]
pub struct Kafka {
    config: Arc<Config>,
}

/// What one fetch brings at most, and how long the broker may wait for it to come together.
const READ_BYTES_MAX: i32 = 1024 * 1024;
const READ_WAIT_MS: i32 = 100;

/// What the broker said to a batch.
pub enum Produced {
    /// The offset of each record.
    Acked(Vec<i64>),
    /// Why it does not take the batch, and never will; nothing of it is on the partition.
    Refused(String),
}

/// What reading from an offset gave.
pub enum Read {
    Records(Vec<RecordAndOffset>, i64),
    /// What stands at the offset is no record that can be read: a transaction's marker, say, or compressed in a way that
    /// is not known here. Nothing of a transaction that is still open can be read either: then this is where it ends.
    Nothing {
        end: i64,
    },
    /// The broker gives what stands here to newer clients only, because the topic is compressed with zstd. Kafka 4 gives it,
    /// and then it is a record that cannot be read.
    Zstd {
        end: i64,
    },
    /// There is no such offset; the partition begins here.
    Gone {
        earliest: i64,
    },
}

/// A client of one partition, with a connection to its leader.
pub struct Partition {
    client: PartitionClient,
    timeout: Duration,
}

impl Kafka {
    pub fn new(config: Arc<Config>) -> Kafka {
        Kafka { config }
    }

    /// The number of partitions of the topic, which is created if it is missing.
    pub async fn ensure_topic(&self) -> Result<u32> {
        let client = self.client().await?;
        let partitions = match self.partitions(&client).await? {
            Some(partitions) => partitions,
            None => {
                self.create_topic(&client).await?;
                self.partitions(&client).await?.context("the topic was created, but is not listed yet")?
            }
        };
        let wanted = self.config.kafka_topic_partitions;
        if i64::from(partitions) != i64::from(wanted) {
            warn!(partitions, wanted, "the topic has another number of partitions than configured; it stays");
        }
        Ok(partitions)
    }

    /// The number of partitions of the topic, which must be there.
    pub async fn count_partitions(&self) -> Result<u32> {
        let client = self.client().await?;
        let topic = &self.config.kafka_topic;
        self.partitions(&client).await?.with_context(|| format!("KAFKA_TOPIC: there is no topic {topic}"))
    }

    /// A new client of one partition, on new connections.
    pub async fn partition(&self, partition: u32) -> Result<Partition> {
        let topic = &self.config.kafka_topic;
        let connect = async {
            let client = self.client().await?;
            let index = i32::try_from(partition)?;
            anyhow::Ok(client.partition_client(topic, index, UnknownTopicHandling::Error).await?)
        };
        let client = within(self.config.kafka_timeout, connect)
            .await
            .with_context(|| format!("connecting to the leader of partition {partition} of {topic}"))?;
        Ok(Partition { client, timeout: self.config.kafka_timeout })
    }

    async fn client(&self) -> Result<Client> {
        let builder = ClientBuilder::new(self.config.kafka_bootstrap_servers.clone())
            .client_id("kafka-sidecar")
            .backoff_config(one_attempt());
        within(self.config.kafka_timeout, async { Ok(builder.build().await?) })
            .await
            .with_context(|| format!("connecting to {}", self.config.kafka_bootstrap_servers.join(",")))
    }

    async fn partitions(&self, client: &Client) -> Result<Option<u32>> {
        let list = async { Ok(client.list_topics().await?) };
        let topics = within(self.config.kafka_timeout, list).await.context("listing the topics")?;
        let Some(topic) = topics.into_iter().find(|topic| topic.name == self.config.kafka_topic) else {
            return Ok(None);
        };
        let count = topic.partitions.len();
        // A lane for each partition, found by number: there must be no hole.
        ensure!(
            topic.partitions.last().is_some_and(|last| *last as usize + 1 == count),
            "partitions missing"
        );
        Ok(Some(u32::try_from(count)?))
    }

    async fn create_topic(&self, client: &Client) -> Result<()> {
        let Config { kafka_topic, kafka_topic_partitions, kafka_topic_replication_factor, .. } =
            &*self.config;
        let timeout_ms = i32::try_from(self.config.kafka_timeout.as_millis()).unwrap_or(i32::MAX);
        let create = async {
            let created = client
                .controller_client()?
                .create_topic(
                    kafka_topic,
                    *kafka_topic_partitions,
                    *kafka_topic_replication_factor,
                    timeout_ms,
                )
                .await;
            match created {
                // Another sidecar was faster.
                Err(Error::ServerError { protocol_error: ProtocolError::TopicAlreadyExists, .. }) => Ok(()),
                created => Ok(created?),
            }
        };
        within(self.config.kafka_timeout, create)
            .await
            .with_context(|| format!("creating the topic {kafka_topic}"))?;
        info!(topic = kafka_topic, partitions = kafka_topic_partitions, "topic created");
        Ok(())
    }
}

impl Partition {
    /// Appends the records as one batch, acknowledged by all replicas that are in sync.
    ///
    /// # Errors
    /// After an error it is not known whether the broker has the batch.
    pub async fn produce(&self, records: Vec<Record>) -> Result<Produced> {
        let produce = async {
            match self.client.produce(records, Compression::NoCompression).await {
                Ok(offsets) => Ok(Produced::Acked(offsets)),
                Err(Error::ServerError { protocol_error, error_message, .. }) if is_final(protocol_error) => {
                    let message = error_message.map_or_else(String::new, |message| format!(": {message}"));
                    Ok(Produced::Refused(format!("{protocol_error:?}{message}")))
                }
                Err(error) => Err(error.into()),
            }
        };
        within(self.timeout, produce).await.context("producing a batch")
    }

    /// The offset that the next record will have. Asking for it changes nothing, so it is also how an
    /// idle lane finds out whether its leader is there.
    pub async fn end(&self) -> Result<i64> {
        let ask = async { Ok(self.client.get_offset(OffsetAt::Latest).await?) };
        within(self.timeout, ask).await.context("asking for the newest offset")
    }

    /// The offset of the first record that is still there.
    pub async fn earliest(&self) -> Result<i64> {
        let ask = async { Ok(self.client.get_offset(OffsetAt::Earliest).await?) };
        within(self.timeout, ask).await.context("asking for the first offset")
    }

    /// Some records from `offset` on, and the offset up to which there are any.
    pub async fn read(&self, offset: i64) -> Result<Read> {
        let read = async |bytes_max| self.client.fetch_records(offset, 1..bytes_max, READ_WAIT_MS).await;
        let fetch = async {
            let mut fetched = read(READ_BYTES_MAX).await;
            if fetched.as_ref().is_err_and(is_unreadable) {
                // The broker gives one batch at least (Kafka protocol, Fetch, MaxBytes).
                fetched = read(2).await;
            }
            match fetched {
                Ok((records, end)) if !records.is_empty() => Ok(Read::Records(records, end)),
                Ok(_) => self.nothing().await,
                Err(error) if is_unreadable(&error) => {
                    warn!(
                        offset,
                        error = format!("{error:#}"),
                        "a record that cannot be read is passed over"
                    );
                    self.nothing().await
                }
                Err(Error::ServerError {
                    protocol_error: ProtocolError::UnsupportedCompressionType, ..
                }) => Ok(Read::Zstd { end: self.client.get_offset(OffsetAt::Latest).await? }),
                // Retention has removed the offset, or the topic was made anew.
                Err(Error::ServerError { protocol_error: ProtocolError::OffsetOutOfRange, .. }) => {
                    Ok(Read::Gone { earliest: self.client.get_offset(OffsetAt::Earliest).await? })
                }
                Err(error) => Err(error.into()),
            }
        };
        within(self.timeout, fetch).await.with_context(|| format!("reading back from offset {offset}"))
    }

    async fn nothing(&self) -> Result<Read> {
        Ok(Read::Nothing { end: self.client.get_offset(OffsetAt::Latest).await? })
    }
}

/// Errors that are about the records and not about the broker's state (Kafka protocol, error codes 10, 18,
/// 32 and 87).
fn is_final(error: ProtocolError) -> bool {
    matches!(
        error,
        ProtocolError::MessageTooLarge
            | ProtocolError::RecordListTooLarge
            | ProtocolError::InvalidTimestamp
            | ProtocolError::InvalidRecord
    )
}

/// Whether an answer has come in which something cannot be decoded.
fn is_unreadable(error: &Error) -> bool {
    matches!(error, Error::Request(RequestError::ReadError(_) | RequestError::ReadVersionedError(_)))
}

/// rskafka stops retrying when the waits add up to the deadline: with none allowed, at once.
fn one_attempt() -> BackoffConfig {
    BackoffConfig { deadline: Some(Duration::ZERO), ..BackoffConfig::default() }
}

async fn within<T>(timeout: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(timeout, call)
        .await
        .with_context(|| format!("no answer from Kafka within {timeout:?}"))?
}
