//! spin:postgres, row by row as Spin 4.1 answered.

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use crate::harness::{Host, SUSPENSE, database_url, eventually, unique};

/// A connection of the test's own, besides the guest's.
async fn direct() -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&database_url(), NoTls).await.expect("DATABASE_URL");
    tokio::spawn(connection);
    client
}

fn text_of<'v>(value: &'v Value, path: &str) -> &'v str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {path} in {value}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_a_timestamptz_starts_and_fails_with_the_end_of_rows() {
    let host = Host::start().await;
    let answer = host.query("select now(), 1", json!([])).await;
    assert_eq!(answer["columns"][0], json!(["now", "DbDataType::Datetime"]), "{answer}");
    assert_eq!(answer["rows"], json!([]));
    let end = text_of(&answer, "/end/query-failed");
    assert!(end.contains("cannot convert") && end.contains("NaiveDateTime"), "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_timestamp_binds_to_timestamptz() {
    let host = Host::start().await;
    for param in [json!({ "datetime": [2024, 2, 29, 1, 2, 3, 0] }), json!({ "str": "2024-02-29" })] {
        let answer = host.query("select ($1::timestamptz)::text", json!([param])).await;
        let error = text_of(&answer, "/error/query-failed");
        assert!(error.contains("WrongType") && error.contains("Timestamptz"), "{error}");
    }
    let sql = "select extract(epoch from $1::timestamptz)::int8";
    let answer = host.query(sql, json!([{ "timestamp": 1_700_000_000 }])).await;
    assert_eq!(answer["rows"], json!([[{ "int64": 1_700_000_000 }]]), "{answer}");

    let sql = "select extract(epoch from ($1::text)::timestamptz)::int8";
    let answer = host.query(sql, json!([{ "str": "2023-11-14T22:13:20Z" }])).await;
    assert_eq!(answer["rows"], json!([[{ "int64": 1_700_000_000 }]]), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datetime_binds_to_timestamp() {
    let host = Host::start().await;
    let answer =
        host.query("select $1::timestamp", json!([{ "datetime": [2024, 2, 29, 1, 2, 3, 4000] }])).await;
    assert_eq!(answer["rows"], json!([[{ "datetime": [2024, 2, 29, 1, 2, 3, 4000] }]]), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_supported_types_are_read_as_their_own_kinds() {
    let host = Host::start().await;
    let id = "0191d7a4-8b5e-7000-8000-000000000001";
    for (expression, kind, value) in [
        ("true", "Boolean", json!({ "boolean": true })),
        ("1::int2", "Int16", json!({ "int16": 1 })),
        ("2::int4", "Int32", json!({ "int32": 2 })),
        ("3::int8", "Int64", json!({ "int64": 3 })),
        ("1.5::float4", "Floating32", json!({ "floating32": 1.5 })),
        ("2.5::float8", "Floating64", json!({ "floating64": 2.5 })),
        ("'a'::text", "Str", json!({ "str": "a" })),
        ("'b'::varchar(9)", "Str", json!({ "str": "b" })),
        ("'c'::char(2)", "Str", json!({ "str": "c " })),
        ("'\\x0102'::bytea", "Binary", json!({ "binary": [1, 2] })),
        ("'2024-02-29'::date", "Date", json!({ "date": [2024, 2, 29] })),
        ("'01:02:03'::time", "Time", json!({ "time": [1, 2, 3, 0] })),
        (
            "'2024-02-29 01:02:03.5'::timestamp",
            "Datetime",
            json!({ "datetime": [2024, 2, 29, 1, 2, 3, 500_000_000] }),
        ),
        (&format!("'{id}'::uuid"), "Uuid", json!({ "uuid": id })),
        ("'{\"a\": [1]}'::jsonb", "Jsonb", json!({ "jsonb": "{\"a\":[1]}" })),
        ("array['a', null]", "ArrayStr", json!({ "array-str": ["a", null] })),
        ("array[1, null]", "ArrayInt32", json!({ "array-int32": [1, null] })),
        ("array[1::int8]", "ArrayInt64", json!({ "array-int64": [1] })),
        ("null::uuid", "Uuid", json!("db-null")),
    ] {
        let answer = host.query(&format!("select {expression} as it"), json!([])).await;
        assert_eq!(
            answer["columns"],
            json!([["it", format!("DbDataType::{kind}")]]),
            "{expression}: {answer}"
        );
        assert_eq!(answer["rows"], json!([[value]]), "{expression}: {answer}");
        assert_eq!(answer["end"], "ok", "{expression}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_as_json_text_is_rfc_3339() {
    let host = Host::start().await;
    let answer = host.query("select to_json(now()) #>> '{}'", json!([])).await;
    let text = text_of(&answer, "/rows/0/0/str");
    assert!(chrono::DateTime::parse_from_rfc3339(text).is_ok(), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn types_without_a_kind_arrive_as_raw_bytes() {
    let host = Host::start().await;
    let schema = unique("minispin");
    let database = direct().await;
    let setup = format!("create schema {schema}; create type {schema}.mood as enum ('good')");
    database.batch_execute(&setup).await.expect("schema");
    for (expression, ty, bytes) in [
        ("'{\"a\": 1}'::json".to_owned(), "json", "{\"a\": 1}"),
        ("'a name'::name".to_owned(), "name", "a name"),
        (format!("'good'::{schema}.mood"), "mood", "good"),
    ] {
        let answer = host.query(&format!("select {expression} as it"), json!([])).await;
        assert_eq!(answer["columns"], json!([["it", format!("DbDataType::Other({ty:?})")]]), "{answer}");
        assert_eq!(answer["rows"], json!([[{ "unsupported": bytes.as_bytes() }]]), "{answer}");
        assert_eq!(answer["end"], "ok");
    }
    database.batch_execute(&format!("drop schema {schema} cascade")).await.expect("cleaned up");
}

#[tokio::test(flavor = "multi_thread")]
async fn jsonb_binds_to_json_and_null_to_anything() {
    let host = Host::start().await;
    let answer = host.query("select ($1::json) ->> 'a'", json!([{ "jsonb": { "a": "b" } }])).await;
    assert_eq!(answer["rows"], json!([[{ "str": "b" }]]), "{answer}");
    for ty in ["timestamptz", "json", "uuid", "numeric", "point", "text[]"] {
        let answer = host.query(&format!("select $1::{ty} is null"), json!(["db-null"])).await;
        assert_eq!(answer["rows"], json!([[{ "boolean": true }]]), "{ty}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_keep_their_values() {
    let host = Host::start().await;
    let id = "0191d7a4-8b5e-7000-8000-000000000001";
    for (ty, param) in [
        ("boolean", json!({ "boolean": false })),
        ("int4", json!({ "int32": -7 })),
        ("int8", json!({ "int64": i64::MIN })),
        ("text", json!({ "str": "žluťoučký" })),
        ("bytea", json!({ "binary": [0, 255] })),
        ("date", json!({ "date": [2024, 2, 29] })),
        ("uuid", json!({ "uuid": id })),
        ("text[]", json!({ "array-str": ["a", null] })),
        ("int8[]", json!({ "array-int64": [1, null] })),
    ] {
        let answer = host.query(&format!("select $1::{ty}"), json!([param])).await;
        assert_eq!(answer["rows"], json!([[param]]), "{ty}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_minispin_does_not_convert_is_refused_by_name() {
    let host = Host::start().await;
    let answer = host.query("select 1.5::numeric", json!([])).await;
    assert!(text_of(&answer, "/end/query-failed").contains("does not read numeric"), "{answer}");
    let answer = host.query("select $1::numeric is null", json!([{ "decimal": "1.5" }])).await;
    assert!(text_of(&answer, "/error/bad-parameter").contains("does not bind decimal"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bad_parameter_has_another_name_in_execute() {
    let host = Host::start().await;
    let bad = json!({ "address": database_url(), "sql": "select $1::uuid", "params": [{ "uuid": "x" }] });
    let answer = host.call("pg/query", bad.clone()).await;
    assert!(text_of(&answer, "/error/bad-parameter").contains("invalid UUID x"), "{answer}");
    let answer = host.call("pg/execute", bad).await;
    assert!(text_of(&answer, "/error/value-conversion-failed").contains("invalid UUID x"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn execute_counts_rows_and_a_violated_constraint_is_named() {
    let host = Host::start().await;
    let schema = unique("minispin");
    let database = direct().await;
    let setup = format!(
        "create schema {schema}; create table {schema}.task (id int constraint task_key primary key)"
    );
    database.batch_execute(&setup).await.expect("schema");

    let insert = format!("insert into {schema}.task select generate_series(1, $1)");
    let description = json!({ "address": database_url(), "sql": insert, "params": [{ "int32": 3 }] });
    assert_eq!(host.call("pg/execute", description.clone()).await, 3);

    let refused = host.call("pg/execute", description.clone()).await;
    let error = &refused["error"]["db-error"];
    assert_eq!((&error["code"], &error["severity"]), (&json!("23505"), &json!("ERROR")), "{refused}");
    assert!(text_of(error, "/message").contains("duplicate key"), "{refused}");
    assert!(text_of(error, "/detail").contains("(id)=(1)"), "{refused}");
    let extras = error["extras"].as_array().expect("extras");
    assert!(extras.contains(&json!(["constraint", "task_key"])), "{refused}");
    assert!(extras.contains(&json!(["table", "task"])), "{refused}");

    // A query has started by the time that the server refuses the row.
    let late = host.call("pg/query", description).await;
    assert_eq!((&late["columns"], &late["end"]["db-error"]["code"]), (&json!([]), &json!("23505")), "{late}");
    database.batch_execute(&format!("drop schema {schema} cascade")).await.expect("cleaned up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_does_not_parse_fails_at_once() {
    let host = Host::start().await;
    let answer = host.query("selekt 1", json!([])).await;
    assert_eq!(answer["error"]["db-error"]["code"], "42601", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_can_be_asked_for_without_reading_the_rows() {
    let host = Host::start().await;
    for sql in ["select 1 where false", "select generate_series(1, 4)"] {
        let answer = host.call("pg/query-end-only", json!({ "address": database_url(), "sql": sql })).await;
        assert_eq!((&answer["rows"], &answer["end"]), (&json!([]), &json!("ok")), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_arrive_in_order() {
    let host = Host::start().await;
    let answer = host.query("select generate_series(1, 5000)", json!([])).await;
    let expected: Vec<_> = (1..=5000).map(|n| json!([{ "int32": n }])).collect();
    assert_eq!(answer["rows"], Value::Array(expected));
    assert_eq!(answer["end"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blocking_calls_answer_the_same() {
    let host = Host::start().await;
    let description =
        json!({ "address": database_url(), "sql": "select $1::int4 as n", "params": [{ "int32": 7 }] });
    let answer = host.call("pg/query-sync", description.clone()).await;
    assert_eq!(answer, json!({ "columns": [["n", "DbDataType::Int32"]], "rows": [[{ "int32": 7 }]] }));
    assert_eq!(host.call("pg/execute-sync", description.clone()).await, 1);
    // Here the conversion error has no stream to come after.
    let answer =
        host.call("pg/query-sync", json!({ "address": database_url(), "sql": "select now()" })).await;
    assert!(text_of(&answer, "/error/query-failed").contains("NaiveDateTime"), "{answer}");
    // And the builder opens the same connections.
    let answer = host.call("pg/build", description).await;
    assert_eq!(answer["rows"], json!([[{ "int32": 7 }]]), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_refused_by_name() {
    let host = Host::start().await;
    let answer = host.call("pg/query", json!({ "address": "postgres://127.0.0.1/x?sslmode=require" })).await;
    assert!(text_of(&answer, "/error/connection-failed").contains("TLS"), "{answer}");
    let answer = host.call("pg/ca-root", json!({ "address": database_url() })).await;
    assert!(text_of(&answer, "/error/other").contains("TLS"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_allowed_is_refused() {
    let host = Host::start().await;
    for (address, reason) in [
        ("postgres://db.example.com/x", "address postgres://db.example.com:5432 is not permitted"),
        ("host=db.example.com port=5433", "address postgres://db.example.com:5433 is not permitted"),
        ("host=127.0.0.1 hostaddr=192.0.2.1", "address postgres://192.0.2.1 is not permitted"),
        ("host=/var/run/postgresql", "Unix sockets"),
    ] {
        let answer = host.call("pg/query", json!({ "address": address })).await;
        assert!(text_of(&answer, "/error/connection-failed").contains(reason), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_is_down_is_a_failed_connection_without_a_stack_trace() {
    let host = Host::start().await;
    // Bound, not listening: nobody else gets the port meanwhile.
    let socket = tokio::net::TcpSocket::new_v4().expect("socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("bound");
    let port = socket.local_addr().expect("bound").port();
    let answer =
        host.call("pg/query", json!({ "address": format!("postgres://x@127.0.0.1:{port}/x") })).await;
    let error = text_of(&answer, "/error/connection-failed");
    assert!(error.contains("Connection refused") && !error.contains("backtrace"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_comes_back_clean() {
    let host = Host::start().await;
    let backend = "select pg_backend_pid(), current_setting('search_path')";
    let first = host.query(backend, json!([])).await;
    let set = json!({ "address": database_url(), "sql": "set search_path to nowhere" });
    assert_eq!(host.call("pg/execute", set).await, 0);
    assert_eq!(host.query(backend, json!([])).await["rows"], first["rows"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_65th_connection_waits_until_one_is_given_back() {
    let host = std::sync::Arc::new(Host::start().await);
    let database = direct().await;
    // The guest's statements wait for a lock that the test holds.
    let lock = i64::from(uuid::Uuid::now_v7().as_fields().0);
    database.execute("select pg_advisory_lock($1)", &[&lock]).await.expect("locked");
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted \
                   and ((classid::int8 << 32) | objid::int8) = $1";

    let mut holders = JoinSet::new();
    for _ in 0..64 {
        let host = host.clone();
        holders.spawn(async move {
            let sql = "select pg_advisory_lock_shared($1)::text";
            host.query(sql, json!([{ "int64": lock }])).await
        });
    }
    eventually("64 statements wait for the lock", || async {
        database.query_one(waiting, &[&lock]).await.expect("counted").get::<_, i64>(0) == 64
    })
    .await;

    let mut last = std::pin::pin!(host.query("select 1", json!([])));
    assert!(
        tokio::time::timeout(SUSPENSE, &mut last).await.is_err(),
        "the pool has more than 64 connections"
    );
    database.execute("select pg_advisory_unlock($1)", &[&lock]).await.expect("unlocked");
    assert_eq!(last.await["rows"], json!([[{ "int32": 1 }]]));
    while let Some(answer) = holders.join_next().await {
        assert_eq!(answer.expect("answered")["end"], "ok");
    }
}
