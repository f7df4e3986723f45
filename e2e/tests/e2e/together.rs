//! Creations that come together are committed with one statement, and each is answered for itself.

use anyhow::{Result, ensure};
use e2e::{Deployment, LIMIT, answer, eventually};
use reqwest::StatusCode;
use serde_json::json;

use crate::interleavings::{hold, waiting};

/// As many as an instance serves at once, and one more.
const CLIENTS: usize = 17;
const ROUNDS: usize = 5;

/// Creates tasks at once, while the first of them is kept waiting. What each is answered, by title.
async fn create_at_once(deployment: &Deployment, titles: &[String]) -> Result<Vec<StatusCode>> {
    let holder = hold(deployment).await?;
    let create = |title: &String| {
        let request = deployment.api.post("/api/tasks").json(&json!({ "title": title }));
        tokio::spawn(async move { anyhow::Ok(answer(request).await?.status) })
    };
    let first = create(&titles[0]);
    waiting(deployment).await?;
    let others: Vec<_> = titles[1..].iter().map(create).collect();
    holder.batch_execute("rollback").await?;
    let mut statuses = vec![first.await??];
    for other in others {
        statuses.push(other.await??);
    }
    Ok(statuses)
}

#[tokio::test(flavor = "multi_thread")]
async fn creations_that_come_together_are_committed_together() -> Result<()> {
    let deployment = Deployment::start_with(&[("postgres_timeout_ms", "30000")]).await?;
    let database = deployment.database().await?;
    let titles: Vec<_> = (0..CLIENTS).map(|number| number.to_string()).collect();
    eventually("two tasks have one transaction", async || {
        let statuses = create_at_once(&deployment, &titles).await?;
        ensure!(statuses.iter().all(|status| *status == StatusCode::CREATED), "{statuses:?}");
        let most = "select max(count) from (select count(*) from tasks group by xmin::text) as transaction";
        Ok((database.query_one(most, &[]).await?.get::<_, i64>(0) > 1).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_the_database_refuses_takes_no_other_with_it() -> Result<()> {
    let deployment = Deployment::start_with(&[("postgres_timeout_ms", "30000")]).await?;
    let topic = deployment.topic_reader().await?;
    let database = deployment.database().await?;
    database.batch_execute("alter table tasks add constraint refuse check (title not like 'bad%')").await?;
    for round in 0..ROUNDS {
        let titles: Vec<_> = (0..CLIENTS)
            .map(|number| format!("{} {round} {number}", if number == round + 1 { "bad" } else { "good" }))
            .collect();
        for (title, status) in titles.iter().zip(create_at_once(&deployment, &titles).await?) {
            let is_good = title.starts_with("good");
            let expected = if is_good { StatusCode::CREATED } else { StatusCode::INTERNAL_SERVER_ERROR };
            assert_eq!(status, expected, "{title}");
        }
    }
    let total = ROUNDS * (CLIENTS - 1);
    let records = topic.wait_for(|records| records.len() >= total, LIMIT).await?;
    assert_eq!(records.len(), total);
    let rows = database.query_one("select count(*) from tasks", &[]).await?;
    assert_eq!(rows.get::<_, i64>(0), total as i64);
    Ok(())
}
