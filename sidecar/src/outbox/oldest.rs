//! Where the oldest row may be. Who looks for it again and again does not begin at the very beginning each time: before
//! it there may be a million that are removed, and are in the index until a vacuum.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use uuid::{Builder, Uuid};

/// How long after it was made an id may appear in the outbox, and how far clocks may be apart, without
/// that the row is seen only by a look at all.
const LATE_MAX: Duration = Duration::from_secs(30);

/// What is known of the oldest row.
pub struct Oldest {
    after: Uuid,
    whole_at: Instant,
    /// Every so often a look begins at the very beginning: for rows that were committed long after their ids were made.
    whole_interval: Duration,
}

/// A look, from the row after `after` on.
pub struct Look {
    pub after: Uuid,
    began: SystemTime,
    began_at: Instant,
}

impl Look {
    /// All rows with older ids, but for those that come very late, were there before this look.
    pub fn settled(&self) -> Uuid {
        before(None, self.began)
    }
}

impl Oldest {
    pub fn new(whole_interval: Duration) -> Oldest {
        Oldest { after: Uuid::nil(), whole_at: Instant::now(), whole_interval }
    }

    /// The next look, from the very beginning if it is time for that, or wanted; and then until one succeeds.
    pub fn look(&mut self, is_whole: bool) -> Look {
        if is_whole || self.whole_at.elapsed() >= self.whole_interval {
            self.after = Uuid::nil();
        }
        Look { after: self.after, began: SystemTime::now(), began_at: Instant::now() }
    }

    /// What a look has found.
    pub fn note(&mut self, look: &Look, oldest: Option<Uuid>) {
        if look.after.is_nil() {
            self.whole_at = look.began_at;
        }
        self.after = before(oldest, look.began);
    }
}

/// Where the next look may begin: before everything that this one found, and before what was made
/// while it ran, or shortly before that. Ids are UUIDv7, so they begin with their time.
fn before(oldest: Option<Uuid>, began: SystemTime) -> Uuid {
    let since_1970 = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = since_1970.saturating_sub(LATE_MAX).as_millis() as u64;
    let made = Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
    match oldest {
        // A look begins after the id that it is given.
        Some(oldest) => made.min(Uuid::from_u128(oldest.as_u128().saturating_sub(1))),
        None => made,
    }
}

#[cfg(test)]
mod tests {
    use uuid::{NoContext, Timestamp};

    use super::*;

    #[tokio::test]
    async fn a_look_at_everything_that_failed_is_made_again() {
        let mut oldest = Oldest::new(Duration::from_secs(3_600));
        let first = oldest.look(false);
        assert!(first.after.is_nil());
        oldest.note(&first, None);
        assert!(!oldest.look(false).after.is_nil());
        // Wanted once, and nothing was found out: nobody has noted it.
        assert!(oldest.look(true).after.is_nil());
        let again = oldest.look(false);
        assert!(again.after.is_nil());
        oldest.note(&again, None);
        assert!(!oldest.look(false).after.is_nil());
    }

    #[test]
    fn the_next_look_begins_before_what_was_found_and_what_may_come() {
        let now = 1_800_000_000;
        let id = |seconds| Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, 0));
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        let after = before(None, began);
        assert!(after < id(now - LATE_MAX.as_secs()) && after > id(now - LATE_MAX.as_secs() - 1));
        // What is there already and new does not make it any later, and what is old makes it earlier.
        assert_eq!(before(Some(id(now)), began), after);
        let old = id(now - 3_600);
        assert!(before(Some(old), began) < old && before(Some(old), began) > id(now - 3_601));
    }
}
