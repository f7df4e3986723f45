//! PostgreSQL, Redis and Apache Kafka as a test or a developer wants them: one call, and they answer.
//!
//! ```text
//! artifacts ──▶ service (a port, a process, a probe) ──▶ Postgres, Redis, Kafka ──▶ TopicReader
//!  Maven, once            answers, or says why not          url(), bootstrap()        console consumer
//! ```

mod artifacts;
pub mod ports;
mod probe;
mod service;
mod postgres;
mod redis;
mod kafka;
mod kafka_cluster;
mod kafka_tools;
mod foreign_transactions;
mod topic_reader;

pub use artifacts::fetch_all;
pub use foreign_transactions::ForeignTransactions;
pub use kafka::{Kafka, KafkaVersion};
pub use kafka_cluster::{KafkaCluster, Replication};
pub use kafka_tools::{
    PartitionState, add_partitions, all_in_sync, console_consumer, hold_transaction, partition_states,
    produce_compressed, produce_foreign, produce_odd_timestamps, set_topic_config,
};
pub use postgres::Postgres;
pub use redis::Redis;
pub use service::Service;
pub use topic_reader::{TopicReader, TopicRecord};
