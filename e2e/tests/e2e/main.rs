//! Facts about the product, each on a deployment of its own. A test that cannot reach a service fails.

mod publish; // what happens to a task
mod change; // and when it changes
mod conditions; // if it may
mod idempotency; // and if it may have happened already
mod receipts; // where its event is
mod batch; // many at once
mod together; // or many that each come alone
mod linger; // and their events on the way
mod dropped; // or not on the way
mod lists; // filters, orders, pages
mod refuse; // bad input
mod inputs; // and what only looks odd
mod guard; // tokens and origins
mod cache; // fresh reads
mod untrusted; // from a Redis that must not be believed
mod interleavings; // of readers and writers
mod faults; // a part is down or hung
mod foreign; // what others write to the topic
mod transactions; // and have not committed yet
mod backoff; // the broker refuses for a while
mod clocks; // the time of a change is wrong
mod killed; // in the middle of a write
mod given_up; // or left behind by its request
mod order; // versions and gaps
mod replication; // what the broker holds is not readable yet
mod takeover; // a sidecar dies, or has a second one beside it
mod parked; // the broker refuses an event
mod verify; // topic against database
mod standbys; // or four of them
mod positions; // what the sidecar knew of the topic is no longer so
mod topology; // the topic gets other partitions
mod outbox_topic; // or another name
mod versions; // the schema is older or newer than the sidecar
mod session; // or not where the lock is
mod restore; // the database is of another time
mod lost_commits; // or has lost its last changes
mod chaos; // the whole product under faults
mod ingest; // the sidecar's own interface
mod health; // probes of the application
mod operations; // the sidecar's interface for operators
mod settings; // the sidecar's settings
mod clients; // many at once
mod instances; // how the component's instances end
mod documents; // OpenAPI, AsyncAPI and /docs
mod deploy; // files that describe a deployment
mod generated_clients; // what generators make of the documents, against a deployment
mod schema; // the statements fit the migrations
