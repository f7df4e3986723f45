//! Outbound HTTP: what is reached, what is refused, and under which error code.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::harness::{Host, manifest};

/// Answers every request with its own head, and counts connections.
async fn echo() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(converse(stream));
        }
    });
    (url, connections)
}

async fn converse(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        head.extend_from_slice(&buffer[..count]);
        if head.ends_with(b"\r\n\r\n") {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
            head.splice(0..0, answer.into_bytes());
            if stream.write_all(&head).await.is_err() {
                return;
            }
            head.clear();
        }
    }
}

async fn get(host: &Host, url: &str) -> Value {
    host.call(format!("http/get?url={url}"), Value::Null).await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_share_connections_and_carry_the_right_host() {
    let host = Host::start().await;
    let (url, connections) = echo().await;
    for _ in 0..5 {
        let answer = get(&host, &format!("{url}/path")).await;
        assert_eq!(answer["status"], 200, "{answer}");
        let head = answer["body"].as_str().expect("text").to_lowercase();
        assert!(head.starts_with("get /path http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: {}\r\n", url.trim_start_matches("http://"))), "{head}");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_spins_error_codes() {
    let host = Host::start().await;
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("bound");
    let closed = format!("http://{}/", socket.local_addr().expect("bound"));
    for (url, code) in [
        (closed.as_str(), "ConnectionRefused"),
        ("http://nowhere.invalid/", "DnsError"),
        ("https://127.0.0.1/", "does not speak https"),
    ] {
        let answer = get(&host, url).await;
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(code)), "{url}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_breaks_off_is_a_protocol_error() {
    let host = Host::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let broken = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        stream.write_all(b"not HTTP\r\n\r\n").await.expect("written");
    });
    let answer = get(&host, &url).await;
    assert_eq!(answer, json!({ "error": "ErrorCode::HttpProtocolError" }));
    broken.await.expect("served");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_manifest_does_not_list_is_denied() {
    let (url, connections) = echo().await;
    let manifest = manifest().replace("\"http://*:*\"", "\"http://127.0.0.1:1\"");
    let host = Host::start_with(&manifest, |config| config).await;
    assert_eq!(get(&host, &url).await, json!({ "error": "ErrorCode::HttpRequestDenied" }));
    assert_eq!(connections.load(Ordering::Relaxed), 0);
}
