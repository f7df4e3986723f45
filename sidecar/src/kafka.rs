//! rskafka, with an end to everything. Left alone it retries forever and waits forever for an answer;
//! here a call makes one attempt under a deadline, and who repeats it decides so.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rskafka::BackoffConfig;
use rskafka::client::error::{Error, ProtocolError, RequestError};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::{Record, RecordAndOffset};
use tokio::sync::Mutex;
use tracing::{debug, info, warn};

use crate::config::Config;

#[derive(Clone)]
pub struct Kafka {
    config: Arc<Config>,
    /// When the topics were listed last, and the number of the topic's partitions then, none without the topic.
    listed: Arc<Mutex<Option<Listed>>>,
}

type Listed = (Instant, Option<u32>);

/// How long lanes that connect take the topic for still there after it was listed.
const LISTED_MAX_AGE: Duration = Duration::from_secs(1);

/// What one fetch brings at most, and how long the broker may wait for it to come together.
const READ_BYTES_MAX: i32 = 1024 * 1024;
const READ_WAIT_MS: i32 = 100;

/// The smallest fetch. The broker gives one batch at least (Kafka protocol, Fetch, MaxBytes).
const READ_BYTES_MIN: i32 = 2;

/// Of every request but a produce request, for which a follower that has died takes longer.
const ANSWER_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// What the broker said to a batch.
pub enum Produced {
    /// The offset of each record.
    Acked(Vec<i64>),
    /// Why it does not take the batch, and never will; nothing of it is on the partition.
    Refused(String),
    /// It does not take the timestamps, and nothing of the batch is on the partition.
    BadTimestamp,
}

/// What reading from an offset gave. `end` is the high watermark: the offset after the last record
/// that all in-sync replicas have.
pub enum Read {
    Records {
        records: Vec<RecordAndOffset>,
        end: i64,
    },
    /// There is nothing to read before `next_offset`: markers of transactions, or records that cannot
    /// be decoded.
    Skipped {
        next_offset: i64,
        end: i64,
    },
    /// Another producer's transaction is open. The broker shows nothing after its first record.
    OpenTransaction {
        end: i64,
    },
    /// The broker gives what stands here to newer clients only, because the topic is compressed with
    /// zstd (Kafka protocol, Fetch, before version 10).
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
    produce_timeout: Duration,
    answer_timeout: Duration,
    /// Bytes of the next fetch: less where something could not be decoded, so that what comes before
    /// and after it is read all the same.
    read_bytes: AtomicI32,
}

impl Kafka {
    pub fn new(config: Arc<Config>) -> Kafka {
        Kafka { config, listed: Arc::default() }
    }

    /// The number of partitions of the topic, which is created if it is missing.
    pub async fn ensure_topic(&self) -> Result<u32> {
        self.found_or_created(self.find_partitions().await?).await
    }

    /// The same after a look that found so many, or none without the topic.
    pub async fn found_or_created(&self, found: Option<u32>) -> Result<u32> {
        let partitions = match found {
            Some(partitions) => partitions,
            None => {
                let client = self.client().await?;
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
        let topic = &self.config.kafka_topic;
        self.find_partitions().await?.with_context(|| format!("KAFKA_TOPIC: there is no topic {topic}"))
    }

    /// The number of partitions of the topic, if it is there.
    pub async fn find_partitions(&self) -> Result<Option<u32>> {
        self.partitions(&self.client().await?).await
    }

    /// A new client of one partition, on new connections.
    pub async fn partition(&self, partition: u32) -> Result<Partition> {
        let topic = &self.config.kafka_topic;
        let connect = async {
            let client = self.client().await?;
            self.must_be_listed(&client, partition).await?;
            let index = i32::try_from(partition)?;
            anyhow::Ok(client.partition_client(topic, index, UnknownTopicHandling::Error).await?)
        };
        let client = within(self.answer_timeout(), connect)
            .await
            .with_context(|| format!("connecting to the leader of partition {partition} of {topic}"))?;
        Ok(Partition {
            client,
            produce_timeout: self.config.kafka_timeout,
            answer_timeout: self.answer_timeout(),
            read_bytes: AtomicI32::new(READ_BYTES_MAX),
        })
    }

    fn answer_timeout(&self) -> Duration {
        self.config.kafka_timeout.min(ANSWER_TIMEOUT_MAX)
    }

    async fn client(&self) -> Result<Client> {
        let builder = ClientBuilder::new(self.config.kafka_bootstrap_servers.clone())
            .client_id("kafka-sidecar")
            .backoff_config(one_attempt());
        within(self.answer_timeout(), async { Ok(builder.build().await?) })
            .await
            .with_context(|| format!("connecting to {}", self.config.kafka_bootstrap_servers.join(",")))
    }

    async fn partitions(&self, client: &Client) -> Result<Option<u32>> {
        let list = async { Ok(client.list_topics().await?) };
        let topics = within(self.answer_timeout(), list).await.context("listing the topics")?;
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

    /// Asking for a topic by name has the broker create it, as its own defaults say, unless they forbid that; rskafka asks so
    /// for the leader of a partition. Asking for all topics creates nothing, so that comes first. What remains is that the
    /// topic is deleted in the moment between the two.
    async fn must_be_listed(&self, client: &Client, partition: u32) -> Result<()> {
        let mut listed = self.listed.lock().await;
        let partitions = match *listed {
            Some((at, partitions)) if at.elapsed() < LISTED_MAX_AGE => partitions,
            _ => {
                let partitions = self.partitions(client).await?;
                *listed = Some((Instant::now(), partitions));
                partitions
            }
        };
        let topic = &self.config.kafka_topic;
        let partitions = partitions.with_context(|| format!("there is no topic {topic}"))?;
        ensure!(partition < partitions, "the topic {topic} has {partitions} partitions");
        Ok(())
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
        within(self.answer_timeout(), create)
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
                Err(Error::ServerError { protocol_error: ProtocolError::InvalidTimestamp, .. }) => {
                    Ok(Produced::BadTimestamp)
                }
                Err(Error::ServerError { protocol_error, error_message, .. }) if is_final(protocol_error) => {
                    let message = error_message.map_or_else(String::new, |text| format!(": {text}"));
                    Ok(Produced::Refused(format!("{protocol_error:?}{message}")))
                }
                Err(error) => Err(error.into()),
            }
        };
        within(self.produce_timeout, produce).await.context("producing a batch")
    }

    /// The high watermark: the offset after the last record that all in-sync replicas have, also while
    /// another producer's transaction is open.
    pub async fn end(&self) -> Result<i64> {
        let ask = async {
            loop {
                // Nothing stands there that could not be decoded, unless it has come just now.
                let stable = self.client.get_offset(OffsetAt::Latest).await?;
                match self.client.fetch_records(stable, 1..READ_BYTES_MIN, 0).await {
                    Ok((_, high_watermark)) => return Ok(high_watermark),
                    // Kafka 3 answers no fetch of ours on a topic that is compressed with zstd.
                    Err(Error::ServerError {
                        protocol_error: ProtocolError::UnsupportedCompressionType,
                        ..
                    }) => return Ok(stable),
                    Err(error) if is_about_data(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        };
        within(self.answer_timeout, ask).await.context("asking for the high watermark")
    }

    /// The last stable offset: the high watermark, or where the first open transaction begins. Asking
    /// for it changes nothing, so an idle lane finds out with it whether its leader is there.
    pub async fn stable_end(&self) -> Result<i64> {
        let ask = async { Ok(self.client.get_offset(OffsetAt::Latest).await?) };
        within(self.answer_timeout, ask).await.context("asking for the newest offset")
    }

    /// The offset of the first record that is still there.
    pub async fn earliest(&self) -> Result<i64> {
        let ask = async { Ok(self.client.get_offset(OffsetAt::Earliest).await?) };
        within(self.answer_timeout, ask).await.context("asking for the first offset")
    }

    /// Some records from `offset` on.
    pub async fn read(&self, offset: i64) -> Result<Read> {
        within(self.answer_timeout, self.read_untimed(offset))
            .await
            .with_context(|| format!("reading back from offset {offset}"))
    }

    async fn read_untimed(&self, offset: i64) -> Result<Read> {
        loop {
            let bytes = self.read_bytes.load(Ordering::Relaxed);
            match self.client.fetch_records(offset, 1..bytes, READ_WAIT_MS).await {
                Ok((records, end)) => {
                    let more = bytes.saturating_mul(2).min(READ_BYTES_MAX);
                    self.read_bytes.store(more, Ordering::Relaxed);
                    if !records.is_empty() || offset >= end {
                        return Ok(Read::Records { records, end });
                    }
                    let stable = self.client.get_offset(OffsetAt::Latest).await?;
                    return Ok(match offset < stable {
                        // A marker of a transaction, which ended here.
                        true => Read::Skipped { next_offset: offset + 1, end },
                        false => Read::OpenTransaction { end },
                    });
                }
                Err(error) if is_about_data(&error) && bytes > READ_BYTES_MIN => {
                    self.read_bytes.store(READ_BYTES_MIN, Ordering::Relaxed);
                }
                Err(error) if is_about_data(&error) => return self.skip(offset, error).await,
                Err(Error::ServerError {
                    protocol_error: ProtocolError::UnsupportedCompressionType, ..
                }) => return Ok(Read::Zstd { end: self.client.get_offset(OffsetAt::Latest).await? }),
                // Retention has removed the offset, or the topic was made anew.
                Err(Error::ServerError { protocol_error: ProtocolError::OffsetOutOfRange, .. }) => {
                    let earliest = self.client.get_offset(OffsetAt::Earliest).await?;
                    return Ok(Read::Gone { earliest });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Looks for the end of a stretch that cannot be decoded, in growing steps, and then for where
    /// exactly it is.
    async fn skip(&self, offset: i64, error: Error) -> Result<Read> {
        let end = self.client.get_offset(OffsetAt::Latest).await?;
        let (mut unreadable, mut readable, mut step) = (offset, end, 1);
        while readable - unreadable > 1 {
            let is_found = readable < end;
            let probe = match is_found {
                true => unreadable + (readable - unreadable) / 2,
                false => (unreadable + step).min(end - 1),
            };
            match self.client.fetch_records(probe, 1..READ_BYTES_MIN, READ_WAIT_MS).await {
                Err(error) if is_about_data(&error) => {
                    unreadable = probe;
                    step *= 2;
                }
                Err(error) => return Err(error.into()),
                Ok(_) => readable = probe,
            }
        }
        let (from, to, error) = (offset, readable - 1, format!("{error:#}"));
        if from == to {
            // Most often the marker of a transaction, which rskafka cannot decode.
            debug!(offset, error, "a record cannot be decoded and is passed over");
        } else {
            warn!(
                from,
                to,
                error,
                "records cannot be decoded and are passed over; events among them may be published again"
            );
        }
        Ok(Read::Skipped { next_offset: readable, end: end.max(readable) })
    }
}

/// Errors about the records and not about the broker's state (Kafka protocol, error codes 10, 18 and
/// 87). InvalidTimestamp is not among them: another timestamp helps.
fn is_final(error: ProtocolError) -> bool {
    matches!(
        error,
        ProtocolError::MessageTooLarge | ProtocolError::RecordListTooLarge | ProtocolError::InvalidRecord
    )
}

/// Whether an answer has come in which a record cannot be decoded. Every other error is about the
/// connection or the broker, and the next attempt may succeed.
fn is_about_data(error: &Error) -> bool {
    match error {
        Error::Request(
            RequestError::ReadError(_)
            | RequestError::ReadVersionedError(_)
            | RequestError::TooMuchData { .. },
        ) => true,
        // rskafka has one variant for timestamps that chrono cannot hold and for answers that do not
        // fit the request. Its texts for timestamps are these three.
        Error::InvalidResponse(text) => {
            ["Timestamp overflow", "Not a valid timestamp", "Ambiguous timestamp"]
                .iter()
                .any(|start| text.starts_with(start))
        }
        _ => false,
    }
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use rskafka::client::error::RequestContext;

    use super::*;

    fn server_error(protocol_error: ProtocolError) -> Error {
        Error::ServerError {
            protocol_error,
            error_message: None,
            request: RequestContext::Topic("task_events".to_owned()),
            response: None,
            is_virtual: false,
        }
    }

    fn io_error() -> io::Error {
        io::Error::other("reset")
    }

    /// Each variant that can be made outside of rskafka. The others hold its private types.
    #[test]
    fn only_undecodable_records_are_about_data() {
        let read = |source: io::Error| RequestError::ReadError(source.into());
        let invalid = |text: &str| Error::InvalidResponse(text.to_owned());
        for (error, is_data) in [
            (Error::Request(read(io_error())), true),
            (invalid("Not a valid timestamp (-9000000000000000)"), true),
            (invalid("Timestamp overflow (first_timestamp=1, delta=2"), true),
            (invalid("Ambiguous timestamp (1): a or b"), true),
            (invalid("Could not find metadata for partition 3 in topic \"t\""), false),
            (invalid("Expected data for partition 1 but got data for partition 2"), false),
            (Error::Request(RequestError::IO(io_error())), false),
            (Error::Request(RequestError::Poisoned(Arc::new(read(io_error())))), false),
            (Error::Connection(read(io_error()).into()), false),
            (Error::Timeout, false),
        ] {
            assert_eq!(is_about_data(&error), is_data, "{error}");
        }
        let codes = (i16::MIN..=i16::MAX).filter_map(ProtocolError::new);
        let about_data: Vec<_> = codes.filter(|code| is_about_data(&server_error(*code))).collect();
        assert_eq!(about_data, [], "a broker's error code");
    }

    #[test]
    fn a_broker_refuses_a_batch_for_good_with_three_codes() {
        let codes = (i16::MIN..=i16::MAX).filter_map(ProtocolError::new);
        let is_refusal: Vec<_> = codes.filter(|code| is_final(*code)).collect();
        assert_eq!(
            is_refusal,
            [ProtocolError::MessageTooLarge, ProtocolError::RecordListTooLarge, ProtocolError::InvalidRecord,]
        );
    }
}
