//! The system as its operator sees it: services, a sidecar, the application on its host; started,
//! killed, and looked at from outside. The tests stand in `tests/e2e/`.

mod deployment;
mod api;
mod topic;
mod told;
mod wait;
mod tool;
pub mod proxy; // on the ways between the parts
pub mod pooler; // and one that shares the sessions of PostgreSQL
pub mod chaos; // all of it, under faults

pub use api::{Answer, Api, answer};
pub use deployment::foreign::{PARTITIONS, RemovalsHeld, sum};
pub use deployment::{Deployment, Services, directory, kafka_version};
pub use told::Told;
pub use tool::run_tool;
pub use topic::Topic;
pub use wait::{LIMIT, eventually};
pub use xtask::services::TopicRecord;
