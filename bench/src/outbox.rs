//! Whether the sweep stays as fast as it was when a million events went through the outbox: its page, an empty one
//! above all, and the removal, with the sidecar's own statements.
//!
//! What could slow them down are dead rows, which autovacuum removes in its own time, and not at all as long as
//! another session keeps an old snapshot. So each case goes through the same with one thing changed.

use std::time::Instant;

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;
use xtask::progress::say;
use xtask::repository;
use xtask::services::Postgres;

/// What the sweep asks for at once.
const PAGE_ROWS: i64 = 2_048;
/// Events of one insert and of one removal.
const BATCH_EVENTS: i32 = 1_000;
/// What goes through in a second or so.
const EVENTS_PER_SWEEP: i32 = 10 * BATCH_EVENTS;
/// Enough for a median; the first of them is told as well, for it pays for what the next ones find done.
const REPETITIONS: usize = 15;
/// Looks in the course of a case.
const LOOKS: i32 = 5;

#[derive(clap::Args)]
pub struct Options {
    /// Events that go through the outbox in each case
    #[arg(long, default_value_t = 1_000_000)]
    events: i32,
    /// Only the cases whose names contain this
    #[arg(long)]
    case: Option<String>,
    /// Print the plans as well, as they are at the end of each case
    #[arg(long)]
    explain: bool,
}

struct Case {
    name: &'static str,
    /// Of the table, in place of what the migrations say.
    settings: &'static str,
    /// Another session keeps a snapshot from before the first event.
    snapshot: bool,
}

const PLAIN: &str = "alter table outbox reset (autovacuum_enabled, autovacuum_vacuum_scale_factor,
    autovacuum_vacuum_threshold, autovacuum_vacuum_cost_delay, autovacuum_analyze_scale_factor,
    autovacuum_analyze_threshold, vacuum_index_cleanup, vacuum_truncate)";

/// What a table wants whose rows live for milliseconds: vacuum by count, at full speed, its indexes always, and no lock
/// on writers to give back what is needed again a moment later.
const QUEUE: &str = "alter table outbox set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000,
    vacuum_index_cleanup = on, vacuum_truncate = off)";
/// The same with autovacuum looking at it more often than each minute, which only the server's owner can say.
const QUEUE_OFTEN: &str = "alter table outbox set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000,
    vacuum_index_cleanup = on, vacuum_truncate = off);
    alter system set autovacuum_naptime = '1s'; select pg_reload_conf()";

const CASES: [Case; 6] = [
    Case { name: "as migrated", settings: "", snapshot: false },
    Case { name: "PostgreSQL's defaults", settings: PLAIN, snapshot: false },
    Case {
        name: "no autovacuum",
        settings: "alter table outbox set (autovacuum_enabled = false)",
        snapshot: false,
    },
    Case { name: "an old snapshot", settings: "", snapshot: true },
    Case { name: "for a queue", settings: QUEUE, snapshot: false },
    Case { name: "for a queue, vacuum each second", settings: QUEUE_OFTEN, snapshot: false },
];

/// The sidecar's statements, prepared once as it does.
struct Statements {
    page: Statement,
    remove: Statement,
}

/// How it stands after some events, times in milliseconds.
struct Look {
    events: i32,
    /// Nothing in the outbox: the first look, and the median.
    empty: (f64, f64),
    /// The same from the last removed id on.
    bounded: f64,
    /// A full page.
    full: f64,
    /// Removal of that page.
    remove: f64,
    dead_rows: i64,
    table_mib: f64,
    index_mib: f64,
    vacuums: i64,
}

pub async fn run(options: Options) -> Result<()> {
    println!(
        "| case | events | page, empty: first | median | from a bound | page of {PAGE_ROWS} | its removal \
         | dead rows | table, MiB | primary key, MiB | vacuums |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for case in &CASES {
        if options.case.as_ref().is_none_or(|part| case.name.contains(part)) {
            pass(case, &options).await?;
        }
    }
    Ok(())
}

async fn pass(case: &Case, options: &Options) -> Result<()> {
    let dir = repository::data_dir()?.join("bench/outbox");
    let _ = std::fs::remove_dir_all(&dir);
    let postgres = Postgres::start(&dir, None).await?;
    let client = connect(&postgres).await?;
    for migration in super::lists::migrations()? {
        client.batch_execute(&migration).await?;
    }
    for setting in case.settings.split(';') {
        client.batch_execute(setting).await?; // one by one: `alter system` stands in no transaction
    }
    let holder = connect(&postgres).await?;
    if case.snapshot {
        holder.batch_execute("begin isolation level repeatable read; select count(*) from tasks").await?;
    }
    client.batch_execute(&sql("session")?).await?;
    let statements = Statements {
        page: prepare(&client, "outbox/page").await?,
        remove: prepare(&client, "outbox/remove").await?,
    };

    say("Measuring", case.name);
    let mut last = Uuid::nil();
    let mut gone = 0;
    print(case, &look(&client, &statements, gone, last).await?);
    for step in 1..=LOOKS {
        while gone < options.events / LOOKS * step {
            let ids = insert(&client, BATCH_EVENTS).await?;
            // The sweep goes on meanwhile, once a second.
            if gone % EVENTS_PER_SWEEP == 0 {
                client.query(&statements.page, &[&Uuid::nil(), &PAGE_ROWS]).await?;
            }
            last = *ids.last().context("a batch of events")?;
            remove(&client, &statements, &ids).await?;
            gone += BATCH_EVENTS;
        }
        print(case, &look(&client, &statements, gone, last).await?);
    }
    if options.explain {
        explain(&client).await?;
    }
    drop(holder);
    postgres.stop().await?;
    Ok(())
}

async fn look(client: &Client, statements: &Statements, events: i32, last: Uuid) -> Result<Look> {
    let empty = times(client, statements, Uuid::nil(), 0).await?;
    let bounded = times(client, statements, last, 0).await?.1;
    let ids = insert(client, PAGE_ROWS as i32).await?;
    let full = times(client, statements, Uuid::nil(), PAGE_ROWS).await?.1;
    let started = Instant::now();
    remove(client, statements, &ids).await?;
    let remove = millis(started);
    let query = "
        select n_dead_tup, pg_table_size(relid) / 1048576.0::float8,
               pg_relation_size('outbox_pkey') / 1048576.0::float8, autovacuum_count
        from pg_stat_user_tables where relname = 'outbox'";
    let row = client.query_one(query, &[]).await?;
    let (dead_rows, table_mib) = (row.get(0), row.get(1));
    let (index_mib, vacuums) = (row.get(2), row.get(3));
    Ok(Look { events, empty, bounded, full, remove, dead_rows, table_mib, index_mib, vacuums })
}

/// The first and the median time of a page.
async fn times(client: &Client, statements: &Statements, after: Uuid, rows: i64) -> Result<(f64, f64)> {
    let mut times = Vec::new();
    for _ in 0..REPETITIONS {
        let started = Instant::now();
        let page = client.query(&statements.page, &[&after, &PAGE_ROWS]).await?;
        times.push(millis(started));
        anyhow::ensure!(page.len() as i64 == rows, "{} rows in a page of {rows}", page.len());
    }
    let first = times[0];
    times.sort_by(f64::total_cmp);
    Ok((first, times[REPETITIONS / 2]))
}

/// What commits of the component leave in the outbox: events of about 400 bytes.
async fn insert(client: &Client, events: i32) -> Result<Vec<Uuid>> {
    let statement = "
        insert into outbox (id, aggregatetype, aggregateid, type, payload, version, time)
        select uuidv7(), 'task', uuidv7(), 'TASK_CREATED',
               '{\"event_type\": \"TASK_CREATED\", \"data\": \"' || repeat('x', 350) || '\"}', 1, now()
        from generate_series(1, $1::int4)
        returning id";
    let rows = client.query(statement, &[&events]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn remove(client: &Client, statements: &Statements, ids: &[Uuid]) -> Result<()> {
    let (topic, partitions, offsets) = ("task_events", [0_i32, 1, 2], [1_i64, 1, 1]);
    client.execute(&statements.remove, &[&ids, &topic, &&partitions[..], &&offsets[..]]).await?;
    Ok(())
}

async fn connect(postgres: &Postgres) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(&postgres.url(), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn prepare(client: &Client, name: &str) -> Result<Statement> {
    Ok(client.prepare(&sql(name)?).await?)
}

fn sql(name: &str) -> Result<String> {
    let path = repository::root().join(format!("sidecar/src/{name}.sql"));
    std::fs::read_to_string(path).with_context(|| format!("reading {name}.sql"))
}

async fn explain(client: &Client) -> Result<()> {
    let ids = insert(client, PAGE_ROWS as i32).await?;
    let page = format!("explain (analyze, buffers, costs off)\n{}", sql("outbox/page")?);
    println!("\npage:");
    for row in client.query(&page, &[&Uuid::nil(), &PAGE_ROWS]).await? {
        println!("    {:.120}", row.get::<_, &str>(0));
    }
    let removal = format!("explain (analyze, buffers, costs off)\n{}", sql("outbox/remove")?);
    println!("removal:");
    let (topic, partitions, offsets) = ("task_events", [0_i32, 1, 2], [1_i64, 1, 1]);
    for row in client.query(&removal, &[&ids, &topic, &&partitions[..], &&offsets[..]]).await? {
        println!("    {:.120}", row.get::<_, &str>(0));
    }
    println!();
    Ok(())
}

fn millis(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1_000.0
}

fn print(case: &Case, look: &Look) {
    let Look { events, empty: (first, median), bounded, full, remove, dead_rows, .. } = look;
    println!(
        "| {} | {events} | {first:.2} | {median:.2} | {bounded:.2} | {full:.2} | {remove:.2} | {dead_rows} \
         | {:.1} | {:.1} | {} |",
        case.name, look.table_mib, look.index_mib, look.vacuums
    );
}
