use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where an event is on the topic: what the sidecar answers to a forward that was sent with
/// `Prefer: wait=N` (RFC 7240), for each event that the broker acknowledged in time.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Receipt {
    pub event_id: Uuid,
    pub topic: String,
    pub partition: u32,
    pub offset: i64,
}

/// The answer as a whole.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Receipts {
    pub receipts: Vec<Receipt>,
}
