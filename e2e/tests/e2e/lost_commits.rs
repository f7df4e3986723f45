//! PostgreSQL has lost its last commits, as after a failover to a standby that lagged behind. Their
//! events are on the topic. Later changes get the same versions, and are other events.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use e2e::{Deployment, LIMIT, Services, TopicRecord, answer, eventually};
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};

const TASKS: usize = 8;
/// Where no sidecar listens.
const PUSHES_LOST: [(&str, &str); 1] = [("sidecar_address", "127.0.0.1:1")];

/// Version and title of each task's events in the order in which the API made them, lost ones too.
#[derive(Default)]
struct History(BTreeMap<String, Vec<(u64, String)>>);

impl History {
    async fn create(&mut self, deployment: &Deployment) -> Result<()> {
        for _ in 0..TASKS {
            self.note(&deployment.api.create(&json!({ "title": "created" })).await?)?;
        }
        deployment.outbox_is_empty().await
    }

    /// The changes that will be lost: of each task one more than of the one before. Of the last task
    /// it is the deletion.
    async fn change_and_lose(&mut self, deployment: &Deployment) -> Result<()> {
        let ids: Vec<_> = self.0.keys().cloned().collect();
        let (last, others) = ids.split_last().context("tasks")?;
        for (number, id) in others.iter().enumerate() {
            for change in 0..=number {
                self.change(deployment, id, &format!("lost {change}")).await?;
            }
        }
        let deleted = deployment.api.request("DELETE", &format!("/api/tasks/{last}"))?;
        ensure!(answer(deleted).await?.status == 204, "task {last} is not deleted");
        self.0.entry(last.clone()).or_default().push((2, "created".to_owned()));
        deployment.outbox_is_empty().await
    }

    /// A few changes of each task, after the others are lost.
    async fn change_again(&mut self, deployment: &Deployment, round: &str) -> Result<()> {
        let ids: Vec<_> = self.0.keys().cloned().collect();
        for change in 0..3 {
            for id in &ids {
                self.change(deployment, id, &format!("{round} {change}")).await?;
            }
        }
        Ok(())
    }

    async fn change(&mut self, deployment: &Deployment, id: &str, title: &str) -> Result<()> {
        // The pool's connections may be broken.
        let patch = json!({ "title": title });
        let task = eventually("the change is made", async || {
            let patched = deployment.api.patch(id, &patch).await?;
            ensure!(patched.status == 200, "{patched:?}");
            Ok(Some(patched.json()?))
        });
        self.note(&task.await?)
    }

    fn note(&mut self, task: &Value) -> Result<()> {
        let text = |name| task[name].as_str().map(str::to_owned).context("text");
        let event = (task["version"].as_u64().context("a version")?, text("title")?);
        self.0.entry(text("id")?).or_default().push(event);
        Ok(())
    }

    /// Checks that the topic holds exactly this, each task's events in this order.
    async fn is_on_the_topic_of(&self, deployment: &Deployment) -> Result<()> {
        deployment.outbox_is_empty().await?;
        let topic = deployment.topic_reader().await?;
        let events = self.0.values().map(Vec::len).sum();
        let records = topic.wait_for(|records| records.len() >= events, LIMIT).await?;
        for (id, events) in &self.0 {
            let of_task = records.iter().filter(|record| record.key == *id);
            let on_topic = of_task.map(event).collect::<Result<Vec<_>>>()?;
            ensure!(on_topic == *events, "task {id} has {events:?}, the topic {on_topic:?}");
        }
        ensure!(records.len() == events, "{} records of {events} events", records.len());
        Ok(())
    }
}

fn event(record: &TopicRecord) -> Result<(u64, String)> {
    let version = record.header("ce_sequence").context("a version")?.parse()?;
    let value: Value = serde_json::from_str(&record.value)?;
    Ok((version, value["data"]["title"].as_str().context("a title")?.to_owned()))
}

/// Remembers the state of the database in the database itself, where the sidecar does not look.
async fn keep(database: &Client) -> Result<()> {
    let keep = "
        create schema kept;
        create table kept.tasks as table tasks;
        create table kept.outbox as table outbox;
        create table kept.positions as table positions";
    Ok(database.batch_execute(keep).await?)
}

/// Brings the remembered state back. No session ends, so that the sidecar notices nothing.
async fn restore(database: &Client) -> Result<()> {
    let restore = "
        do $$
        declare
            name text;
            columns text;
        begin
            foreach name in array array['tasks', 'outbox', 'positions'] loop
                select string_agg(quote_ident(column_name), ', ') into columns
                from information_schema.columns
                where table_schema = 'public' and table_name = name and is_generated = 'NEVER';
                execute format('delete from public.%I', name);
                execute format('insert into public.%I (%s) select %s from kept.%I',
                               name, columns, columns, name);
            end loop;
        end
        $$";
    Ok(database.batch_execute(restore).await?)
}

/// Changes are lost under a sidecar that runs on and remembers them.
async fn lose_under_a_running_sidecar(variables: &[(&str, &str)]) -> Result<()> {
    let deployment = Deployment::start_with(variables).await?;
    let database = deployment.database().await?;
    let mut history = History::default();
    history.create(&deployment).await?;
    keep(&database).await?;
    history.change_and_lose(&deployment).await?;
    restore(&database).await?;
    history.change_again(&deployment, "again").await?;
    history.is_on_the_topic_of(&deployment).await?;
    history.change_again(&deployment, "and again").await?;
    history.is_on_the_topic_of(&deployment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_with_a_lost_changes_version_is_published() -> Result<()> {
    lose_under_a_running_sidecar(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn and_also_when_nobody_pushes_it() -> Result<()> {
    lose_under_a_running_sidecar(&PUSHES_LOST).await
}

/// The clock of the standby that became primary was behind that of the lost primary.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_sidecar_publishes_changes_with_lost_versions() -> Result<()> {
    for clock_behind in ["0 seconds", "10 seconds"] {
        let mut deployment = Deployment::start().await?;
        let database = deployment.database().await?;
        let mut history = History::default();
        history.create(&deployment).await?;
        keep(&database).await?;
        history.change_and_lose(&deployment).await?;
        deployment.kill_sidecar().await?;
        restore(&database).await?;
        history.change_again(&deployment, "again").await?;
        let shift = "update outbox set time = time - ($1::text)::interval";
        database.execute(shift, &[&clock_behind]).await?;

        deployment.start_sidecar(&[])?;
        history.is_on_the_topic_of(&deployment).await.with_context(|| clock_behind.to_owned())?;
        history.change_again(&deployment, "and again").await?;
        history.is_on_the_topic_of(&deployment).await.with_context(|| clock_behind.to_owned())?;
    }
    Ok(())
}

/// As an operator restores a database: every session ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_runs_through_a_restore_of_the_database() -> Result<()> {
    let mut deployment = Deployment::start().await?;
    let mut history = History::default();
    history.create(&deployment).await?;
    // Nobody may be connected to what is copied.
    deployment.stop_sidecar().await?;
    deployment.stop_application().await?;
    let (_, name) = deployment.database_url.rsplit_once('/').context("a URL with a database")?;
    let (admin, connection) = tokio_postgres::connect(&Services::shared()?.database_url, NoTls).await?;
    tokio::spawn(connection);
    let copy = format!("create database {name}_kept template {name}");
    eventually("the database is copied", async || Ok(Some(admin.batch_execute(&copy).await?))).await?;

    let restore = [
        format!("drop database {name} with (force)"),
        format!("create database {name} template {name}_kept"),
    ];
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    deployment.start_application().await?;
    history.change_and_lose(&deployment).await?;
    for statement in restore {
        admin.batch_execute(&statement).await?;
    }
    history.change_again(&deployment, "again").await?;
    history.is_on_the_topic_of(&deployment).await
}
