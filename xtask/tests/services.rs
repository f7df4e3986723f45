//! The services start, answer, and leave nothing behind: also where they are paused, killed, or their owner is.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;
use xtask::process::Process;
use xtask::repository;
use xtask::services::{Kafka, KafkaVersion, Postgres, Redis, Service, TopicReader};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn postgresql_keeps_its_data_through_a_kill_and_stands_still_while_paused() -> Result<()> {
    let dir = fresh_dir("postgres")?;
    let mut postgres = Postgres::start(&dir, None).await?;
    let client = connect(&postgres.url()).await?;
    client.batch_execute("create table kept (n int); insert into kept values (7)").await?;

    postgres.pause()?;
    assert!(timeout(Duration::from_millis(300), client.simple_query("select 1")).await.is_err());
    postgres.resume()?;
    client.simple_query("select 1").await?;

    postgres.kill().await?;
    assert!(connect(&postgres.url()).await.is_err());
    postgres.restart().await?;
    let n: i32 = connect(&postgres.url()).await?.query_one("select n from kept", &[]).await?.get(0);
    assert_eq!(n, 7);

    postgres.pause()?;
    leaves_nothing(postgres.process().id(), postgres);
    Ok(())
}

#[tokio::test]
async fn redis_answers_stops_and_answers_again_on_the_same_port() -> Result<()> {
    let mut redis = Redis::start(&fresh_dir("redis")?, None).await?;
    let port = redis.port();
    ping(port).await?;
    assert!(redis.stop().await?.success());
    assert!(ping(port).await.is_err());
    redis.restart().await?;
    ping(port).await?;
    redis.pause()?;
    assert!(timeout(Duration::from_millis(300), ping(port)).await.is_err());
    redis.resume()?;
    ping(port).await?;
    leaves_nothing(redis.process().id(), redis);
    Ok(())
}

#[tokio::test]
async fn kafka_4_4_keeps_its_records_and_the_console_consumer_reads_them() -> Result<()> {
    kafka_keeps_its_records(KafkaVersion::V4_4).await
}

#[tokio::test]
async fn kafka_3_0_keeps_its_records_and_the_console_consumer_reads_them() -> Result<()> {
    kafka_keeps_its_records(KafkaVersion::V3_0).await
}

/// The owner is this test itself, started a second time with `OWNER` set.
#[tokio::test]
async fn what_a_killed_process_had_started_is_killed_and_so_is_what_it_had_paused() -> Result<()> {
    const OWNER: &str = "XTASK_TEST_IS_OWNER";
    let dir = repository::data_dir()?.join("test/xtask/owner");
    repository::create_dir(&dir)?;
    if std::env::var_os(OWNER).is_some() {
        let running = Process::spawn("running", Command::new("sleep").arg("600"), &dir.join("log"))?;
        let paused = Process::spawn("paused", Command::new("sleep").arg("600"), &dir.join("log"))?;
        paused.pause()?;
        println!("\n{} {}", running.id(), paused.id());
        std::future::pending::<()>().await;
    }
    let mut owner = Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            "what_a_killed_process_had_started_is_killed_and_so_is_what_it_had_paused",
            "--nocapture",
        ])
        .env(OWNER, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(owner.stdout.take().context("piped")?);
    let is_ids =
        |line: &String| line.split(' ').count() == 2 && line.split(' ').all(|id| id.parse::<u32>().is_ok());
    let ids = output.lines().map_while(Result::ok).find(is_ids).context("the owner started nothing")?;
    let alive = || ids.split(' ').any(|id| running(id.parse().unwrap()));
    assert!(alive());
    owner.kill()?;
    owner.wait()?;
    let gone = async {
        while alive() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, gone).await.context("children outlive their owner")
}

async fn kafka_keeps_its_records(version: KafkaVersion) -> Result<()> {
    let mut kafka = Kafka::start(version, &fresh_dir(&format!("kafka-{version}"))?, None).await?;
    let reader = TopicReader::start(&kafka.bootstrap(), "records").await?;
    create_topic(&kafka).await?;
    produce(&kafka, "before").await?;
    let records = reader.wait_for(|records| records.len() == 1, LIMIT).await?;
    assert_eq!((records[0].key.as_str(), records[0].value.as_str()), ("key", "before"));
    assert_eq!(records[0].header("name"), Some("value:with,signs"));
    assert_eq!((records[0].partition, records[0].offset), (0, 0));

    kafka.kill().await?;
    kafka.restart().await?;
    produce(&kafka, "after").await?;
    let records = reader.wait_for(|records| records.len() == 2, LIMIT).await?;
    assert_eq!((records[1].offset, records[1].value.as_str()), (1, "after"));
    kafka.stop_all().await?;
    leaves_nothing(kafka.process().id(), kafka);
    Ok(())
}

async fn create_topic(kafka: &Service) -> Result<()> {
    let client = ClientBuilder::new(vec![format!("127.0.0.1:{}", kafka.port())]).build().await?;
    client.controller_client()?.create_topic("records", 1, 1, 5_000).await?;
    Ok(())
}

async fn produce(kafka: &Service, value: &str) -> Result<()> {
    let client = ClientBuilder::new(vec![format!("127.0.0.1:{}", kafka.port())]).build().await?;
    let partition = client.partition_client("records", 0, UnknownTopicHandling::Retry).await?;
    let record = Record {
        key: Some(b"key".to_vec()),
        value: Some(value.as_bytes().to_vec()),
        headers: [("name".to_owned(), b"value:with,signs".to_vec())].into(),
        timestamp: rskafka::chrono::DateTime::UNIX_EPOCH,
    };
    timeout(LIMIT, partition.produce(vec![record], Compression::NoCompression)).await??;
    Ok(())
}

async fn connect(url: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn ping(port: u16) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"PING\r\n").await?;
    stream.read_exact(&mut [0; 7]).await?;
    Ok(())
}

/// Nothing that was started in `id`'s name is there once its owner has dropped it.
fn leaves_nothing<S>(id: u32, service: S) {
    drop(service);
    assert!(!running(id), "process {id} is still there");
}

fn running(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // A zombie runs no more; it waits for whoever adopted it.
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

fn fresh_dir(name: &str) -> Result<PathBuf> {
    let dir = repository::data_dir()?.join("test/xtask").join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(dir.parent().context("a directory of its own")?)?;
    Ok(dir)
}
