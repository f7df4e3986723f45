//! Kafka's own console consumer: a reader of the topic that shares no code with the sidecar that wrote it.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

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
    let jars = fetched(artifacts::KAFKA_TOOLS).await?.join("jars");
    let logging = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/kafka-tools/log4j2.properties");
    let mut command = java();
    command
        .current_dir(repository::root())
        .arg("-Xmx128m")
        .arg(format!("-Dlog4j2.configurationFile={}", logging.display()))
        .arg("-cp")
        .arg(jars.join("*"))
        .args([CLASS, "--bootstrap-server", bootstrap, "--topic", topic]);
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
