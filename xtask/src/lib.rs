//! The real services that this project runs on, fetched once and started at will: PostgreSQL, Redis, Apache Kafka.
//!
//! `cargo xtask up` and `cargo xtask test` start the shared ones; the end-to-end tests start private ones, to stop, kill
//! and pause. Nothing that was started here outlives the process that started it, however that process ends.

pub mod repository; // where things are, and who may reach them
pub mod once; // what is fetched once
pub mod services; // what is started from what was fetched
pub mod tools; // what checks documents and dependencies
pub mod spin; // whether it is here
pub mod progress; // what the person in front of it sees
pub mod process; // one child: its group, its log, its end
mod watchdog; // what a killed process could not clean up
