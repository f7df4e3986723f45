use anyhow::Result;
use e2e::{Deployment, Services, answer, eventually};
use redis::AsyncCommands as _;
use reqwest::StatusCode;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_list_is_fresh_after_a_write() -> Result<()> {
    let deployment = Deployment::start().await?;
    let lists = format!("{{{}}}:lists", deployment.cache_key_prefix);
    let mut redis = deployment.redis().await?;
    for count in 1..=5 {
        deployment.api.create(&json!({ "title": format!("task {count}") })).await?;
        assert_eq!(deployment.api.list("").await?.len(), count);
        // Asked for more than once, because the sidecar may drop the lists once more: if its sweep sees
        // the event before the forward comes.
        let redis = redis.clone();
        eventually("the list is in the cache", async || {
            assert_eq!(deployment.api.list("").await?.len(), count);
            let cached: bool = redis.clone().hexists(&lists, "sort=-created_at&limit=20").await?;
            Ok(cached.then_some(()))
        })
        .await?;
    }
    let seconds: i64 = redis.ttl(&lists).await?;
    assert!((1..=60).contains(&seconds), "{seconds}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_list_is_answered_from_the_cache() -> Result<()> {
    let deployment = Deployment::start().await?;
    let lists = format!("{{{}}}:lists", deployment.cache_key_prefix);
    // Under the owner and the lease of an answer that the component has stored itself.
    deployment.api.list("").await?;
    let planted = "\n[{\"from\":\"the cache\"}]";
    let _: () = deployment.redis().await?.hset(&lists, "sort=-created_at&limit=7", planted).await?;
    assert_eq!(deployment.api.list("?limit=7").await?, [json!({ "from": "the cache" })]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_tasks_come_first_and_no_more_than_asked_for() -> Result<()> {
    let deployment = Deployment::start().await?;
    let mut created = Vec::new();
    for number in 0..25 {
        created.insert(0, deployment.api.create(&json!({ "title": format!("task {number}") })).await?);
    }
    assert_eq!(deployment.api.list("").await?, created[..20]);
    assert_eq!(deployment.api.list("?limit=1").await?, created[..1]);
    assert_eq!(deployment.api.list("?limit=100").await?, created);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_writers_at_once_never_see_an_older_list_than_a_finished_write_left() -> Result<()> {
    let deployment = Deployment::start().await?;
    let writers = (0..8).map(|writer| {
        let api = deployment.api.clone();
        tokio::spawn(async move {
            for number in 0..10 {
                let task = api.create(&json!({ "title": format!("{writer}/{number}") })).await?;
                let list = api.list("?limit=100").await?;
                assert!(list.contains(&task), "a write's own list has it");
            }
            anyhow::Ok(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    assert_eq!(deployment.api.list("?limit=100").await?.len(), 80);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_with_one_prefix_never_share_an_answer() -> Result<()> {
    let one = Deployment::start().await?;
    let mut other = Deployment::prepare(&Services::shared()?).await?;
    other.cache_key_prefix.clone_from(&one.cache_key_prefix);
    other.start_sidecar(&[])?;
    other.sidecar_is_ready().await?;
    other.start_application().await?;
    let task = one.api.create(&json!({ "title": "of one" })).await?;
    one.outbox_is_empty().await?;
    let redis = one.redis().await?;
    let lists = format!("{{{}}}:lists", one.cache_key_prefix);
    for _ in 0..20 {
        eventually("the list is in the cache", async || {
            assert_eq!(one.api.list("").await?, std::slice::from_ref(&task));
            let cached: bool = redis.clone().hexists(&lists, "sort=-created_at&limit=20").await?;
            Ok(cached.then_some(()))
        })
        .await?;
        assert!(other.api.list("").await?.is_empty());
    }
    assert!(other.component_log()?.contains("another deployment uses the same keys"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_lists_are_bounded_in_bytes() -> Result<()> {
    const BYTES_MAX: usize = 8 * 1024 * 1024;
    let deployment = Deployment::start().await?;
    let description = "\u{1f4dd}".repeat(10_000);
    let batch: Vec<_> = (0..20).map(|_| json!({ "title": "large", "description": description })).collect();
    for _ in 0..5 {
        let created = answer(deployment.api.post("/api/tasks:batch").json(&batch)).await?;
        assert_eq!(created.status, StatusCode::CREATED);
    }
    deployment.outbox_is_empty().await?;
    // 2 to 4 MB each.
    for limit in (50..=100).step_by(5) {
        assert_eq!(deployment.api.list(&format!("?limit={limit}")).await?.len(), limit);
    }
    let mut redis = deployment.redis().await?;
    let lists = format!("{{{}}}:lists", deployment.cache_key_prefix);
    let values: Vec<Vec<u8>> = redis::cmd("HVALS").arg(&lists).query_async(&mut redis).await?;
    let bytes: usize = values.iter().map(Vec::len).sum();
    assert!((BYTES_MAX / 4..=BYTES_MAX).contains(&bytes), "{bytes} bytes");
    Ok(())
}
