//! The way to each lane. The channels have no bound of their own, because every event that is sent
//! through them holds a share of one that is bounded: the forwards' budget, or the sweep's places.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::offered::Offered;
use crate::partition;

/// What this sidecar does with an event that it is given.
#[derive(Clone, Default)]
pub enum Role {
    /// Not known yet.
    #[default]
    Starting,
    /// Wakes the sidecar that publishes.
    Standby,
    Publishing(Arc<Lanes>),
}

/// The present role, for everybody who asks.
#[derive(Clone, Default)]
pub struct Roles {
    present: Arc<RwLock<Role>>,
}

impl Roles {
    pub fn get(&self) -> Role {
        self.present.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, role: Role) {
        *self.present.write().unwrap_or_else(PoisonError::into_inner) = role;
    }
}

pub struct Lanes {
    senders: Vec<mpsc::UnboundedSender<Offered>>,
}

impl Lanes {
    /// As many lanes as the topic has partitions, and the end of each for its publisher.
    pub fn new(partitions: u32) -> (Lanes, Vec<mpsc::UnboundedReceiver<Offered>>) {
        let (senders, receivers) = (0..partitions).map(|_| mpsc::unbounded_channel()).unzip();
        (Lanes { senders }, receivers)
    }

    pub fn count(&self) -> usize {
        self.senders.len()
    }

    /// The lane, and so the partition, of a task.
    pub fn of_task(&self, task_id: Uuid) -> u32 {
        partition::of_task(task_id, self.senders.len() as u32)
    }

    /// Hands an event to its task's lane. When that has closed, the event is left in the outbox.
    pub fn offer(&self, lane: u32, offered: Offered) {
        let _: Result<(), _> = self.senders[lane as usize].send(offered);
    }
}
