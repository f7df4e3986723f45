//! spin:redis, row by row as Spin 4.1 answered.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use crate::harness::{Host, SUSPENSE, eventually, redis_url, unique};

fn other(value: &Value) -> &str {
    value["other"].as_str().unwrap_or_else(|| panic!("no `other` error in {value}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn execute_answers_with_the_kinds_of_the_reply() {
    let host = Host::start().await;
    let key = unique("minispin");
    assert_eq!(host.redis(json!(["GET", key])).await, json!(["nil"]));
    assert_eq!(host.redis(json!(["HSET", key, "a", "1"])).await, json!([{ "int64": 1 }]));
    assert_eq!(host.redis(json!(["HMGET", key, "a", "b"])).await, json!([{ "binary": "1" }, "nil"]));
    assert_eq!(host.redis(json!(["PING"])).await, json!([{ "status": "PONG" }]));
    assert_eq!(host.redis(json!(["EXPIRE", key, 60])).await, json!([{ "int64": 1 }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_arrays_are_flattened() {
    let host = Host::start().await;
    let script = "return {1, {'a', {2, false}}, {}, redis.status_reply('FINE')}";
    let answer = host.redis(json!(["EVAL", script, 0])).await;
    let flat = json!([{ "int64": 1 }, { "binary": "a" }, { "int64": 2 }, "nil", { "status": "FINE" }]);
    assert_eq!(answer, flat);
    assert_eq!(host.redis(json!(["EVAL", "return false", 0])).await, json!(["nil"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_reply_keeps_its_code_and_text() {
    let host = Host::start().await;
    let answer = host.redis(json!(["EVAL", "return redis.error_reply('STALE version 3')", 0])).await;
    assert_eq!(other(&answer["error"]), "STALE: version 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_script_is_a_no_script_error() {
    let host = Host::start().await;
    let answer = host.redis(json!(["EVALSHA", "0000000000000000000000000000000000000000", 0])).await;
    assert!(other(&answer["error"]).contains("NoScriptError"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_calls_work_on_keys_and_sets() {
    let host = Host::start().await;
    let key = unique("minispin");
    let call = async |name: &str, args: Value| {
        host.call(format!("redis/{name}"), json!({ "address": redis_url(), "args": args })).await
    };
    assert_eq!(call("get", json!([key])).await, Value::Null);
    assert_eq!(call("set", json!([key, "41"])).await, Value::Null);
    assert_eq!(call("incr", json!([key])).await, 42);
    assert_eq!(call("get", json!([key])).await, "42");
    assert_eq!(call("del", json!([key, "minispin_none"])).await, 1);
    assert_eq!(call("sadd", json!([key, "a", "b", "a"])).await, 2);
    assert_eq!(call("srem", json!([key, "a", "c"])).await, 1);
    assert_eq!(call("smembers", json!([key])).await, json!(["b"]));
    assert_eq!(call("publish", json!([key, "nobody listens"])).await, Value::Null);
    assert_eq!(call("del", json!([key])).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_on_the_wrong_kind_of_value_fail_as_spin_words_it() {
    let host = Host::start().await;
    let key = unique("minispin");
    let description = |args: Value| json!({ "address": redis_url(), "args": args });
    host.redis(json!(["SET", key, "text", "EX", 60])).await;
    let answer = host.call("redis/incr", description(json!([key]))).await;
    let expected =
        "An error was signalled by the server - ResponseError: value is not an integer or out of range";
    assert_eq!(other(&answer["error"]), expected);
    let answer = host.call("redis/sadd", description(json!([key, "a"]))).await;
    assert!(other(&answer["error"]).starts_with("WRONGTYPE: "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_invalid_or_not_allowed_is_refused() {
    let host = Host::start().await;
    for address in
        ["redis://cache.example.com", "http://127.0.0.1:1", "rediss://127.0.0.1:1", "not an address"]
    {
        let answer = host.call("redis/get", json!({ "address": address, "args": ["x"] })).await;
        assert_eq!(answer, json!({ "error": "invalid-address" }), "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_opens_256_connections_and_no_more() {
    let host = Host::start().await;
    let answer = host.call("redis/open-many", json!({ "address": redis_url() })).await;
    assert_eq!(answer, json!({ "opened": 256, "then": "too-many-connections" }));
}

/// Forwards to the real Redis until it is told to go, and says what it has seen.
struct Proxy {
    address: String,
    go: Arc<Notify>,
    accepted: tokio::task::JoinHandle<()>,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("redis://{}", listener.local_addr().expect("bound"));
        let redis = url::Url::parse(&redis_url()).expect("REDIS_URL is a URL");
        let target = format!("{}:{}", redis.host_str().expect("host"), redis.port().unwrap_or(6379));
        let go = Arc::new(Notify::new());
        let told = go.clone();
        let accepted = tokio::spawn(async move {
            let (mut inbound, _) = listener.accept().await.expect("accepted");
            // Gone before the connection is: whoever tries to reconnect finds nobody.
            drop(listener);
            let mut outbound = TcpStream::connect(target).await.expect("REDIS_URL answers");
            tokio::select! {
                _ = copy_bidirectional(&mut inbound, &mut outbound) => {}
                () = told.notified() => {}
            }
        });
        Self { address, go, accepted }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_is_a_broken_pipe_and_then_a_refused_connection() {
    let host = Host::start().await;
    let proxy = Proxy::start().await;
    let list = unique("minispin");
    let description = json!({ "address": proxy.address, "args": [list] });
    let mut answer = std::pin::pin!(host.call("redis/until-gone", description));

    let blocked = async {
        eventually("the guest waits for the list", || async {
            let clients = host.redis(json!(["CLIENT", "LIST"])).await;
            clients[0]["binary"].as_str().expect("a list").contains("cmd=blpop")
        })
        .await;
    };
    tokio::select! {
        early = &mut answer => panic!("the guest did not wait: {early}"),
        () = blocked => {}
    }
    proxy.go.notify_one();
    proxy.accepted.await.expect("the proxy is gone");

    let answer = answer.await;
    assert!(other(&answer[0]).contains("broken pipe"), "{answer}");
    assert!(other(&answer[1]).contains("broken pipe"), "{answer}");
    assert!(other(&answer[2]).contains("Connection refused"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_waited_for() {
    let host = Host::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("redis://{}", listener.local_addr().expect("bound"));
    let mut answer = std::pin::pin!(host.call("redis/get", json!({ "address": address, "args": ["x"] })));

    // First the connection's opening is left unanswered, then the command: neither gives up.
    let (mut guest, _) = tokio::select! {
        early = &mut answer => panic!("answered {early}"),
        accepted = listener.accept() => accepted.expect("accepted"),
    };
    assert!(tokio::time::timeout(SUSPENSE, &mut answer).await.is_err(), "gave up opening");
    let mut asked = [0; 1024];
    let mut server = std::pin::pin!(async {
        loop {
            let count = guest.read(&mut asked).await.expect("the guest keeps the connection");
            let commands = asked[..count].windows(3).filter(|word| word == b"GET").count();
            if count == 0 || commands > 0 {
                break;
            }
            // What the client library says of itself at the start: two commands.
            guest.write_all(b"+OK\r\n+OK\r\n").await.expect("written");
        }
    });
    tokio::select! {
        early = &mut answer => panic!("answered {early}"),
        () = &mut server => {}
    }
    assert!(tokio::time::timeout(SUSPENSE, &mut answer).await.is_err(), "gave up waiting for the reply");
}
