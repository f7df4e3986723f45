//! An event on its way to its lane, and what goes with it: a share of the sidecar's memory, and who waits for the offset.

use contract::Event;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// An event, offered to the lane of its task.
#[derive(Debug)]
pub struct Offered {
    pub event: Event,
    /// The outbox was seen without an older event of the task: what came before it is published.
    pub oldest: bool,
    /// The number of the event's row in the outbox; none if the event was pushed.
    pub seq: Option<i64>,
    pub companion: Companion,
}

/// What goes with an event, whatever way the event itself takes.
#[derive(Debug, Default)]
pub struct Companion {
    /// The event's share of the sidecar's memory.
    #[expect(dead_code, reason = "given back by being dropped, when the event is done with")]
    pub hold: Option<OwnedSemaphorePermit>,
    /// Who waits for the event's offset. Dropped without a word when that cannot be told any more.
    pub receipt: Option<oneshot::Sender<i64>>,
}

/// What an event takes of a batch and of the sidecar's memory: its payload and tracestate, and
/// roughly what key, other headers and bookkeeping come to.
pub fn event_bytes(event: &Event) -> usize {
    const OVERHEAD_BYTES: usize = 512;
    let tracestate_bytes = event.tracestate.as_ref().map_or(0, String::len);
    event.payload.get().len() + tracestate_bytes + OVERHEAD_BYTES
}
