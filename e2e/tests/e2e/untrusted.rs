//! D5: a Redis that answers in time and must not be believed. In each of these cases the cache
//! holds an answer that a finished write made stale.

use anyhow::{Context as _, Result, ensure};
use e2e::proxy::Proxy;
use e2e::{Api, Deployment, Services, answer, directory, eventually};
use redis::aio::MultiplexedConnection;
use reqwest::StatusCode;
use serde_json::{Value, json};
use xtask::services::Redis;

const READS: usize = 20;

async fn own_redis(settings: &[&str]) -> Result<Redis> {
    Redis::start_with(&directory("redis")?, None, settings).await
}

fn services(redis: &Redis) -> Result<Services> {
    Ok(Services { redis_url: redis.url(), ..Services::shared()? })
}

async fn connection(redis: &Redis) -> Result<MultiplexedConnection> {
    Ok(redis::Client::open(redis.url())?.get_multiplexed_async_connection().await?)
}

/// Sends the words of a command.
async fn tell(redis: &Redis, command: &str) -> Result<redis::Value> {
    let mut words = command.split_whitespace();
    let mut sent = redis::cmd(words.next().context("a command")?);
    for word in words {
        sent.arg(word);
    }
    Ok(sent.query_async(&mut connection(redis).await?).await?)
}

async fn info(redis: &Redis, name: &str) -> Result<String> {
    let info: String = redis::cmd("INFO").query_async(&mut connection(redis).await?).await?;
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("{name} in {info}"))?.to_owned())
}

/// Creates a task and reads it and the list until both are in the cache.
async fn cached_task(deployment: &Deployment, redis: &Redis) -> Result<String> {
    let task = deployment.api.create(&json!({ "title": "old" })).await?;
    deployment.outbox_is_empty().await?;
    let id = task["id"].as_str().context("an id")?.to_owned();
    is_cached(deployment, redis, &id).await?;
    Ok(id)
}

async fn is_cached(deployment: &Deployment, redis: &Redis, id: &str) -> Result<()> {
    let prefix = &deployment.cache_key_prefix;
    let connection = connection(redis).await?;
    eventually("task and list are cached", async || {
        let task = answer(deployment.api.get(&format!("/api/tasks/{id}"))).await?;
        ensure!(task.status == StatusCode::OK, "{task:?}");
        deployment.api.list("").await?;
        let (task, list): (bool, bool) = redis::pipe()
            .hexists(format!("{{{prefix}}}:task:{id}"), "task")
            .hexists(format!("{{{prefix}}}:lists"), "sort=-created_at&limit=20")
            .query_async(&mut connection.clone())
            .await?;
        Ok((task && list).then_some(()))
    })
    .await
}

/// Reads the task and the list again and again, by way of several instances.
async fn is_at_version(api: &Api, id: &str, version: u64) -> Result<()> {
    for _ in 0..READS {
        assert_eq!(api.read(id).await?["version"], version);
        let list = api.list("").await?;
        let listed = list.iter().find(|task| task["id"] == id).context("the task is listed")?;
        assert_eq!(listed["version"], version);
    }
    Ok(())
}

async fn change(api: &Api, id: &str) -> Result<()> {
    let changed = api.patch(id, &json!({ "title": "new" })).await?;
    ensure!(changed.status == StatusCode::OK, "{changed:?}");
    Ok(())
}

/// Nothing stale is read while Redis refuses writes, and the cache is used again when it takes
/// them.
async fn a_refusal_is_noticed(
    redis: &Redis,
    deployment: &Deployment,
    refuse: impl AsyncFn() -> Result<()>,
    accept: impl AsyncFn() -> Result<()>,
) -> Result<()> {
    let id = cached_task(deployment, redis).await?;
    refuse().await?;
    change(&deployment.api, &id).await?;
    is_at_version(&deployment.api, &id, 2).await?;
    accept().await?;
    deployment.outbox_is_empty().await?;
    eventually("the sidecar has repeated the invalidation", async || {
        let is_new = |task: &Value| task["version"] == 2;
        let list = deployment.api.list("").await?;
        Ok((is_new(&deployment.api.read(&id).await?) && list.iter().all(is_new)).then_some(()))
    })
    .await?;
    is_cached(deployment, redis, &id).await?;
    is_at_version(&deployment.api, &id, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_from_a_replica() -> Result<()> {
    let redis = own_redis(&[]).await?;
    let deployment = Deployment::start_on(&services(&redis)?).await?;
    // Of a primary that nobody reaches, so that it keeps what it has.
    let refuse = async || tell(&redis, "REPLICAOF 127.0.0.1 1").await.map(drop);
    let accept = async || tell(&redis, "REPLICAOF NO ONE").await.map(drop);
    a_refusal_is_noticed(&redis, &deployment, refuse, accept).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_from_a_primary_without_enough_replicas() -> Result<()> {
    let redis = own_redis(&[]).await?;
    let deployment = Deployment::start_on(&services(&redis)?).await?;
    let refuse = async || tell(&redis, "CONFIG SET min-replicas-to-write 1").await.map(drop);
    let accept = async || tell(&redis, "CONFIG SET min-replicas-to-write 0").await.map(drop);
    a_refusal_is_noticed(&redis, &deployment, refuse, accept).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_from_a_redis_that_cannot_save() -> Result<()> {
    let dir = directory("redis")?;
    // In the way of the snapshot's file.
    let obstacle = dir.join("snapshot");
    let redis = Redis::start_with(&dir, None, &["--save", "3600", "1", "--dbfilename", "snapshot"]).await?;
    let deployment = Deployment::start_on(&services(&redis)?).await?;
    let save = async |status: &str| {
        eventually("a snapshot ends", async || {
            // An error if one is under way.
            let _ = tell(&redis, "BGSAVE").await;
            Ok((info(&redis, "rdb_last_bgsave_status").await? == status).then_some(()))
        })
        .await
    };
    let refuse = async || {
        std::fs::create_dir(&obstacle)?;
        save("err").await
    };
    let accept = async || {
        std::fs::remove_dir(&obstacle)?;
        save("ok").await
    };
    a_refusal_is_noticed(&redis, &deployment, refuse, accept).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_by_a_user_who_may_not_delete() -> Result<()> {
    let redis = own_redis(&[]).await?;
    tell(&redis, "ACL SETUSER app on >secret ~* +@all").await?;
    let mut deployment = Deployment::prepare(&services(&redis)?).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    deployment.start_application_with(&[("redis_auth", "app:secret@")]).await?;
    let refuse = async || {
        // It may delete, and would do so at once.
        deployment.sidecar()?.pause()?;
        tell(&redis, "ACL SETUSER app -del").await.map(drop)
    };
    let accept = async || {
        deployment.sidecar()?.resume()?;
        deployment.outbox_is_empty().await?;
        tell(&redis, "ACL SETUSER app +del").await.map(drop)
    };
    a_refusal_is_noticed(&redis, &deployment, refuse, accept).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_brings_no_stale_answer_back() -> Result<()> {
    let mut redis = own_redis(&[]).await?;
    let deployment = Deployment::start_on(&services(&redis)?).await?;
    let id = cached_task(&deployment, &redis).await?;
    tell(&redis, "SAVE").await?;
    change(&deployment.api, &id).await?;
    deployment.outbox_is_empty().await?;
    redis.kill().await?;
    redis.restart().await?;
    let old: bool = redis::cmd("HEXISTS")
        .arg(format!("{{{}}}:task:{id}", deployment.cache_key_prefix))
        .arg("task")
        .query_async(&mut connection(&redis).await?)
        .await?;
    assert!(old, "the snapshot has the old answer");
    is_at_version(&deployment.api, &id, 2).await?;
    is_cached(&deployment, &redis, &id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_replica_brings_no_stale_answer_back() -> Result<()> {
    let (primary, replica) = (own_redis(&[]).await?, own_redis(&[]).await?);
    tell(&replica, &format!("REPLICAOF 127.0.0.1 {}", primary.port())).await?;
    let proxy = Proxy::start().await?;
    proxy.lead_to(primary.port());
    let redis_url = format!("redis://127.0.0.1:{}", proxy.port());
    let deployment = Deployment::start_on(&Services { redis_url, ..Services::shared()? }).await?;
    let id = cached_task(&deployment, &primary).await?;
    let key = format!("{{{}}}:task:{id}", deployment.cache_key_prefix);
    eventually("the replica has it", async || {
        let found = tell(&replica, &format!("HEXISTS {key} task")).await?;
        Ok((found == redis::Value::Int(1)).then_some(()))
    })
    .await?;
    // What the primary is told from now on is lost with it.
    tell(&replica, "REPLICAOF NO ONE").await?;
    change(&deployment.api, &id).await?;
    deployment.outbox_is_empty().await?;
    proxy.lead_to(replica.port());
    proxy.cut();
    is_at_version(&deployment.api, &id, 2).await?;
    is_cached(&deployment, &replica, &id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_one_shard_is_invalidated() -> Result<()> {
    let redis = own_redis(&["--cluster-enabled", "yes"]).await?;
    let slots: Vec<_> = (0..16_384).map(|slot| slot.to_string()).collect();
    tell(&redis, &format!("CLUSTER ADDSLOTS {}", slots.join(" "))).await?;
    eventually("the cluster is up", async || {
        let reply: String =
            redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection(&redis).await?).await?;
        Ok(reply.contains("cluster_state:ok").then_some(()))
    })
    .await?;
    let deployment = Deployment::start_on(&services(&redis)?).await?;
    let id = cached_task(&deployment, &redis).await?;
    change(&deployment.api, &id).await?;
    is_at_version(&deployment.api, &id, 2).await?;
    deployment.outbox_is_empty().await?;
    eventually("the sidecar has nothing to repeat", async || {
        Ok((cache_check(&deployment).await? == json!("ok")).then_some(()))
    })
    .await
}

async fn cache_check(deployment: &Deployment) -> Result<Value> {
    let ready = answer(deployment.sidecar_api()?.get("/readyz")).await?;
    ensure!(ready.status == StatusCode::OK, "{ready:?}");
    Ok(ready.json()?["checks"]["cache"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_that_keeps_failing_is_shown() -> Result<()> {
    let redis = own_redis(&[]).await?;
    let deployment = Deployment::start_on(&services(&redis)?).await?;
    tell(&redis, "CONFIG SET min-replicas-to-write 1").await?;
    deployment.api.create(&json!({ "title": "a task" })).await?;
    let metric = async |name: &str| {
        let metrics = answer(deployment.sidecar_api()?.get("/metrics")).await?.body;
        let line = metrics.lines().find(|line| line.starts_with(name)).context("the metric")?;
        anyhow::Ok(line.rsplit(' ').next().context("a value")?.parse::<u64>()?)
    };
    let shown = async |is_failing: bool| {
        eventually("readiness and metrics show it", async || {
            let reason = cache_check(&deployment).await?["degraded"]["reason"].clone();
            let names_it = reason.as_str().is_some_and(|reason| reason.contains("NOREPLICAS"));
            let is_pending = metric("cache_invalidation_pending ").await? == 1;
            Ok((names_it == is_failing && is_pending == is_failing).then_some(()))
        })
        .await
    };
    shown(true).await?;
    for counter in ["cache_invalidation_requests_total ", "cache_invalidation_failures_total "] {
        assert!(metric(counter).await? > 0, "{counter}");
    }
    tell(&redis, "CONFIG SET min-replicas-to-write 0").await?;
    shown(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_reply_costs_no_connection() -> Result<()> {
    const READS: u64 = 200;
    let redis = own_redis(&[]).await?;
    let mut deployment = Deployment::prepare(&services(&redis)?).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    deployment.start_application_with(&[("redis_pause_ms", "60000")]).await?;
    for refuse in ["CONFIG SET maxmemory-policy noeviction maxmemory 1", "CONFIG SET min-replicas-to-write 1"]
    {
        // Redis 6 sets one at a time.
        for setting in
            refuse.split_once("SET ").context("settings")?.1.split(' ').collect::<Vec<_>>().chunks(2)
        {
            tell(&redis, &format!("CONFIG SET {}", setting.join(" "))).await?;
        }
        let connections =
            async || Ok::<u64, anyhow::Error>(info(&redis, "total_connections_received").await?.parse()?);
        let before = connections().await?;
        for _ in 0..READS {
            deployment.api.list("").await?;
        }
        let opened = connections().await? - before;
        // An instance serves 128 requests, and opens one.
        assert!(opened < READS / 5, "{opened} connections for {READS} reads after {refuse}");
        tell(&redis, "CONFIG SET maxmemory 0").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_invalidates_although_its_instance_leaves_redis_alone() -> Result<()> {
    let redis = own_redis(&[]).await?;
    let mut deployment = Deployment::prepare(&services(&redis)?).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    deployment.start_application_with(&[("redis_pause_ms", "60000")]).await?;
    let id = cached_task(&deployment, &redis).await?;
    let mut beside = deployment.beside().await?;
    beside.start_application().await?;
    // It would repeat what the component leaves out.
    deployment.sidecar()?.pause()?;

    redis.pause()?;
    let reads = (0..16).map(|_| {
        let (api, id) = (deployment.api.clone(), id.clone());
        tokio::spawn(async move { api.read(&id).await })
    });
    for read in reads.collect::<Vec<_>>() {
        read.await??;
    }
    redis.resume()?;
    is_cached(&beside, &redis, &id).await?;
    change(&deployment.api, &id).await?;
    is_at_version(&beside.api, &id, 2).await?;
    deployment.sidecar()?.resume()?;
    deployment.outbox_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_may_hide_a_commit_invalidates() -> Result<()> {
    // As if the component's first statement had been committed and its answer lost: somebody else
    // makes the change.
    let deployment = Deployment::start().await?;
    let redis_url = Services::shared()?.redis_url;
    let mut redis = redis::Client::open(redis_url)?.get_multiplexed_async_connection().await?;
    let database = deployment.database().await?;
    let task = deployment.api.create(&json!({ "title": "old" })).await?;
    deployment.outbox_is_empty().await?;
    let id = task["id"].as_str().context("an id")?.to_owned();
    let uuid: uuid::Uuid = id.parse()?;
    let path = format!("/api/tasks/{id}");
    let key = format!("{{{}}}:task:{id}", deployment.cache_key_prefix);
    let mut cached = async || {
        answer(deployment.api.get(&path)).await?;
        deployment.api.list("").await?;
        let stored: bool = redis::cmd("HEXISTS").arg(&key).arg("task").query_async(&mut redis).await?;
        ensure!(stored, "the task is cached");
        anyhow::Ok(())
    };

    cached().await?;
    database.execute("update tasks set version = 2 where id = $1", &[&uuid]).await?;
    let patch =
        deployment.api.request("PATCH", &path)?.header("content-type", "application/merge-patch+json");
    let refused = answer(patch.header("if-match", "\"1\"").body("{\"title\":\"new\"}")).await?;
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
    is_at_version(&deployment.api, &id, 2).await?;

    cached().await?;
    database.batch_execute("begin").await?;
    database.execute("update tasks set version = 3 where id = $1", &[&uuid]).await?;
    let unknown = deployment.api.patch(&id, &json!({ "title": "new" })).await?;
    assert_eq!(unknown.status, StatusCode::SERVICE_UNAVAILABLE);
    database.batch_execute("commit").await?;
    is_at_version(&deployment.api, &id, 3).await?;

    for (path, body, key) in [
        ("/api/tasks", json!({ "title": "new" }), None),
        ("/api/tasks", json!({ "title": "new" }), Some("a key")),
        ("/api/tasks:batch", json!([{ "title": "new" }]), None),
    ] {
        let listed = deployment.api.list("").await?.len();
        cached().await?;
        database.batch_execute("begin; lock table tasks in exclusive mode").await?;
        let new = uuid::Uuid::now_v7();
        let columns = "title, description, status, priority, due_at, tags, version, created_at, updated_at";
        let copy = format!("insert into tasks (id, {columns}) select $1, {columns} from tasks where id = $2");
        database.execute(&copy, &[&new, &uuid]).await?;
        let mut create = deployment.api.post(path).json(&body);
        if let Some(key) = key {
            create = create.header("idempotency-key", key);
        }
        assert_eq!(answer(create).await?.status, StatusCode::SERVICE_UNAVAILABLE, "{path} {key:?}");
        database.batch_execute("commit").await?;
        assert_eq!(deployment.api.list("").await?.len(), listed + 1, "{path} {key:?}");
    }

    cached().await?;
    database.execute("delete from tasks where id = $1", &[&uuid]).await?;
    let missing = deployment.api.patch(&id, &json!({ "title": "new" })).await?;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(answer(deployment.api.get(&path)).await?.status, StatusCode::NOT_FOUND);
    Ok(())
}
