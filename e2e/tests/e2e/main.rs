//! Facts about the product, each on a deployment of its own. A test that cannot reach a service fails.

mod publish; // what happens to a task
mod refuse; // bad input
mod cache; // fresh reads
mod faults; // a part is down or hung
mod order; // versions and gaps
mod ingest; // the sidecar's own interface
mod clients; // many at once
mod schema; // the statements fit the migrations
