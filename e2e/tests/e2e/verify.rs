//! `kafka-sidecar verify`: it finds what is wrong, and nothing where nothing is.

use anyhow::{Context as _, Result, ensure};
use chrono::Utc;
use e2e::{Deployment, LIMIT, Services, answer};
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;
use xtask::services::TopicReader;

/// The number of findings of a kind.
fn found<'a>(report: &'a str, kind: &str) -> &'a str {
    report.lines().find_map(|line| line.strip_prefix(kind)).map_or("", str::trim)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_wrong_while_writes_go_on() -> Result<()> {
    let deployment = Deployment::start().await?;
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let api = deployment.api.clone();
        writers.spawn(async move {
            for change in 0..40 {
                let task = api.create(&json!({ "title": format!("{writer} {change}") })).await?;
                let path = task["id"].as_str().unwrap_or_default();
                api.patch(path, &json!({ "status": "done" })).await?;
                if change % 3 == 0 {
                    answer(api.request("DELETE", &format!("/api/tasks/{path}"))?).await?;
                }
            }
            anyhow::Ok(())
        });
    }
    let mut rounds = 0;
    while !writers.is_empty() || rounds < 2 {
        let (code, report) = deployment.verify().await?;
        assert_eq!(code, Some(0), "{report}");
        rounds += 1;
        while let Some(ended) = writers.try_join_next() {
            ended??;
        }
    }
    deployment.outbox_is_empty().await?;
    let (code, report) = deployment.verify().await?;
    assert_eq!((code, report.contains(" 376 records of 160 tasks ")), (Some(0), true), "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_unknown_or_conflicting_is_told() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let lost = deployment.api.create(&json!({ "title": "its second event is lost" })).await?;
    let unknown = deployment.api.create(&json!({ "title": "the database forgets it" })).await?;
    let conflicting = deployment.api.create(&json!({ "title": "its version has two events" })).await?;
    deployment.outbox_is_empty().await?;
    deployment.kill_sidecar().await?;

    let id = |task: &Value| task["id"].as_str().map(ToOwned::to_owned).unwrap_or_default();
    deployment.api.patch(&id(&lost), &json!({ "status": "done" })).await?;
    let damage = format!(
        "delete from outbox where aggregateid = '{}';
         delete from tasks where id = '{}';
         insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time)
             select gen_random_uuid(), 'task', id, 'TASK_CREATED',
                    '{{\"event_type\":\"TASK_CREATED\",\"data\":' || task_document(tasks) || '}}', 1, created_at
             from tasks where id = '{}'",
        id(&lost),
        id(&unknown),
        id(&conflicting)
    );
    deployment.database().await?.batch_execute(&damage).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    deployment.outbox_is_empty().await?;

    let (code, report) = deployment.verify().await?;
    assert_eq!(code, Some(1), "{report}");
    for kind in ["missing", "unknown", "conflicting"] {
        assert_eq!(found(&report, kind), "1", "{report}");
    }
    // The database is named after the command here, and the variable leads nowhere.
    let mut elsewhere = deployment.beside().await?;
    elsewhere.database_url = "postgres://nobody@127.0.0.1:1/nothing".to_owned();
    let named = ["verify", "--json", "--database-url", &deployment.database_url];
    let json = elsewhere.operate(&named).await?;
    assert_eq!(json.status.code(), Some(1), "{json:?}");
    let json: Value = serde_json::from_slice(&json.stdout)?;
    let finding = |task: &Value, version: u64| {
        json!({
            "task_id": task["id"], "first_version": version, "last_version": version,
            "partition": null, "offset": null,
        })
    };
    let findings = &json["findings"];
    assert_eq!(findings["missing"], json!({ "count": 1, "first": [finding(&lost, 2)] }));
    assert_eq!(findings["unknown"], json!({ "count": 1, "first": [finding(&unknown, 1)] }));
    assert_eq!(findings["out_of_order"], json!({ "count": 0, "first": [] }));
    let conflict = &findings["conflicting"]["first"][0];
    assert!(conflict["offset"].is_u64() && conflict["task_id"] == conflicting["id"], "{json}");
    assert_eq!(
        json!([json["ok"], json["topic"], json["records"], json["tasks"], json["database"]["tasks"]]),
        json!([false, deployment.topic, 4, 3, 2])
    );
    let partition = json!({ "partition": 0, "offsets_without_record": 0, "unread": null });
    assert_eq!((&json["partitions"][0], json["partitions"].as_array().map(Vec::len)), (&partition, Some(3)));

    for told in [(&lost, 2), (&unknown, 1), (&conflicting, 1)]
        .map(|(task, version)| format!("{}, version {version}", id(task)))
    {
        assert!(report.contains(&told), "{report}");
    }
    Ok(())
}

/// A record with headers like the sidecar's.
fn claim(task_id: &str, version: u64, event_id: Uuid, source: &str) -> Record {
    let headers = [
        ("ce_id", event_id.to_string()),
        ("ce_sequence", version.to_string()),
        ("ce_source", source.to_owned()),
        ("ce_subject", task_id.to_owned()),
        ("ce_type", "TASK_UPDATED".to_owned()),
    ];
    Record {
        key: Some(task_id.into()),
        value: Some("{}".into()),
        headers: headers.map(|(name, value)| (name.to_owned(), value.into_bytes())).into(),
        timestamp: Utc::now(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_foreign_records_claim_is_found_and_costs_nothing() -> Result<()> {
    let deployment = Deployment::start().await?;
    let task = deployment.api.create(&json!({ "title": "its version is taken twice" })).await?;
    let id = task["id"].as_str().context("an id")?;
    deployment.outbox_is_empty().await?;
    let topic = deployment.topic_reader().await?;
    let records = topic.wait_for(|records| records.len() == 1, LIMIT).await?;
    let partition = records[0].partition;

    let (stranger, other) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
    let claims = vec![
        claim(id, 1, Uuid::now_v7(), "/api/tasks"),
        claim(&stranger, u64::MAX, Uuid::now_v7(), "/api/tasks"),
        claim(&other, u64::MAX, Uuid::now_v7(), "/api/other"),
    ];
    let kafka = deployment.kafka().await?;
    let client = kafka.partition_client(&deployment.topic, partition, UnknownTopicHandling::Error).await?;
    client.produce(claims, Compression::NoCompression).await?;

    let (code, report) = deployment.verify().await?;
    ensure!(code == Some(1), "{report}");
    for (kind, count) in [("conflicting", "1"), ("unknown", "1"), ("missing", "0"), ("doubled", "0")] {
        ensure!(found(&report, kind) == count, "{kind}: {report}");
    }
    let conflicting = format!("task {id}, version 1, at partition {partition}, offset");
    let unknown = format!("task {stranger}, version {}", u64::MAX);
    ensure!(report.contains(&conflicting) && report.contains(&unknown), "{report}");
    ensure!(
        report.contains(" 3 records of 2 tasks ") && report.contains(", 1 of other producers"),
        "{report}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn records_from_before_a_change_of_their_names_are_known() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    // Whatever names the records have.
    let servers = Services::shared()?.kafka_bootstrap_servers;
    let topic = TopicReader::start(&servers, &deployment.topic).await?;
    let task = deployment.api.create(&json!({ "title": "renamed" })).await?;
    let id = task["id"].as_str().context("an id")?;
    deployment.outbox_is_empty().await?;

    let names =
        [("/api/tasks", ""), ("https://example.com/tasks", "com.example.tasks."), ("urn:tasks", "org.")];
    for (version, (source, prefix)) in (2..).zip(&names[1..]) {
        deployment.stop_sidecar().await?;
        deployment.start_sidecar(&[("CE_SOURCE", source), ("CE_TYPE_PREFIX", prefix)])?;
        deployment.api.patch(id, &json!({ "title": source })).await?;
        topic.wait_for(|records| records.len() == version, LIMIT).await?;
    }
    deployment.outbox_is_empty().await?;

    let records = topic.wait_for(|records| records.len() == names.len(), LIMIT).await?;
    let types = ["TASK_CREATED", "TASK_UPDATED", "TASK_UPDATED"];
    for ((record, (source, prefix)), event_type) in records.iter().zip(names).zip(types) {
        assert_eq!(record.header("ce_source"), Some(source));
        assert_eq!(record.header("ce_type"), Some(format!("{prefix}{event_type}").as_str()));
        // What is in the value is the application's, whatever the operator calls it.
        assert_eq!(serde_json::from_str::<Value>(&record.value)?["event_type"], event_type);
    }
    let (code, report) = deployment.verify().await?;
    assert_eq!(code, Some(0), "{report}");
    ensure!(
        report.contains(" 3 records of 1 tasks ") && report.contains(", 0 of other producers"),
        "{report}"
    );
    Ok(())
}
