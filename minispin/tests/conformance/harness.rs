//! A minispin of its own for each test, in this process and on a free port, and a client to ask it.

use std::{env, fmt::Display, net::SocketAddr, path::Path, time::Duration};

use ::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use minispin::{Application, CodeCache, Config, listen};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::oneshot, task::JoinHandle};

/// Nothing that these tests wait for takes long; past it, the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// For seeing that something does not happen. Longer than the deadlines that client libraries have by default.
pub const SUSPENSE: Duration = Duration::from_millis(700);

fn required(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: `cargo xtask test` sets it"))
}

pub fn database_url() -> String {
    required("DATABASE_URL")
}

pub fn redis_url() -> String {
    required("REDIS_URL")
}

/// A name that no other test and no other run has.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::now_v7().simple())
}

/// The manifest of an application that consists of the guest.
pub fn manifest() -> String {
    let guest = required("MINISPIN_GUEST");
    let guest = Path::new(&guest).canonicalize().expect("MINISPIN_GUEST is a file");
    format!(
        r#"
        spin_manifest_version = 2
        [application]
        name = "conformance"
        [variables]
        greeting = {{ default = "hello" }}
        [[trigger.http]]
        route = "/guest/..."
        component = "guest"
        [component.guest]
        source = {guest:?}
        allowed_outbound_hosts = ["postgres://127.0.0.1:*", "redis://127.0.0.1:*", "http://*:*", "https://*:*"]
        variables = {{ greeting = "{{{{ greeting }}}}, world" }}
        "#
    )
}

/// A running minispin.
pub struct Host {
    pub address: SocketAddr,
    pub folder: TempDir,
    client: Client<HttpConnector, Full<Bytes>>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<anyhow::Result<()>>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

impl Host {
    pub async fn start() -> Self {
        Self::start_with(&manifest(), |config| config).await
    }

    pub async fn start_with(manifest: &str, configure: impl FnOnce(Config) -> Config) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("spin.toml");
        std::fs::write(&path, manifest).expect("writing the manifest");
        // The services' own variables must not become the application's.
        let config = Config {
            environment: |_| None,
            cache: CodeCache::Folder(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled")),
            ..Config::new(path)
        };
        let application = Application::load(&configure(config)).expect("the application loads");
        let listener = listen(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(application.serve(listener, async {
            // A test that drops its host wants it gone just the same.
            _ = stopped.await;
        }));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address, folder, client, stop: Some(stop), served }
    }

    /// Asks for a path, and fails if the answer takes longer than anything here should.
    pub async fn get(&self, path: impl Display) -> Answer {
        self.send(path, None).await
    }

    /// A host call by way of the guest.
    pub async fn call(&self, call: impl Display, description: Value) -> Value {
        self.send(format!("/guest/{call}"), Some(description)).await.json()
    }

    /// Sends a request, with a description of a host call if there is one.
    pub async fn send(&self, path: impl Display, body: Option<Value>) -> Answer {
        let uri = format!("http://{}{path}", self.address);
        let request = match body {
            None => Request::get(uri).body(Full::default()),
            Some(body) => Request::post(uri).body(Full::from(body.to_string())),
        };
        let exchange = async {
            let response = self.client.request(request.expect("valid")).await.expect("a response");
            let (parts, body) = response.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            Answer { status: parts.status, headers: parts.headers, body }
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
    }

    /// Sends a request and leaves it without an answer.
    pub async fn hang(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await.expect("sent");
        stream
    }

    /// Runs a query on the test database.
    pub async fn query(&self, sql: &str, params: Value) -> Value {
        self.call("pg/query", json!({ "address": database_url(), "sql": sql, "params": params })).await
    }

    /// Runs a Redis command.
    pub async fn redis(&self, args: Value) -> Value {
        self.call("redis/execute", json!({ "address": redis_url(), "args": args })).await
    }

    /// Begins to stop, and waits until the host has returned.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        // Idle connections of this client must not be what the host waits for.
        tokio::time::timeout(PATIENCE, &mut self.served)
            .await
            .expect("the host stops in time")
            .expect("the host does not panic")
            .expect("the host stops without an error");
    }

    /// The text of one of the guest's log files.
    pub fn log(&self, stream: &str) -> String {
        let path = self.folder.path().join(format!(".spin/logs/guest_{stream}.txt"));
        std::fs::read_to_string(path).expect("the guest's log")
    }
}

/// Polls until the condition holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let poll = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, poll).await.unwrap_or_else(|_| panic!("never came true: {what}"));
}
