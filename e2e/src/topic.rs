use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use jsonschema::Validator;
use serde_json::{Value, json};
use xtask::repository;
use xtask::services::{TopicReader, TopicRecord};

/// A consumer of a deployment's topic, from its first record on. Every record that it hands out is one
/// that the AsyncAPI document describes.
pub struct Topic {
    reader: TopicReader,
    messages: Vec<Message>,
}

/// A kind of record.
struct Message {
    event_type: String,
    headers: Validator,
    payload: Validator,
}

/// The key of what `produce_foreign` writes: records like any of another application.
const FOREIGN: &str = "foreign";

impl Topic {
    pub(crate) async fn read(bootstrap_servers: &str, topic: &str) -> Result<Topic> {
        // What the component serves; a test may read before it is started.
        let document = std::fs::read_to_string(repository::root().join("docs/asyncapi.json"))?;
        let document: Value = serde_json::from_str(&document)?;
        let messages = document["components"]["messages"].as_object().context("a document with messages")?;
        let message = |event_type: &String| {
            Ok(Message {
                event_type: event_type.clone(),
                headers: validator(&document, &format!("messages/{event_type}/headers"))?,
                payload: validator(&document, &format!("messages/{event_type}/payload"))?,
            })
        };
        Ok(Topic {
            messages: messages.keys().map(message).collect::<Result<_>>()?,
            reader: TopicReader::start(bootstrap_servers, topic).await?,
        })
    }

    /// All records that are there as soon as they are enough.
    pub async fn wait_for(
        &self,
        enough: impl Fn(&[TopicRecord]) -> bool,
        limit: Duration,
    ) -> Result<Vec<TopicRecord>> {
        let records = self.reader.wait_for(enough, limit).await?;
        for record in records.iter().filter(|record| record.key != FOREIGN) {
            self.check(record).with_context(|| format!("not as /asyncapi.json says: {record:?}"))?;
        }
        Ok(records)
    }

    fn check(&self, record: &TopicRecord) -> Result<()> {
        let value: Value = serde_json::from_str(&record.value)?;
        let message = self.messages.iter().find(|message| value["event_type"] == *message.event_type);
        let message = message.context("no such message")?;
        let headers: Value =
            record.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        for (validator, instance) in [(&message.payload, &value), (&message.headers, &headers)] {
            let errors = validator.iter_errors(instance);
            let errors: Vec<_> = errors.map(|error| format!("{}: {error}", error.instance_path())).collect();
            ensure!(errors.is_empty(), "{errors:?}");
        }
        ensure!(value["data"]["id"] == *record.key, "its key is not the task's id");
        Ok(())
    }
}

/// For what stands in the document's components at `path`, which may refer to other components.
fn validator(document: &Value, path: &str) -> Result<Validator> {
    let schema = json!({
        "$ref": format!("#/components/{path}"),
        "components": document["components"],
    });
    let options = jsonschema::options().should_validate_formats(true);
    options.build(&schema).map_err(|error| anyhow!("{path} is no schema: {error}"))
}
