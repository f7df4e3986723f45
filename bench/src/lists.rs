//! The statement of a page, however many tasks there are.

use std::time::Instant;

use anyhow::{Context, Result};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};
use xtask::progress::say;
use xtask::repository;
use xtask::services::Postgres;

const PAGE_ROWS: i64 = 20;
/// Enough for a median that the machine's other work does not move.
const REPETITIONS: usize = 41;

#[derive(clap::Args)]
pub struct Options {
    /// Tasks of the large table
    #[arg(long, default_value_t = 1_000_000)]
    tasks: i32,
    /// Print the plans of the large table as well
    #[arg(long)]
    explain: bool,
}

/// What the statement's template is filled in with, as `src/store/statements.rs` does.
struct Order {
    name: &'static str,
    key: &'static str,
    key_text: &'static str,
    key_type: &'static str,
    ascending: bool,
}

const ORDERS: [Order; 8] = [
    order("created_at", "created_at", "created_at::text", "timestamptz", true),
    order("-created_at", "created_at", "created_at::text", "timestamptz", false),
    order("updated_at", "updated_at", "updated_at::text", "timestamptz", true),
    order("-updated_at", "updated_at", "updated_at::text", "timestamptz", false),
    order("due_at", DUE, DUE_TEXT, "timestamptz", true),
    order("-due_at", DUE, DUE_TEXT, "timestamptz", false),
    order("priority", "priority", "priority::text", "int2", true),
    order("-priority", "priority", "priority::text", "int2", false),
];
const DUE: &str = "coalesce(due_at, 'infinity')";
const DUE_TEXT: &str = "coalesce(due_at, 'infinity')::text";

/// Name, and the values of $1 to $5: status, priority, tag, due before, words.
type Filter = (&'static str, [Option<&'static str>; 5]);

const FILTERS: [Filter; 7] = [
    ("status=done, half of all", [Some("done"), None, None, None, None]),
    ("priority=high, a third", [None, Some("2"), None, None, None]),
    ("tag, one in 10", [None, None, Some("tag 7"), None, None]),
    ("tag, one in 1,000", [None, None, Some("rare 7"), None, None]),
    ("q, one in 7", [None, None, None, None, Some("weekly")]),
    ("q, one in 1,000", [None, None, None, None, Some("word7")]),
    ("due_before, the first 100th", [None, None, None, Some("2026-01-04T15:36:00Z"), None]),
];

const fn order(
    name: &'static str,
    key: &'static str,
    key_text: &'static str,
    key_type: &'static str,
    ascending: bool,
) -> Order {
    Order { name, key, key_text, key_type, ascending }
}

pub async fn run(options: Options) -> Result<()> {
    let dir = repository::data_dir()?.join("bench/lists");
    let _ = std::fs::remove_dir_all(&dir);
    let postgres = Postgres::start(&dir, None).await?;
    let (client, connection) = tokio_postgres::connect(&postgres.url(), NoTls).await?;
    tokio::spawn(connection);
    for migration in migrations()? {
        client.batch_execute(&migration).await?;
    }

    fill(&client, 0, 1_000).await?;
    let small = measure(&client).await?;
    say("Filling", format_args!("the table with {} tasks", options.tasks));
    fill(&client, 1_000, options.tasks).await?;
    let large = measure(&client).await?;

    println!(
        "| page of {PAGE_ROWS} | 1,000 tasks, ms | {} tasks, ms | ratio |\n| --- | ---: | ---: | ---: |",
        options.tasks
    );
    for ((name, small), (_, large)) in small.iter().zip(&large) {
        println!("| {name} | {small:.2} | {large:.2} | {:.2} |", large / small);
    }
    if options.explain {
        explain(&client).await?;
    }
    postgres.stop().await?;
    Ok(())
}

/// In the order of their numbers, which refinery applies them in.
pub(super) fn migrations() -> Result<Vec<String>> {
    let directory = repository::root().join("migrations");
    let mut files: Vec<_> =
        std::fs::read_dir(directory)?.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
    files.sort();
    files.iter().map(|file| std::fs::read_to_string(file).context("reading a migration")).collect()
}

/// Tasks as they come in a year, one every half minute; the same ones each time.
async fn fill(client: &Client, from: i32, to: i32) -> Result<()> {
    let statement = "
        insert into tasks (id, title, description, status, priority, due_at, tags, version, created_at, updated_at)
        select uuidv7(created_at - now()), 'Task number ' || n || ' word' || n % 1000,
               case when n % 7 = 0 then 'A weekly matter, described at some length, as people do' end,
               (array['todo', 'done'])[1 + n % 2], n % 3,
               case when n % 4 > 0 then timestamptz '2026-01-01' + n % 100000 * interval '315 seconds' end,
               array['tag ' || n % 10, 'rare ' || n % 1000], 1, created_at, created_at + n % 977 * interval '1 minute'
        from (
            select n, timestamptz '2026-01-01' + n * interval '30 seconds' as created_at
            from generate_series($1::int4, $2::int4 - 1) as n
        ) as numbered";
    client.execute(statement, &[&from, &to]).await?;
    client.batch_execute("vacuum (analyze) tasks").await?;
    Ok(())
}

async fn measure(client: &Client) -> Result<Vec<(String, f64)>> {
    let mut times = Vec::new();
    for order in &ORDERS {
        times.push((format!("{}, first", order.name), median(client, order, &[None; 5], None).await?));
        let last = Some(before_the_last_page(client, order).await?);
        times.push((format!("{}, last", order.name), median(client, order, &[None; 5], last).await?));
    }
    for (name, filter) in &FILTERS {
        times.push(((*name).to_owned(), median(client, &ORDERS[1], filter, None).await?));
    }
    Ok(times)
}

/// Key and id of the task after which the last page begins.
async fn before_the_last_page(client: &Client, order: &Order) -> Result<(String, String)> {
    let Order { key, key_text, ascending, .. } = order;
    let direction = if *ascending { "desc" } else { "asc" };
    let query = format!(
        "select {key_text}, id::text from tasks order by {key} {direction}, id {direction} limit 1 offset {PAGE_ROWS}"
    );
    let row = client.query_one(&query, &[]).await?;
    Ok((row.get(0), row.get(1)))
}

/// Milliseconds, prepared each time as Spin does it.
async fn median(
    client: &Client,
    order: &Order,
    filter: &[Option<&str>; 5],
    after: Option<(String, String)>,
) -> Result<f64> {
    let statement = statement(order)?;
    let mut times = Vec::new();
    for _ in 0..REPETITIONS {
        let started = Instant::now();
        ask(client, &statement, filter, after.as_ref()).await?;
        times.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[REPETITIONS / 2])
}

async fn ask(
    client: &Client,
    statement: &str,
    filter: &[Option<&str>; 5],
    after: Option<&(String, String)>,
) -> Result<Vec<tokio_postgres::Row>> {
    let [status, priority, tag, due_before, words] = filter;
    let priority: Option<i16> = priority.map(str::parse).transpose()?;
    let tags = tag.map(|tag| vec![tag]);
    let (key, id) = after.map(|(key, id)| (key.as_str(), id.as_str())).unzip();
    // The id goes as text and is cast, which saves a type.
    let statement = statement.replace("$7::uuid", "($7::text)::uuid");
    let parameters: [&(dyn ToSql + Sync); 9] =
        [status, &priority, &tags, due_before, words, &key, &id, &PAGE_ROWS, &0_i64];
    Ok(client.query(&statement, &parameters).await?)
}

fn statement(order: &Order) -> Result<String> {
    let template = std::fs::read_to_string(repository::root().join("src/store/list_tasks.sql"))?;
    let (direction, after) = if order.ascending { ("asc", ">") } else { ("desc", "<") };
    Ok(template
        .replace("{key_text}", order.key_text)
        .replace("{key}", order.key)
        .replace("{type}", order.key_type)
        .replace("{direction}", direction)
        .replace("{after}", after))
}

async fn explain(client: &Client) -> Result<()> {
    for order in &ORDERS {
        let last = Some(before_the_last_page(client, order).await?);
        for (page, after) in [("first", None), ("last", last)] {
            let statement = format!("explain (analyze, costs off, timing off)\n{}", statement(order)?);
            println!("\n{}, {page} page:", order.name);
            for row in ask(client, &statement, &[None; 5], after.as_ref()).await? {
                println!("    {}", row.get::<_, &str>(0));
            }
        }
    }
    Ok(())
}
