//! Requests in: routes, limits, traps, logs and the stop.

use std::{collections::BTreeMap, num::NonZero, thread::available_parallelism, time::Duration};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::harness::{Host, PATIENCE, database_url, eventually, manifest};

#[tokio::test(flavor = "multi_thread")]
async fn the_guest_sees_a_full_uri_and_spins_headers() {
    let host = Host::start().await;
    let answer = host.get("/guest/a/b?c=d").await.json();
    let uri = format!("http://{}/guest/a/b?c=d", host.address);
    assert_eq!((&answer["method"], &answer["uri"]), (&json!("GET"), &json!(uri)));
    let headers = &answer["headers"];
    assert_eq!(headers["spin-full-url"], json!(uri));
    assert_eq!(headers["spin-path-info"], "/a/b");
    assert_eq!(headers["spin-component-route"], "/guest");
    assert_eq!(headers["spin-raw-component-route"], "/guest/...");
    assert!(headers["spin-client-addr"].as_str().expect("text").starts_with("127.0.0.1:"));
    assert_eq!(headers.get("host"), None, "wasi:http keeps it in the URI");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_without_a_route_is_404_and_the_health_path_is_spins() {
    let host = Host::start().await;
    for path in ["/", "/guestbook", "/.well-known/spin/nothing"] {
        let answer = host.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-length")), (404, Some("0")), "{path}");
    }
    let health = host.get("/.well-known/spin/health").await;
    assert_eq!((health.status.as_u16(), &health.body[..]), (200, &b"OK"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_are_filled_in_and_unknown_ones_undefined() {
    let flags = vec![("greeting".to_owned(), "good morning".to_owned())];
    let host = Host::start_with(&manifest(), |config| minispin::Config { variables: flags, ..config }).await;
    assert_eq!(host.call("variables/greeting", Value::Null).await, "good morning, world");
    let unknown = host.call("variables/nope", Value::Null).await;
    assert!(unknown["error"].as_str().expect("text").starts_with("Error::Undefined("), "{unknown}");
    let invalid = host.call("variables/No", Value::Null).await;
    assert!(invalid["error"].as_str().expect("text").starts_with("Error::InvalidName("), "{invalid}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_is_a_500_for_its_own_request_only() {
    let host = Host::start().await;
    let trap = host.get("/guest/trap/").await;
    assert_eq!((trap.status.as_u16(), trap.header("content-length")), (500, Some("0")));
    assert_eq!(host.get("/guest/fine").await.status, 200);
    assert!(host.log("stderr").contains("as the test asked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_guest_prints_is_appended_to_its_logs() {
    let host = Host::start().await;
    host.call("log/once", Value::Null).await;
    host.call("log/twice", Value::Null).await;
    assert_eq!(host.log("stdout"), "out once\nout twice\n");
    assert_eq!(host.log("stderr"), "err once\nerr twice\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_past_the_limit_is_turned_away_with_a_503() {
    let host = Host::start_with(&manifest(), |config| minispin::Config {
        requests_max: 1,
        shutdown_max: Duration::ZERO,
        ..config
    })
    .await;
    let _hanging = host.hang("/guest/hang/").await;
    eventually("the hanging request takes the only place", || async {
        let answer = host.get("/guest/fine").await;
        let refused = answer.status == 503;
        if refused {
            assert_eq!(
                (answer.header("retry-after"), answer.header("content-length")),
                (Some("1"), Some("0"))
            );
        }
        refused
    })
    .await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_gives_its_place_back() {
    let host = Host::start_with(&manifest(), |config| minispin::Config {
        connections_max: 1,
        head_timeout: Duration::from_millis(50),
        ..config
    })
    .await;
    let mut half = TcpStream::connect(host.address).await.expect("connected");
    half.write_all(b"GET /guest/fine HT").await.expect("sent");
    assert_eq!(host.get("/guest/fine").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_nobody_takes_gives_its_place_back() {
    let host = Host::start_with(&manifest(), |config| minispin::Config {
        connections_max: 1,
        write_timeout: Duration::from_millis(50),
        ..config
    })
    .await;
    // More than the kernel takes in for a client that does not read.
    let call = json!({ "address": database_url(), "sql": "select repeat('x', 32000000)", "params": [] });
    let call = call.to_string();
    let mut reader = TcpStream::connect(host.address).await.expect("connected");
    let head = format!("POST /guest/pg/query HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", call.len());
    reader.write_all((head + &call).as_bytes()).await.expect("sent");
    assert_eq!(host.get("/guest/fine").await.status, 200);
}

/// As on Spin, requests can wait behind a guest that computes for ever. The host itself goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_computes_for_ever_does_not_keep_the_host_from_stopping() {
    let host =
        Host::start_with(&manifest(), |config| minispin::Config { shutdown_max: Duration::ZERO, ..config })
            .await;
    let _busy = host.hang("/guest/spin/").await;
    eventually("it computes", || async { host.log("stdout").contains("computing") }).await;
    assert_eq!(host.get("/.well-known/spin/health").await.status, 200);
    // It is abandoned with the host, or this test's threads would never be free again.
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_has_as_many_requests_at_once_as_on_spin_and_the_others_have_the_rest() {
    const REQUESTS: usize = 40;
    let host = Host::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let held = async {
        let mut instances: BTreeMap<String, usize> = BTreeMap::new();
        let mut calls = Vec::new();
        while calls.len() < REQUESTS {
            let (stream, _) = listener.accept().await.expect("accepted");
            let mut call = BufReader::new(stream);
            let mut line = String::new();
            call.read_line(&mut line).await.expect("a request");
            *instances.entry(line).or_default() += 1;
            calls.push(call);
        }
        for mut call in calls {
            call.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("answered");
        }
        instances
    };
    let held = tokio::time::timeout(PATIENCE, held);
    let requests = join_all((0..REQUESTS).map(|_| host.call(format!("held/{address}"), Value::Null)));
    let (instances, answers) = tokio::join!(held, requests);
    let instances = instances.expect("all of them call");
    assert!(answers.iter().all(|answer| answer["status"] == 200), "{answers:?}");
    assert!(instances.values().all(|requests| *requests <= 16), "{instances:?}");
    let processors = available_parallelism().map_or(1, NonZero::get);
    assert!(instances.len() <= processors.max(REQUESTS / 2), "{instances:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_what_the_guest_does_after_its_response() {
    let host = Host::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    assert_eq!(host.call(format!("later/{address}/forwarded"), Value::Null).await, Value::Null);

    let stopping = tokio::spawn(host.stop());
    let (mut stream, _) =
        tokio::time::timeout(PATIENCE, listener.accept()).await.expect("the guest calls").expect("accepted");
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.expect("a request");
    assert_eq!(&head, b"GET /forwarded ");
    assert!(!stopping.is_finished(), "the host left while its guest was at work");
    drop(stream);
    drop(listener);
    stopping.await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_requests_in_flight_and_leaves_those_that_hang() {
    let limit = Duration::from_millis(300);
    let host =
        Host::start_with(&manifest(), |config| minispin::Config { shutdown_max: limit, ..config }).await;
    let mut hanging = host.hang("/guest/hang/").await;
    host.get("/guest/fine").await;
    let begun = std::time::Instant::now();
    host.stop().await;
    assert!(begun.elapsed() >= limit);
    // Abandoned, the guest can answer no more: its client gets an error or the connection's end.
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, hanging.read_to_end(&mut rest)).await.expect("closed");
    assert!(read.is_err() || rest.is_empty() || rest.starts_with(b"HTTP/1.1 500 "), "{rest:?}");
}
