//! Changes that happen later by themselves: money becoming available, refunds and disputes settling. It must not read
//! the clock; the caller says what time it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::outbox::{self, Delivery};
use super::state::State;
use super::{disputes, money, payouts, refunds};

/// What will happen. Each variant names the object it happens to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    /// An event is sent again, or at last.
    Deliver(Delivery),
    /// The bank decides about submitted evidence.
    DisputeDecided { dispute: String },
    /// The time to answer is over.
    DisputeLapses { dispute: String },
    /// A pending balance transaction moves to the available balance.
    FundsAvailable { balance_transaction: String },
    /// A payout reaches the bank, or comes back from it.
    PayoutArrives { payout: String },
    /// The customer did not say where the money should go.
    RefundExpires { refund: String },
    /// The bank returns the refund.
    RefundFails { refund: String },
    /// The bank's reference number arrives.
    RefundReferenced { refund: String },
    /// A pending refund goes through.
    RefundSucceeds { refund: String },
}

impl Change {
    pub(super) fn apply(self, state: &mut State) {
        match self {
            Self::Deliver(delivery) => outbox::put(state, delivery),
            Self::DisputeDecided { dispute } => disputes::decide(state, &dispute),
            Self::DisputeLapses { dispute } => disputes::lapse(state, &dispute),
            Self::FundsAvailable { balance_transaction } => {
                money::release(state, &balance_transaction);
            }
            Self::PayoutArrives { payout } => payouts::arrive(state, &payout),
            Self::RefundExpires { refund } => {
                refunds::expire(state, &refund);
            }
            Self::RefundFails { refund } => refunds::fail(state, &refund),
            Self::RefundReferenced { refund } => refunds::reference(state, &refund),
            Self::RefundSucceeds { refund } => refunds::succeed(state, &refund),
        }
    }
}

/// The changes to come, ordered by time and then by when they were planned.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Schedule {
    #[serde(with = "pairs")]
    due: BTreeMap<(i64, u64), Change>,
    planned: u64,
}

impl Schedule {
    pub(super) fn add(&mut self, at_ms: i64, change: Change) {
        self.planned += 1;
        self.due.insert((at_ms, self.planned), change);
    }

    pub(super) fn len(&self) -> usize {
        self.due.len()
    }

    /// How many deliveries wait for their time.
    pub(super) fn deliveries(&self) -> usize {
        self.due.values().filter(|change| matches!(change, Change::Deliver(_))).count()
    }

    /// Drops the deliveries that wait for their time.
    pub(super) fn give_up(&mut self) -> usize {
        let before = self.due.len();
        self.due.retain(|_, change| !matches!(change, Change::Deliver(_)));
        before - self.due.len()
    }

    /// When the earliest change is due.
    pub(super) fn next_at(&self) -> Option<i64> {
        self.due.first_key_value().map(|((at_ms, _), _)| *at_ms)
    }

    /// Takes the earliest change if its time has come.
    pub(super) fn take_due(&mut self, now_ms: i64) -> Option<Change> {
        if self.next_at()? > now_ms {
            return None;
        }
        self.due.pop_first().map(|(_, change)| change)
    }
}

/// The state file's JSON has no maps with such keys; a list of pairs says the same.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::Change;

    type Due = BTreeMap<(i64, u64), Change>;

    pub(super) fn serialize<S: Serializer>(due: &Due, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(due)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Due, D::Error> {
        Vec::deserialize(deserializer).map(Due::from_iter)
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Schedule};

    #[test]
    fn changes_come_in_order_of_time_and_never_early() {
        let change = |name: &str| Change::FundsAvailable { balance_transaction: name.to_owned() };
        let mut schedule = Schedule::default();
        for (at, name) in [(20, "b"), (10, "a"), (20, "c"), (30, "d")] {
            schedule.add(at, change(name));
        }
        let taken: Vec<_> = std::iter::from_fn(|| schedule.take_due(20)).collect();
        assert_eq!(taken, [change("a"), change("b"), change("c")]);
    }
}
