//! Which partition an event's record is in, for every number of partitions that the topic has had.
//!
//! A layout places events from its begin offsets on. What stands before them was placed by an older one. Pure.

use uuid::Uuid;

use crate::partition;

/// A number of partitions, and for each partition the offset from which on it places events; 0 where there is none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Layout {
    pub partitions: u32,
    pub begin_offsets: Vec<i64>,
}

impl Layout {
    /// One that has been there from the topic's beginning.
    pub fn from_the_beginning(partitions: u32) -> Layout {
        Layout { partitions, begin_offsets: vec![0; partitions as usize] }
    }

    pub fn begin_offset(&self, partition: u32) -> i64 {
        self.begin_offsets.get(partition as usize).copied().unwrap_or(0)
    }
}

/// The layouts of a topic, oldest first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Layouts(Vec<Layout>);

impl Layouts {
    /// As they are stored; if none are, the topic has always had `partitions`.
    pub fn new(stored: Vec<Layout>, partitions: u32) -> Layouts {
        if stored.is_empty() {
            Layouts(vec![Layout::from_the_beginning(partitions)])
        } else {
            Layouts(stored)
        }
    }

    /// The partition of a task for the layout in force at this place. A record of the task belongs here if it is this one.
    pub fn home_at(&self, task_id: Uuid, partition: u32, offset: i64) -> u32 {
        let in_force = self.0.iter().rev().find(|layout| layout.begin_offset(partition) <= offset);
        let in_force = in_force.or(self.0.first());
        in_force.map_or(0, |layout| partition::of_task(task_id, layout.partitions))
    }

    /// Every partition in which records of a task may be.
    pub fn homes(&self, task_id: Uuid) -> impl Iterator<Item = u32> {
        self.0.iter().map(move |layout| partition::of_task(task_id, layout.partitions))
    }

    /// Where each layout but the last one ends, oldest first: all that it placed comes before all that the next one did.
    pub fn changes(&self) -> impl Iterator<Item = &Layout> {
        self.0.iter().skip(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grown() -> Layouts {
        let second = Layout { partitions: 6, begin_offsets: vec![10, 20, 0, 0, 0, 0] };
        Layouts::new(vec![Layout::from_the_beginning(3), second], 6)
    }

    #[test]
    fn a_record_belongs_where_the_layout_of_its_time_placed_it() {
        // A task that moves.
        let of = |task, count| partition::of_task(Uuid::from_u128(task), count);
        let task = (0..).find(|task| of(*task, 3) != of(*task, 6)).unwrap();
        let (old, new) = (of(task, 3), of(task, 6));
        let home = |partition, offset| grown().home_at(Uuid::from_u128(task), partition, offset);
        assert_eq!((home(0, 9), home(0, 10), home(1, 19), home(1, 20)), (old, new, old, new));
        // Empty at the change, or new: all of it is of the new layout.
        assert_eq!((home(2, 0), home(5, 0)), (new, new));
        assert_eq!(grown().homes(Uuid::from_u128(task)).collect::<Vec<_>>(), [old, new]);
    }

    #[test]
    fn without_stored_layouts_there_is_one() {
        let layouts = Layouts::new(Vec::new(), 4);
        assert_eq!(layouts.changes().count(), 0);
        let task = Uuid::from_u128(7);
        assert_eq!(layouts.home_at(task, 3, 1_000), partition::of_task(task, 4));
    }

    proptest! {
        #[test]
        fn a_home_is_one_of_the_tasks_homes(task: u128, partition in 0_u32..6, offset in 0_i64..40) {
            let task = Uuid::from_u128(task);
            let home = grown().home_at(task, partition, offset);
            prop_assert!(grown().homes(task).any(|possible| possible == home));
        }
    }
}
