//! The way to each lane. The channels have no bound of their own, because every event that is sent
//! through them holds a share of one that is bounded: the forwards' budget, or the sweep's places.

use contract::Event;
use tokio::sync::mpsc;

use crate::lane::Offered;
use crate::partition;

pub struct Lanes {
    senders: Vec<mpsc::UnboundedSender<Offered>>,
}

impl Lanes {
    /// As many lanes as the topic has partitions, and the end of each for its publisher.
    pub fn new(partitions: u32) -> (Lanes, Vec<mpsc::UnboundedReceiver<Offered>>) {
        let (senders, receivers) = (0..partitions).map(|_| mpsc::unbounded_channel()).unzip();
        (Lanes { senders }, receivers)
    }

    /// Hands the event to the lane of its task. When that has closed, the event is left in the outbox.
    pub fn offer(&self, offered: Offered) {
        let Event { task_id, .. } = offered.event;
        let lane = partition::of_task(task_id, self.senders.len() as u32);
        let _: Result<(), _> = self.senders[lane as usize].send(offered);
    }
}
