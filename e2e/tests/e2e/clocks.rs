//! Clocks that are wrong: a component's, and the time of an event that waited for long.

use anyhow::{Context as _, Result, ensure};
use e2e::{Deployment, Told, TopicRecord, eventually, kafka_version};
use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;
use xtask::services::KafkaVersion;

/// A task that another component made, whose clock is off by so much; and its event.
const TASK_OF_ANOTHER_CLOCK: &str = r#"
    with clock as (
        select date_trunc('milliseconds', now()) + ($3::text)::interval as time
    ), task as (
        insert into tasks (id, title, status, version, created_at, updated_at, last_event_id)
        select ($1::text)::uuid, 'of another clock', 'todo', 1, time, time, ($2::text)::uuid from clock
        returning *
    )
    insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time)
    select last_event_id, 'task', id, 'TASK_CREATED',
           '{"event_type":"TASK_CREATED","data":' || task_document(task) || '}', 1, created_at
    from task
    returning to_char(time at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS')"#;

/// Makes such a task, as one that is older than the limit on what a component may claim. Gives its id
/// and its time, to the millisecond.
async fn create_at(database: &Client, offset: &str) -> Result<(String, String)> {
    database.batch_execute("alter table tasks disable trigger tasks_clock").await?;
    let [task_id, event_id] = [Uuid::now_v7(), Uuid::now_v7()].map(|id| id.to_string());
    let row = database.query_one(TASK_OF_ANOTHER_CLOCK, &[&task_id, &event_id, &offset]).await?;
    Ok((task_id, row.get(0)))
}

/// Milliseconds since 1970, by the database's clock, which is this machine's.
async fn now_ms(database: &Client) -> Result<i64> {
    let now = "select (extract(epoch from clock_timestamp()) * 1000)::int8";
    Ok(database.query_one(now, &[]).await?.get(0))
}

fn of_task<'a>(records: &'a [TopicRecord], id: &str) -> Option<&'a TopicRecord> {
    records.iter().find(|record| record.key == id)
}

async fn nothing_is_parked(database: &Client) -> Result<()> {
    let parked = "select count(*) from outbox where parked_at is not null";
    let parked: i64 = database.query_one(parked, &[]).await?.get(0);
    ensure!(parked == 0, "{parked} events are parked");
    Ok(())
}

/// Waits until the outbox is empty, and fails at once when an event is parked.
async fn everything_is_published(deployment: &Deployment, database: &Client) -> Result<()> {
    eventually("nothing is left in the outbox", async || {
        let count = "select count(*), count(parked_at) from outbox";
        let row = database.query_one(count, &[]).await?;
        let (rows, parked): (i64, i64) = (row.get(0), row.get(1));
        Ok((rows == 0 || parked > 0).then_some(()))
    })
    .await?;
    nothing_is_parked(database).await?;
    deployment.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_wrong_clock_gets_the_time_of_publication() -> Result<()> {
    let deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let database = deployment.database().await?;
    deployment.set_topic_config("retention.ms", "3600000").await?;
    let mut tasks = Vec::new();
    let before_ms = now_ms(&database).await?;
    for offset in ["2 hours", "-30 days", "-20 years"] {
        tasks.push(create_at(&database, offset).await?);
    }
    everything_is_published(&deployment, &database).await?;
    let after_ms = now_ms(&database).await?;

    let enough = |records: &[TopicRecord]| tasks.iter().all(|(id, _)| of_task(records, id).is_some());
    let records = topic.wait_for(enough, e2e::LIMIT).await?;
    for (id, time) in &tasks {
        let record = of_task(&records, id).context("waited for it")?;
        ensure!((before_ms..=after_ms).contains(&record.timestamp_ms), "of {time}: {record:?}");
        let ce_time = record.header("ce_time").context("an event has a time")?;
        ensure!(ce_time.starts_with(time.as_str()), "{ce_time} is not {time}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_keeps_its_time_as_the_records_timestamp() -> Result<()> {
    let deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let database = deployment.database().await?;
    let (id, _) = create_at(&database, "-10 seconds").await?;
    deployment.outbox_is_empty().await?;
    let created = "select (extract(epoch from created_at) * 1000)::int8 from tasks where id::text = $1";
    let created_ms: i64 = database.query_one(created, &[&id]).await?.get(0);
    let records = topic.wait_for(|records| of_task(records, &id).is_some(), e2e::LIMIT).await?;
    ensure!(of_task(&records, &id).is_some_and(|record| record.timestamp_ms == created_ms), "{records:?}");
    Ok(())
}

/// A clock that was ahead once does not keep a task ahead for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_task_from_the_future_happens_now() -> Result<()> {
    let deployment = Deployment::start().await?;
    let database = deployment.database().await?;
    let (id, _) = create_at(&database, "2 hours").await?;
    let changed = deployment.api.patch(&id, &json!({ "title": "changed" })).await?.json()?;
    ensure!(changed["version"] == 2, "{changed}");
    let is_past = "select updated_at <= clock_timestamp() from tasks where id::text = $1";
    ensure!(database.query_one(is_past, &[&id]).await?.get::<_, bool>(0), "{changed}");
    everything_is_published(&deployment, &database).await?;

    let (id, _) = create_at(&database, "2 hours").await?;
    let deleted = deployment.api.request("DELETE", &format!("/api/tasks/{id}"))?;
    ensure!(e2e::answer(deleted).await?.status == 204, "the task is not deleted");
    let topic = deployment.topic_reader().await?;
    let deletion = |record: &&TopicRecord| {
        record.key == id && record.header("ce_sequence").is_some_and(|version| version.ends_with('2'))
    };
    let records =
        topic.wait_for(|records| records.iter().any(|record| deletion(&record)), e2e::LIMIT).await?;
    let time = records.iter().find(deletion).and_then(|record| record.header("ce_time"));
    let is_past = "select ($1::text)::timestamptz <= clock_timestamp()";
    ensure!(database.query_one(is_past, &[&time]).await?.get::<_, bool>(0), "{time:?}");
    Ok(())
}

/// As a component calls it whose clock is an hour ahead, and may try for itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_bounds_the_time_that_a_component_claims() -> Result<()> {
    let deployment = Deployment::start().await?;
    let database = deployment.database().await?;
    let insert = |offset: &str| {
        format!(
            "select insert_task(
                 gen_random_uuid(), 'a', null, 'todo', 1::int2, null, '{{}}', now() + interval '{offset}',
                 gen_random_uuid(), 'TASK_CREATED', '{{}}', null)"
        )
    };
    let insert_many = |offset: &str| {
        format!(
            "select insert_tasks(json_build_array(json_build_object(
                 'id', gen_random_uuid(), 'title', 'a', 'status', 'todo', 'rank', 1, 'tags', json_build_array(),
                 'created_at', now() + interval '{offset}', 'event_id', gen_random_uuid(),
                 'type', 'TASK_CREATED', 'payload', '{{}}')))"
        )
    };
    deployment.sidecar()?.pause()?;
    for statement in [insert("1 hour"), insert_many("1 hour")] {
        ensure!(database.batch_execute(&statement).await.is_err(), "accepted: {statement}");
    }
    let tasks: i64 = database.query_one("select count(*) from tasks", &[]).await?.get(0);
    ensure!(tasks == 0, "{tasks} tasks of the future");
    // Small differences between clocks are no error.
    for statement in [insert("1 second"), insert_many("1 second")] {
        database.batch_execute(&statement).await?;
    }

    let task = deployment.api.create(&json!({ "title": "a" })).await?;
    let id = task["id"].as_str().context("an id")?;
    let change = "
        select change_task(
            ($1::text)::uuid, gen_random_uuid(), now() + interval '1 hour', null, null, null,
            true, 'b', false, null, false, null, false, null, false, null, false, null)";
    database.query(change, &[&id]).await?;
    let is_past = "select version = 2 and updated_at <= clock_timestamp() from tasks where id::text = $1";
    ensure!(database.query_one(is_past, &[&id]).await?.get::<_, bool>(0), "changed in the future");
    let delete = "
        select time::timestamptz <= clock_timestamp()
        from delete_task(($1::text)::uuid, gen_random_uuid(), now() + interval '1 hour', null, null, null)
             as deleted (payload, version, time)";
    ensure!(database.query_one(delete, &[&id]).await?.get::<_, bool>(0), "deleted in the future");
    deployment.sidecar()?.resume()
}

/// A topic that takes the present time alone, as its operator may set it.
async fn takes_only_the_present(deployment: &Deployment) -> Result<()> {
    let names: &[&str] = match kafka_version()? {
        KafkaVersion::V4_4 => &["message.timestamp.before.max.ms", "message.timestamp.after.max.ms"],
        KafkaVersion::V3_0 => &["message.timestamp.difference.max.ms"],
    };
    for name in names {
        deployment.set_topic_config(name, "1000").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_time_the_broker_refuses_is_published() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let topic = deployment.topic_reader().await?;
    let database = deployment.database().await?;
    let mut told = Told::default();
    deployment.create_tasks(&mut told).await?;
    deployment.outbox_is_empty().await?;
    takes_only_the_present(&deployment).await?;
    deployment.stop_sidecar().await?;
    let created = deployment.create_tasks(&mut told).await?;
    eventually("the events are older than the broker takes", async || {
        let age = "select bool_and(clock_timestamp() - time > interval '2 seconds') from outbox";
        Ok(database.query_one(age, &[]).await?.get::<_, bool>(0).then_some(()))
    })
    .await?;
    let started_ms = now_ms(&database).await?;
    deployment.start_sidecar(&[])?;
    everything_is_published(&deployment, &database).await?;

    let records = topic.wait_for(|records| told.is_covered_by(records), e2e::LIMIT).await?;
    for task in created {
        let id = task["id"].as_str().context("an id")?;
        let record = of_task(&records, id).context("waited for it")?;
        ensure!(record.timestamp_ms >= started_ms, "older than its publication: {record:?}");
        ensure!(record.header("ce_time") == task["created_at"].as_str(), "{record:?} of {task}");
    }
    told.are_once_and_in_order(&records)
}
