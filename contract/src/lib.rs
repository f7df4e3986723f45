//! What the component and the sidecar agree on: the event, and what is cached in Redis.
//!
//! An event's payload is never parsed and written again on its way: the bytes that the component
//! committed to the outbox are the bytes of the Kafka record, whichever way they travel.

mod event;
mod wire;
mod receipt;

pub mod cache;
pub mod timestamp;

pub use event::{Event, EventType};
pub use receipt::{Receipt, Receipts};
pub use wire::{BATCH_CONTENT_TYPE, DROPPED_EVENTS, EVENTS_PATH, InvalidEvent, SOURCE};
