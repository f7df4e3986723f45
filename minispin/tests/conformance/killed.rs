//! A guest that dies in the middle of a call to PostgreSQL: what becomes of its statement, and of the connection
//! that goes back to the pool. Spin recycles connections in the same way (deadpool's `Clean`).

use std::{num::NonZero, thread::available_parallelism};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};

use crate::harness::{Host, database_url, eventually, unique};

/// What a test has of its own: a table in a schema, a name for the guest's sessions, and a connection.
struct Own {
    database: Client,
    /// Also the name of the guest's sessions.
    schema: String,
    /// With that name, so that no other test shares the pool.
    address: String,
}

impl Own {
    async fn new() -> Own {
        let (database, connection) =
            tokio_postgres::connect(&database_url(), NoTls).await.expect("DATABASE_URL");
        tokio::spawn(connection);
        let schema = unique("killed");
        let setup = format!(
            "create schema {schema}; create table {schema}.tasks (id int primary key, version int not null);
             create table {schema}.events (task_id int not null, version int not null);
             insert into {schema}.tasks values (1, 1)"
        );
        database.batch_execute(&setup).await.expect("a schema");
        let address = format!("{}?application_name={schema}", database_url());
        Own { database, schema, address }
    }

    /// The guest's sessions in this state, waiting for a lock or not.
    async fn sessions(&self, state: &str, waiting: bool) -> i64 {
        let query = "select count(*) from pg_stat_activity
                     where application_name = $1 and state = $2 and (wait_event_type is not distinct from 'Lock') = $3";
        self.database.query_one(query, &[&self.schema, &state, &waiting]).await.expect("counted").get(0)
    }

    /// What became of the write: the task's version, and the events about it.
    async fn written(&self) -> (i32, i64) {
        let Own { schema, .. } = self;
        let query = format!("select version, (select count(*) from {schema}.events) from {schema}.tasks");
        let row = self.database.query_one(&query, &[]).await.expect("a task");
        (row.get(0), row.get(1))
    }

    fn call(&self, sql: &str) -> Value {
        json!({ "address": self.address, "sql": sql })
    }

    /// A task and its event with one statement, as this project's component writes them.
    fn write(&self) -> Value {
        let Own { schema, .. } = self;
        self.call(&format!(
            "with changed as (update {schema}.tasks set version = version + 1 where id = 1 returning id, version)
             insert into {schema}.events select id, version from changed"
        ))
    }

    async fn clean_up(self) {
        let drop = format!("drop schema {} cascade", self.schema);
        self.database.batch_execute(&drop).await.expect("cleaned up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_dies_in_its_statement_leaves_it_whole_and_no_transaction_open() {
    let host = Host::start().await;
    let own = Own::new().await;
    let (locker, connection) = tokio_postgres::connect(&database_url(), NoTls).await.expect("DATABASE_URL");
    tokio::spawn(connection);
    let lock = format!("begin; select * from {}.tasks for update", own.schema);
    locker.batch_execute(&lock).await.expect("locked");

    let writing = host.send("/guest/pg/execute", Some(own.write()));
    let killing = async {
        eventually("the statement waits for the lock", || async { own.sessions("active", true).await == 1 })
            .await;
        // Other requests trap, and the instance of each ends with all that it had. The host may give
        // each to another instance, so this goes on until the writing one has had its turn.
        let processors = available_parallelism().map_or(1, NonZero::get);
        loop {
            for trap in join_all((0..2 * processors).map(|_| host.get("/guest/trap/"))).await {
                assert_eq!(trap.status, 500);
            }
        }
    };
    let writing = tokio::select! {
        writing = writing => writing,
        () = killing => unreachable!("it goes on"),
    };
    assert_eq!(writing.status, 500, "the guest was killed, and not only its neighbour");
    assert_eq!(own.written().await, (1, 0), "its statement still waits");

    // PostgreSQL is not told, so the statement goes on when it can, and commits by itself: task and event.
    locker.batch_execute("rollback").await.expect("unlocked");
    eventually("the statement is done", || async { own.sessions("idle", false).await == 1 }).await;
    assert_eq!(own.written().await, (2, 1));

    // The next one gets that connection, outside of any transaction, and what it writes is committed.
    assert_eq!(host.call("pg/execute", own.write()).await, 1);
    assert_eq!(own.written().await, (3, 2));
    let mine = own.call(
        "select pg_current_xact_id_if_assigned()::text, count(*) from pg_stat_activity \
                         where application_name = current_setting('application_name')",
    );
    assert_eq!(host.call("pg/query", mine).await["rows"], json!([["db-null", { "int64": 1 }]]));
    assert_eq!(own.sessions("idle in transaction", false).await, 0);
    own.clean_up().await;
}

/// Why this project's component never begins a transaction: recycling does not end one. It is so on Spin, and a
/// host that was kinder would hide it.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_a_guest_leaves_open_is_the_next_ones() {
    let host = Host::start().await;
    let own = Own::new().await;
    host.call("pg/execute", own.call("begin")).await;
    host.get("/guest/trap/").await;
    assert_eq!(own.sessions("idle in transaction", false).await, 1);
    // A write that is answered as done, and is not committed.
    assert_eq!(host.call("pg/execute", own.write()).await, 1);
    assert_eq!(own.written().await, (1, 0));
    // Unless someone ends it.
    host.call("pg/execute", own.call("commit")).await;
    assert_eq!(own.written().await, (2, 1));
    own.clean_up().await;
}
