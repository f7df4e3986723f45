use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use e2e::{Api, Deployment, LIMIT, Told, answer, eventually};
use reqwest::StatusCode;
use serde_json::json;
use tokio::task::JoinHandle;

const SIDECARS: usize = 5;
const WRITERS: usize = 4;

/// Those of the sidecars that say they publish.
async fn publishers(sidecars: &[Deployment]) -> Result<Vec<usize>> {
    let mut publishing = Vec::new();
    for (index, sidecar) in sidecars.iter().enumerate() {
        let ready = answer(sidecar.sidecar_api()?.get("/readyz")).await?;
        ensure!(ready.status == StatusCode::OK, "{}", ready.body);
        if ready.json()?["checks"].get("publisher") != Some(&json!("standby")) {
            publishing.push(index);
        }
    }
    Ok(publishing)
}

/// Sessions that hold the publisher's lock of this database.
async fn lock_holders(deployment: &Deployment) -> Result<i64> {
    let holders = "select count(distinct pid) from pg_locks where locktype = 'advisory' and granted
                   and database = (select oid from pg_database where datname = current_database())";
    Ok(deployment.database().await?.query_one(holders, &[]).await?.get(0))
}

/// Creates tasks and changes each a few times, until it is told to stop.
pub(crate) fn write(api: Api, stop: Arc<AtomicBool>) -> JoinHandle<Result<Told>> {
    tokio::spawn(async move {
        let mut told = Told::default();
        while !stop.load(Ordering::Relaxed) {
            let task = api.create(&json!({ "title": "version 1" })).await?;
            told.note(&task)?;
            let id = task["id"].as_str().context("an id")?;
            for version in 2..=4 {
                let changed = api.patch(id, &json!({ "title": format!("version {version}") })).await?;
                ensure!(changed.status == StatusCode::OK, "{changed:?}");
                told.note(&changed.json()?)?;
            }
        }
        Ok(told)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_sidecars_one_publishes_until_one_is_left_and_every_event_is_there_once() -> Result<()> {
    let first = Deployment::start().await?;
    let topic = first.topic_reader().await?;
    let mut sidecars = vec![first];
    for _ in 1..SIDECARS {
        let mut next = sidecars[0].beside().await?;
        next.start_sidecar(&[])?;
        sidecars.push(next);
    }
    // Forwards go to two of the five; the other three only ever see the outbox.
    sidecars[1].start_application().await?;
    let apis = [sidecars[0].api.clone(), sidecars[1].api.clone()];
    let database = sidecars[0].beside().await?;
    eventually("one publishes and four stand by", async || {
        Ok((publishers(&sidecars).await?.len() == 1).then_some(()))
    })
    .await?;

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| write(apis[writer % 2].clone(), Arc::clone(&stop))).collect();
    // The applications go on when their sidecar is killed, so what is killed is set aside and not dropped.
    let mut killed = Vec::new();
    let mut seen = 0;
    while sidecars.len() > 1 {
        // Some are published under each publisher, so that each has something of the last one's to read back.
        seen = topic.wait_for(|records| records.len() >= seen + 40, LIMIT).await?.len();
        let publishing = publishers(&sidecars).await?;
        let [publisher] = publishing[..] else { panic!("one publishes, and not {publishing:?}") };
        assert_eq!(lock_holders(&database).await?, 1);
        let mut sidecar = sidecars.swap_remove(publisher);
        sidecar.kill_sidecar().await?;
        killed.push(sidecar);
        eventually("another one publishes, and the rest are ready", async || {
            Ok((publishers(&sidecars).await?.len() == 1).then_some(()))
        })
        .await?;
    }
    topic.wait_for(|records| records.len() >= seen + 40, LIMIT).await?;
    stop.store(true, Ordering::Relaxed);
    let mut told = Told::default();
    for writer in writers {
        told.extend(writer.await??);
    }
    database.outbox_is_empty().await?;
    assert_eq!(lock_holders(&database).await?, 1);

    // The last one's own, after which nothing can come any more.
    let last = apis[0].create(&json!({ "title": "the last one" })).await?;
    told.note(&last)?;
    database.outbox_is_empty().await?;
    let id = last["id"].as_str().unwrap();
    let is_last = |record: &xtask::services::TopicRecord| record.key == id;
    let enough = told.events();
    let records =
        topic.wait_for(|records| records.len() >= enough && records.iter().any(is_last), LIMIT).await?;
    told.are_once_and_in_order(&records)
}
