//! Kafka's own tools: the console consumer, a reader of the topic that shares no code with the sidecar that wrote it;
//! and the administrator's client.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::task::spawn_blocking;

use super::artifacts::{self, fetched};
use super::kafka::java;
use crate::repository;

const CLASS: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";

/// The command that prints `topic`, for people: partition, offset, headers, key and value, a tab between them. More
/// arguments of the console consumer (`--from-beginning`, `--max-messages 3`) may follow.
pub async fn console_consumer(bootstrap: &str, topic: &str) -> Result<Command> {
    formatted(bootstrap, topic, "\t", ", ").await
}

/// `field` stands between the fields of a record, `header` between its headers.
pub(super) async fn formatted(bootstrap: &str, topic: &str, field: &str, header: &str) -> Result<Command> {
    let mut command = tool().await?;
    command.args([CLASS, "--bootstrap-server", bootstrap, "--topic", topic]);
    for property in [
        "print.timestamp=true",
        "print.partition=true",
        "print.offset=true",
        "print.headers=true",
        "print.key=true",
        &format!("key.separator={field}"),
        &format!("headers.separator={header}"),
    ] {
        command.args(["--formatter-property", property]);
    }
    Ok(command)
}

/// Sets one configuration of a topic, such as `max.message.bytes`.
pub async fn set_topic_config(bootstrap: &str, topic: &str, name: &str, value: &str) -> Result<()> {
    run("SetTopicConfig.java", &[bootstrap, topic, name, value]).await?;
    Ok(())
}

/// Writes to every partition of `topic` what other applications may; see the program.
pub async fn produce_foreign(bootstrap: &str, topic: &str) -> Result<()> {
    run("ProduceForeign.java", &[bootstrap, topic]).await?;
    Ok(())
}

/// Writes so many records to every partition of `topic`, compressed with `lz4`, `zstd` or another.
pub async fn produce_compressed(bootstrap: &str, topic: &str, compression: &str, records: u32) -> Result<()> {
    let arguments = [bootstrap, topic, compression, &records.to_string()];
    run("ProduceCompressed.java", &arguments).await?;
    Ok(())
}

/// Writes `batches` of `records` with this timestamp to each partition of a topic on one broker.
pub async fn produce_odd_timestamps(
    broker: &str,
    topic: &str,
    partitions: i32,
    timestamp_ms: i64,
    batches: u32,
    records: u32,
) -> Result<()> {
    let numbers = [partitions.into(), timestamp_ms, batches.into(), records.into()];
    let numbers = numbers.map(|number: i64| number.to_string());
    let arguments: Vec<_> = [broker, topic].into_iter().chain(numbers.iter().map(String::as_str)).collect();
    run("ProduceOddTimestamps.java", &arguments).await?;
    Ok(())
}

/// Who has a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    pub partition: i32,
    /// The broker's node id; `None` while there is no leader.
    pub leader: Option<i32>,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
}

/// Every partition of `topic`, by number.
pub async fn partition_states(bootstrap: &str, topic: &str) -> Result<Vec<PartitionState>> {
    let output = run("ClusterPartitions.java", &[bootstrap, topic, "now"]).await?;
    output.lines().map(partition_state).collect()
}

/// Returns when every replica of every partition of `topic` is in sync. An error after a minute.
pub async fn all_in_sync(bootstrap: &str, topic: &str) -> Result<()> {
    run("ClusterPartitions.java", &[bootstrap, topic, "in-sync"]).await?;
    Ok(())
}

/// Increases the partitions of `topic` to `count`.
pub async fn add_partitions(bootstrap: &str, topic: &str, count: i32) -> Result<()> {
    run("ClusterAddPartitions.java", &[bootstrap, topic, &count.to_string()]).await?;
    Ok(())
}

/// Writes a record to a partition of `topic`, or to all, in a transaction that stays open for so long, and then ends as
/// `end` says: `commit`, `abort`, or `abandon`, after which the broker ends it. Behind it comes one record
/// without a transaction. Says how long readers of committed records saw nothing.
pub async fn hold_transaction(
    bootstrap: &str,
    topic: &str,
    partition: Option<i32>,
    open: Duration,
    end: &str,
) -> Result<Duration> {
    let partition = partition.map_or_else(|| "all".to_owned(), |partition| partition.to_string());
    let open = open.as_millis().to_string();
    let output = run("ClusterTransaction.java", &[bootstrap, topic, &partition, &open, end]).await?;
    let ms = output.trim().parse().with_context(|| format!("not a number of milliseconds: {output:?}"))?;
    Ok(Duration::from_millis(ms))
}

/// `partition leader replicas in-sync`, the last two with commas.
fn partition_state(line: &str) -> Result<PartitionState> {
    let fields: Vec<_> = line.split(' ').collect();
    let [partition, leader, replicas, in_sync] = fields[..] else { bail!("no partition: {line:?}") };
    let nodes = |list: &str| -> Result<Vec<i32>> {
        list.split(',').filter(|node| !node.is_empty()).map(|node| Ok(node.parse()?)).collect()
    };
    Ok(PartitionState {
        partition: partition.parse()?,
        leader: nodes(leader)?.first().copied(),
        replicas: nodes(replicas)?,
        in_sync: nodes(in_sync)?,
    })
}

/// What the program printed.
async fn run(name: &str, arguments: &[&str]) -> Result<String> {
    let mut command = program(name, arguments).await?;
    let output = spawn_blocking(move || command.stdin(Stdio::null()).output()).await??;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} {arguments:?} ended with {}\n{errors}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// The command that runs a program of ours from its source.
pub(super) async fn program(name: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = tool().await?;
    command.arg(folder().join(name)).args(arguments);
    Ok(command)
}

/// `java` with the classes of the tools.
async fn tool() -> Result<Command> {
    let jars = fetched(artifacts::KAFKA_TOOLS).await?.join("jars");
    let logging = folder().join("log4j2.properties");
    let mut command = java();
    command
        .current_dir(repository::root())
        .arg("-Xmx128m")
        .arg(format!("-Dlog4j2.configurationFile={}", logging.display()))
        .arg("-cp")
        .arg(jars.join("*"));
    Ok(command)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("services/kafka-tools")
}
