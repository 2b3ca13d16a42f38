//! How long events stay: by age and size, longer while somebody has still to read them, and up to a hard limit even then.
//! Pure rules, and the questions to the log that they need; when they are asked is the gateway's business.

use super::feed::{Error, Feed};
use crate::config::Events;
use crate::domain::clock::UnixMillis;
use crate::domain::limits::EVENT_MARK_DAYS_MIN;

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// How many times its size the log may take while events in it are not acknowledged.
const HARD_SIZES: u64 = 2;

/// A named subscription that has still to acknowledge what lies behind a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What it is known by.
    pub subscription: String,
    /// It needs every event behind this.
    pub position: u64,
}

/// Up to where events may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Up to here they are older, or the log is larger, than it should be.
    pub soft: u64,
    /// Up to here they are so by so much that no subscription holds them; at most `soft`.
    pub hard: u64,
    /// Up to here the gateway itself has read them.
    pub read: Read,
}

/// How far the gateway's own readers have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// The one that settles operations: what it has not read never goes.
    pub settled: u64,
    /// All others: what they have not read stays up to the hard limit.
    pub followed: u64,
}

/// What goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Departure {
    /// Every event up to this position.
    pub up_to: u64,
    /// What subscriptions have not acknowledged of it.
    pub lost: Vec<Loss>,
}

/// Events that a subscription will never get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What the subscription is known by.
    pub subscription: String,
    /// The position of the first of them.
    pub first: u64,
    /// The position of the last of them.
    pub last: u64,
}

impl Limits {
    /// What goes while subscriptions hold what they have not acknowledged.
    #[must_use]
    pub fn departure(self, holds: &[Hold]) -> Departure {
        let held = holds.iter().map(|hold| hold.position).fold(self.read.followed, u64::min);
        let up_to = self.soft.min(held).max(self.hard.min(self.soft)).min(self.read.settled);
        let lost = holds.iter().filter(|hold| hold.position < up_to).map(|hold| Loss {
            subscription: hold.subscription.clone(),
            first: hold.position.saturating_add(1),
            last: up_to,
        });
        Departure { up_to, lost: lost.collect() }
    }
}

impl Feed {
    /// Up to where events may go at the time `now`, if the gateway itself has read them so far. The newest event never
    /// goes.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn limits(&self, kept: &Events, now: UnixMillis, read: Read) -> Result<Limits, Error> {
        let older = async |days: u32| self.store().event_position_at(before(now, days)).await;
        let larger = async |bytes: u64| self.store().event_position_within(bytes).await;
        let soft = older(kept.retention_days).await?.max(larger(kept.retention_bytes).await?);
        let hard_bytes = kept.retention_bytes.saturating_mul(HARD_SIZES);
        let hard = older(kept.retention_hard_days).await?.max(larger(hard_bytes).await?);
        let newest = *self.head().borrow();
        let read = Read { settled: read.settled.min(newest.saturating_sub(1)), ..read };
        Ok(Limits { soft: soft.saturating_sub(1), hard: hard.saturating_sub(1), read })
    }

    /// Removes the events up to `position`, and the marks that are old enough at the time `now` of those that have left
    /// before. What is told to subscriptions is told before.
    ///
    /// # Errors
    /// When the store failed; what is left is removed the next time.
    pub async fn expire(&self, position: u64, now: UnixMillis) -> Result<(), Error> {
        Ok(self.store().expire_events(position, before(now, EVENT_MARK_DAYS_MIN)).await?)
    }
}

/// The time so many days before another.
fn before(now: UnixMillis, days: u32) -> UnixMillis {
    now.saturating_sub(i64::from(days).saturating_mul(DAY_MS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(settled: u64, followed: u64) -> Read {
        Read { settled, followed }
    }

    fn hold(position: u64) -> Hold {
        Hold { subscription: format!("at-{position}"), position }
    }

    #[test]
    fn without_subscriptions_the_soft_limit_counts_and_what_the_gateway_has_read() {
        let up_to = |soft, settled| Limits { soft, hard: 1, read: read(settled, 99) }.departure(&[]).up_to;
        assert_eq!((up_to(5, 9), up_to(9, 5)), (5, 5));
    }

    #[test]
    fn what_follows_the_log_holds_it_until_the_hard_limit_and_what_settles_for_good() {
        let up_to = |hard, settled| Limits { soft: 10, hard, read: read(settled, 4) }.departure(&[]).up_to;
        assert_eq!((up_to(2, 99), up_to(8, 99), up_to(8, 3)), (4, 8, 3));
    }

    #[test]
    fn a_subscription_holds_what_it_has_not_acknowledged_until_the_hard_limit() {
        let limits = |hard| Limits { soft: 10, hard, read: read(99, 99) };
        let holds = [hold(7), hold(4)];
        assert_eq!(limits(2).departure(&holds), Departure { up_to: 4, lost: vec![] });
        let lost =
            |position: u64| Loss { subscription: format!("at-{position}"), first: position + 1, last: 8 };
        assert_eq!(limits(8).departure(&holds), Departure { up_to: 8, lost: vec![lost(7), lost(4)] });
    }

    proptest! {
        #[test]
        fn nothing_goes_that_is_not_due_and_nothing_is_lost_untold(
            soft in 0_u64..20, hard in 0_u64..20, settled in 0_u64..20, followed in 0_u64..20,
            held in prop::collection::vec(0_u64..20, 0..4),
        ) {
            let holds: Vec<_> = held.iter().copied().map(hold).collect();
            let Departure { up_to, lost } = Limits { soft, hard, read: read(settled, followed) }.departure(&holds);
            prop_assert!(up_to <= soft && up_to <= settled && up_to <= followed.max(hard));
            for hold in &holds {
                let told = lost.iter().any(|loss| {
                    loss.subscription == hold.subscription && (loss.first, loss.last) == (hold.position + 1, up_to)
                });
                prop_assert_eq!(told, hold.position < up_to);
                prop_assert!(up_to <= hold.position.max(hard));
            }
        }
    }
}
