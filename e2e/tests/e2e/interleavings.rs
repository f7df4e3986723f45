//! D5: after a write's response no read returns an older state, whatever readers and writers do to
//! each other in between. A reader is held between its miss and its storing by locking what it reads.

use anyhow::Result;
use e2e::{Deployment, answer, eventually};
use serde_json::json;

/// Holds every statement that reads or writes tasks, until it is dropped.
pub async fn hold(deployment: &Deployment) -> Result<tokio_postgres::Client> {
    let holder = deployment.database().await?;
    holder.batch_execute("begin; lock table tasks in access exclusive mode").await?;
    Ok(holder)
}

/// Waits until a statement is held; others may stand behind it on the same connection.
pub async fn waiting(deployment: &Deployment) -> Result<()> {
    let watcher = deployment.database().await?;
    eventually("a statement is held", async || {
        let query = "select count(*) from pg_stat_activity
                     where datname = current_database() and wait_event_type = 'Lock'";
        Ok((watcher.query_one(query, &[]).await?.get::<_, i64>(0) > 0).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_before_a_write_is_not_stored_after_it() -> Result<()> {
    // The reader has missed, and has its answer from before the write, when the write comes: that is
    // what a lease taken before the write and used after it amounts to.
    let deployment = Deployment::start_with(&[("postgres_timeout_ms", "30000")]).await?;
    let task = deployment.api.create(&json!({ "title": "old" })).await?;
    let id = task["id"].as_str().unwrap().to_owned();
    let mut redis = deployment.redis().await?;
    let prefix = deployment.cache_key_prefix.clone();

    for (path, key, field) in [
        ("/api/tasks".to_owned(), format!("{{{prefix}}}:lists"), "sort=-created_at&limit=20".to_owned()),
        (format!("/api/tasks/{id}"), format!("{{{prefix}}}:task:{id}"), "task".to_owned()),
    ] {
        // A reader misses and plants its lease; the database keeps it waiting.
        let holder = hold(&deployment).await?;
        let api = deployment.api.clone();
        let reader_path = path.clone();
        let reader = tokio::spawn(async move { answer(api.get(&reader_path)).await });
        waiting(&deployment).await?;
        let lease: Option<String> = redis::cmd("HGET").arg(&key).arg("lease").query_async(&mut redis).await?;
        assert!(lease.is_some(), "{path}: the reader has its lease");
        // A write ends in between, for the cache at least: it takes the lease away.
        let dropped: i64 = redis::cmd("DEL").arg(&key).query_async(&mut redis).await?;
        assert_eq!(dropped, 1);
        holder.batch_execute("rollback").await?;
        assert!(reader.await??.status.is_success());
        let stored: bool = redis::cmd("HEXISTS").arg(&key).arg(&field).query_async(&mut redis).await?;
        assert!(!stored, "{path}: stored without a right to");
        // And with its lease in place, the next reader stores.
        answer(deployment.api.get(&path)).await?;
        let stored: bool = redis::cmd("HEXISTS").arg(&key).arg(&field).query_async(&mut redis).await?;
        assert!(stored, "{path}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_waits_for_a_reader_leaves_nothing_old_behind() -> Result<()> {
    let deployment = Deployment::start_with(&[("postgres_timeout_ms", "30000")]).await?;
    let task = deployment.api.create(&json!({ "title": "old" })).await?;
    let id = task["id"].as_str().unwrap().to_owned();
    let mut redis = deployment.redis().await?;
    let prefix = deployment.cache_key_prefix.clone();
    for round in 0..5 {
        // Nothing is cached, as if its time were over, so that everybody has to ask. Readers and a writer
        // start from the same moment, and go in whatever order they get through.
        let keys = [format!("{{{prefix}}}:lists"), format!("{{{prefix}}}:task:{id}")];
        let _: i64 = redis::cmd("DEL").arg(&keys).query_async(&mut redis).await?;
        let holder = hold(&deployment).await?;
        let readers: Vec<_> = [format!("/api/tasks/{id}"), "/api/tasks".to_owned()]
            .into_iter()
            .map(|path| {
                let api = deployment.api.clone();
                tokio::spawn(async move { answer(api.get(&path)).await })
            })
            .collect();
        let (api, writer_id) = (deployment.api.clone(), id.clone());
        let title = format!("new {round}");
        let patch = json!({ "title": title });
        let writer = tokio::spawn(async move { api.patch(&writer_id, &patch).await });
        waiting(&deployment).await?;
        holder.batch_execute("rollback").await?;
        for reader in readers {
            assert!(reader.await??.status.is_success());
        }
        assert!(writer.await??.status.is_success());
        assert_eq!(deployment.api.read(&id).await?["title"], title.as_str());
        assert_eq!(deployment.api.list("").await?[0]["title"], title.as_str());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_and_writers_never_go_back_in_time() -> Result<()> {
    const WRITERS: usize = 3;
    const READERS: usize = 5;
    const ROUNDS: u64 = 25;
    let deployment = Deployment::start().await?;
    let mut clients = Vec::new();
    for writer in 0..WRITERS {
        let task = deployment.api.create(&json!({ "title": "0" })).await?;
        let id = task["id"].as_str().unwrap().to_owned();
        // The newest version that a finished write has told of.
        let (told, watch) = tokio::sync::watch::channel(1_u64);
        for reader in 0..READERS {
            let (api, id, watch) = (deployment.api.clone(), id.clone(), watch.clone());
            clients.push(tokio::spawn(async move {
                while watch.has_changed().is_ok() {
                    let at_least = *watch.borrow();
                    let task = if (reader + writer) % 2 == 0 {
                        api.read(&id).await?
                    } else {
                        let list = api.list("?limit=100").await?;
                        list.into_iter().find(|task| task["id"] == id.as_str()).expect("the task is listed")
                    };
                    let version = task["version"].as_u64().unwrap();
                    anyhow::ensure!(version >= at_least, "version {version} after {at_least} was told");
                }
                Ok(())
            }));
        }
        let api = deployment.api.clone();
        clients.push(tokio::spawn(async move {
            for round in 1..=ROUNDS {
                let changed = api.patch(&id, &json!({ "title": round.to_string() })).await?;
                told.send(changed.json()?["version"].as_u64().unwrap())?;
            }
            Ok(())
        }));
    }
    for client in clients {
        client.await??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_repeated_after_other_changes_knows_its_own_work() -> Result<()> {
    // As the component does when a connection breaks before the answer: the same statement with the same event.
    let mut deployment = Deployment::start().await?;
    let task = deployment.api.create(&json!({ "title": "new" })).await?;
    deployment.outbox_is_empty().await?;
    deployment.kill_sidecar().await?;
    let id: uuid::Uuid = task["id"].as_str().unwrap().parse()?;
    let database = deployment.database().await?;
    let change = async |event: uuid::Uuid, title: &str| {
        let statement = include_str!("../../../src/store/change_task.sql");
        let (no, none) = (false, None::<String>);
        let (versions, number, tags) = (None::<Vec<i64>>, None::<i16>, None::<Vec<String>>);
        let time = "2026-11-23T00:00:00Z";
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 19] = [
            &id, &event, &time, &none, &versions, &versions, &true, &title, &no, &none, &no, &none, &no,
            &number, &no, &none, &no, &tags, &none,
        ];
        let row = database.query_one(statement, &parameters).await?;
        let document: Option<String> = row.get("document");
        let document: Option<serde_json::Value> =
            document.map(|document| serde_json::from_str(&document)).transpose()?;
        let title = document.map(|document| document["title"].clone());
        anyhow::Ok((title, row.get::<_, Option<i64>>("version"), row.get::<_, bool>("allowed")))
    };
    let [mine, other] = [uuid::Uuid::now_v7(), uuid::Uuid::now_v7()];
    assert_eq!(change(mine, "mine").await?, (Some(json!("mine")), Some(2), true));
    assert_eq!(change(mine, "mine").await?, (Some(json!("mine")), Some(2), true));
    assert_eq!(change(other, "other").await?, (Some(json!("other")), Some(3), true));
    assert_eq!(change(mine, "mine").await?, (Some(json!("mine")), Some(2), true));
    // Its event is published: what it made is not known any more, only that it did.
    database.execute("delete from outbox where id = $1", &[&mine]).await?;
    assert_eq!(change(mine, "mine").await?, (None, None, true));
    assert_eq!(deployment.api.read(&id.to_string()).await?["title"], "other");
    Ok(())
}
