//! How to tell that a service does its work: by asking it for some, in its own protocol.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rskafka::client::ClientBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::NoTls;

/// A service in trouble may accept a connection and never answer.
const LIMIT: Duration = Duration::from_secs(2);

pub(super) enum Probe {
    Postgres {
        url: String,
    },
    Redis {
        port: u16,
    },
    ZooKeeper {
        port: u16,
    },
    Kafka {
        bootstrap: String,
    },
    /// Of a service whose protocol nobody here speaks: it accepts connections.
    Port {
        port: u16,
    },
}

impl Probe {
    pub(super) async fn answers(&self) -> Result<()> {
        let answer = async {
            match self {
                Probe::Postgres { url } => select_1(url).await,
                Probe::Redis { port } => exchange(*port, "PING\r\n", "+PONG").await,
                Probe::ZooKeeper { port } => exchange(*port, "ruok", "imok").await,
                Probe::Kafka { bootstrap } => find_controller(bootstrap).await,
                Probe::Port { port } => {
                    TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await?;
                    Ok(())
                }
            }
        };
        timeout(LIMIT, answer).await.context("no answer")?
    }
}

async fn select_1(url: &str) -> Result<()> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::select! {
        one = client.query_one("select 1", &[]) => ensure!(one?.get::<_, i32>(0) == 1, "select 1 is not 1"),
        ended = connection => ended?,
    }
    Ok(())
}

async fn exchange(port: u16, question: &str, answer: &str) -> Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(question.as_bytes()).await?;
    let mut got = vec![0; answer.len()];
    stream.read_exact(&mut got).await?;
    ensure!(got == answer.as_bytes(), "{question:?} was answered {:?}", String::from_utf8_lossy(&got));
    Ok(())
}

/// A broker that names a live controller in its metadata has joined the cluster and takes requests to create topics.
async fn find_controller(bootstrap: &str) -> Result<()> {
    let client = ClientBuilder::new(vec![bootstrap.to_owned()]).build().await?;
    client.controller_client()?;
    client.list_topics().await?;
    Ok(())
}
