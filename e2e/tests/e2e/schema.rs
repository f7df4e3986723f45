use anyhow::{Context as _, Result, ensure};
use e2e::{Deployment, LIMIT, Services, answer};
use serde_json::json;
use xtask::repository;

const TASKS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_fits_the_migrated_schema() -> Result<()> {
    let mut deployment = Deployment::prepare(&Services::shared()?).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    let database = deployment.database().await?;
    let mut statements = 0;
    for directory in ["src/store", "sidecar/src/outbox", "sidecar/src/leader"] {
        for file in std::fs::read_dir(repository::root().join(directory))? {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "sql") {
                continue;
            }
            // One is a template; `lists` asks for every order that it is filled in with.
            let statement = std::fs::read_to_string(&path)?
                .replace("{key_text}", "id::text")
                .replace("{key}", "id")
                .replace("{type}", "uuid")
                .replace("{direction}", "desc")
                .replace("{after}", "<");
            database.prepare(&statement).await.with_context(|| format!("preparing {}", path.display()))?;
            // Of the kinds that have a plan: none that begins or ends a transaction, or changes the session, which
            // a host's pool would hand to whoever comes next.
            let plan = format!("explain (generic_plan) {statement}");
            let plan = database.batch_execute(&plan).await;
            plan.with_context(|| format!("{} is not a single statement on data", path.display()))?;
            statements += 1;
        }
    }
    ensure!(statements >= 12, "only {statements} statements found");
    Ok(())
}

/// A plan that is made while the outbox is small is kept when it has grown.
#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_never_reads_all_of_the_outbox() -> Result<()> {
    let mut deployment = Deployment::prepare(&Services::shared()?).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    deployment.start_application().await?;
    let topic = deployment.topic_reader().await?;
    deployment.stop_sidecar().await?;
    let by_the_migrations = whole_reads(&deployment).await?;

    for number in 0..TASKS {
        deployment.api.create(&json!({ "title": number.to_string() })).await?;
    }
    deployment.start_sidecar(&[])?;
    topic.wait_for(|records| records.len() >= TASKS, LIMIT).await?;
    deployment.stop_sidecar().await?;
    ensure!(whole_reads(&deployment).await? == by_the_migrations, "a sequential scan");
    Ok(())
}

/// Sequential scans of the outbox, when the sidecar's sessions have ended, which tell what they did at their end.
async fn whole_reads(deployment: &Deployment) -> Result<i64> {
    deployment.sidecar_sessions_are_gone().await?;
    let database = deployment.database().await?;
    let scans = "select seq_scan from pg_stat_user_tables where relid = 'outbox'::regclass";
    Ok(database.query_one(scans, &[]).await?.get(0))
}

/// The component may be newer than the schema by one migration.
#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_sends_tracestate_works_before_its_migration() -> Result<()> {
    let mut deployment = Deployment::prepare(&Services::shared()?).await?;
    let database = deployment.database().await?;
    let mut migrations = Vec::new();
    for file in std::fs::read_dir(repository::root().join("migrations"))? {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
        let Some((version, _)) = name.strip_prefix('V').and_then(|name| name.split_once("__")) else {
            continue;
        };
        migrations.push((version.parse::<u32>()?, path));
    }
    migrations.sort();
    for (_, path) in migrations.iter().filter(|(version, _)| *version < 14) {
        database.batch_execute(&std::fs::read_to_string(path)?).await?;
    }
    deployment.start_application().await?;
    let trace =
        [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("tracestate", "a=1")];
    let mut path = "/api/tasks".to_owned();
    for (method, body) in
        [("POST", json!({ "title": "a" })), ("PATCH", json!({ "title": "b" })), ("DELETE", json!(null))]
    {
        let request = deployment.api.request(method, &path)?.json(&body);
        let request = trace.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answered = answer(request).await?;
        ensure!(answered.status.is_success(), "{method}: {answered:?}");
        if let Some(location) = answered.header("location") {
            path = location.to_owned();
        }
    }
    let batch = answer(deployment.api.post("/api/tasks:batch").json(&json!([{ "title": "c" }]))).await?;
    ensure!(batch.status.is_success(), "{batch:?}");
    let rows: i64 = database.query_one("select count(*) from outbox", &[]).await?.get(0);
    ensure!(rows == 4, "{rows} rows");
    Ok(())
}

/// And older.
#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_component_without_tracestate_still_work() -> Result<()> {
    let mut deployment = Deployment::prepare(&Services::shared()?).await?;
    deployment.start_sidecar(&[])?;
    deployment.sidecar_is_ready().await?;
    let database = deployment.database().await?;
    deployment.stop_sidecar().await?;
    let id = "01a205f9-a09b-73f4-be26-740cdb38716f";
    let payload = r#"{"event_type":"TASK_CREATED","data":null}"#;
    let row = format!(
        r#"[{{"id":"01a205f9-a09b-73f4-be26-740cdb387170","title":"b","status":"todo","rank":1,"tags":[],
             "created_at":"2026-01-01T00:00:00Z","event_id":"01a205f9-a09b-73f4-be26-740cdb387171",
             "type":"TASK_CREATED","payload":{}}}]"#,
        json!(payload)
    );
    let calls = format!(
        "select insert_task('{id}', 'a', null, 'todo', 1::int2, null, '{{}}', now(), gen_random_uuid(),
                            'TASK_CREATED', '{payload}', null);
         select insert_tasks('{row}');
         select * from change_task('{id}', gen_random_uuid(), now(), null, null, null, true, 'b', false, null,
                                   false, null, false, null, false, null, false, null);
         select * from delete_task('{id}', gen_random_uuid(), now(), null, null, null);"
    );
    database.batch_execute(&calls).await?;
    let count = "select count(*), count(tracestate) from outbox";
    let row = database.query_one(count, &[]).await?;
    ensure!((row.get::<_, i64>(0), row.get::<_, i64>(1)) == (4, 0), "{row:?}");
    Ok(())
}
