//! What an operation takes from budgets: a pure function of its entry. How much a budget holds is said elsewhere.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::outcome::Settled;
use super::state::{Record, State};
use super::transition::{Sending, may_have_taken_effect};
use super::turn::Turn;
use crate::domain::clock::{Moment, UnixMillis};
use crate::domain::operation::Mode;
use crate::domain::planted;

/// How long after a change was asked for its effect may come on record and still count for the time at which it was asked
/// for, in milliseconds. A later one may have happened at any time in between, and counts for the latest.
const ASKED_COUNTS_MS: i64 = 10 * 60_000;
/// What an object's `status` says when the money came back (docs.stripe.com/api/refunds/object, payouts alike).
const RETURNED: [&str; 2] = ["failed", "canceled"];

/// What a call would take from budgets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who calls.
    pub caller: String,
    /// The groups that the caller belongs to.
    pub groups: Vec<String>,
    /// Lower-case three-letter code.
    pub currency: String,
    /// In the currency's smallest unit.
    pub amount: i64,
}

/// What an operation takes from budgets, while it may have taken effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spend {
    /// Who asked for it.
    pub caller: String,
    /// Lower-case three-letter code.
    pub currency: String,
    /// In the currency's smallest unit.
    pub amount: i64,
    /// The time that it counts for.
    pub at_ms: UnixMillis,
    /// Names of the budgets that it counts against.
    pub budgets: Vec<String>,
    /// Whether the money came back, as from a refund that failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returned: bool,
}

/// What one entry of an operation takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// [`Operation::order`](crate::domain::operation::Operation::order).
    pub(super) order: [u8; 32],
    pub(super) mode: Mode,
    pub(super) spend: Spend,
    /// Whether it may yet turn out that nothing was taken.
    pub(super) held: bool,
}

impl Claim {
    /// The same as a spend of this moment against these budgets.
    pub(super) fn spend(self, budgets: Vec<String>, now: Moment) -> Spend {
        let Self { caller, currency, amount, .. } = self;
        Spend { caller, currency, amount, at_ms: now.wall_ms, budgets, returned: false }
    }
}

impl Spend {
    /// The same after its operation moved from one state to another.
    pub(super) fn moved(self, from: &State, to: &State, now: Moment) -> Self {
        let State::Settled(Settled::Succeeded(success)) = to else { return self };
        let first = !matches!(from, State::Settled(Settled::Succeeded(_)));
        let late = now.wall_ms.saturating_sub(self.at_ms) > ASKED_COUNTS_MS;
        let at_ms = if first && late { now.wall_ms } else { self.at_ms };
        let came_back = success.json.as_deref().map(came_back);
        Self { at_ms, returned: came_back.unwrap_or(self.returned), ..self }
    }

    /// The same by what the object says that came of it; `negative` where money goes away below zero.
    pub(super) fn of(self, object: &str, negative: bool) -> Self {
        let object: Value = serde_json::from_str(object).unwrap_or_default();
        let amount = object.get("amount").and_then(Value::as_i64);
        let currency = object.get("currency").and_then(Value::as_str);
        let (Some(amount), Some(currency)) = (amount, currency) else { return self };
        let amount = if negative { amount.saturating_neg() } else { amount };
        Self { amount: amount.max(0), currency: currency.to_owned(), ..self }
    }

    /// The same once an event told a later state of the object.
    pub(super) fn told(self, turn: &Turn) -> Self {
        Self { returned: came_back(&turn.object), ..self }
    }
}

/// Whether an object says that its money came back.
fn came_back(object: &str) -> bool {
    let object: Value = serde_json::from_str(object).unwrap_or_default();
    object.get("status").and_then(Value::as_str).is_some_and(|status| RETURNED.contains(&status))
}

impl Record {
    /// What the operation takes from budgets, as this entry has it.
    pub(super) fn taken(&self) -> Option<Taken> {
        if planted::active("budget-not-held") && self.unresolved() {
            return None;
        }
        let spend = self.spend.as_ref().filter(|spend| !spend.returned && !spend.budgets.is_empty())?;
        may_have_taken_effect(self).then(|| Taken {
            order: self.operation.order(),
            mode: self.operation.mode,
            spend: spend.clone(),
            held: self.unresolved(),
        })
    }
}

/// How a call is sent, once it is known what it would take: stored bytes of which nobody knows the amount are not sent
/// again where a budget speaks of them. Nothing came of them, so the bytes of this call can go instead.
pub(super) fn sending(how: Sending, record: Option<&Record>, claim: Option<&Claim>) -> Sending {
    let unclaimed = record.is_some_and(|record| record.spend.is_none());
    match how {
        Sending::Resend { ambiguous: false } if unclaimed && claim.is_some() => Sending::NextGeneration,
        how => how,
    }
}

/// What the entry that is about to be written takes anew: what this call asks for, or what the stored bytes ask for that
/// are sent again. `None` where an earlier attempt may have taken it already.
pub(super) fn claimed(how: Sending, record: &Record, claim: Option<Claim>) -> Option<Claim> {
    let claim = claim.filter(|_| how != Sending::Resend { ambiguous: true })?;
    let stored = record.spend.as_ref().filter(|_| how == Sending::Resend { ambiguous: false });
    let claim = match stored {
        Some(Spend { currency, amount, .. }) => {
            Claim { currency: currency.clone(), amount: *amount, ..claim }
        }
        None => claim,
    };
    Some(claim).filter(|claim| claim.amount > 0)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{at, outgoing, record, refusal, success, unknown};
    use super::super::outcome::{Stuck, Success, Witness};
    use super::*;

    fn spend() -> Spend {
        let claim = Claim {
            caller: "support".to_owned(),
            groups: Vec::new(),
            currency: "eur".to_owned(),
            amount: 500,
        };
        claim.spend(vec!["daily".to_owned()], at(0))
    }

    fn succeeded(json: Option<&str>) -> State {
        State::Settled(Settled::Succeeded(Success { json: json.map(str::to_owned), ..success() }))
    }

    #[test]
    fn an_operation_takes_its_amount_as_long_as_it_may_have_taken_effect() {
        let in_flight = State::InFlight { outgoing: outgoing("a=1"), ambiguous: false, lease: None };
        let case = Stuck::Absent.into();
        for (state, taken) in [
            (in_flight, Some(true)),
            (unknown(false), Some(true)),
            (State::NeedsOperator { outgoing: outgoing("a=1"), case }, Some(true)),
            (succeeded(None), Some(false)),
            (State::Open(outgoing("a=1")), None),
            (State::Settled(Settled::Refused(refusal())), None),
            (State::Settled(Settled::NotExecuted(Witness::Operator)), None),
            (State::Lapsed, None),
        ] {
            let record = Record { spend: Some(spend()), ..record(1, state.clone()) };
            assert_eq!(record.taken().map(|taken| taken.held), taken, "{state:?}");
            assert_eq!(Record { spend: None, ..record }.taken(), None);
        }
    }

    #[test]
    fn what_comes_back_is_not_taken_even_when_its_answer_is_kept_no_longer() {
        let record = Record { spend: Some(spend()), ..record(1, unknown(false)) };
        let failed = record.clone().moved_to(succeeded(Some(r#"{"status":"failed"}"#)), at(1));
        assert_eq!(failed.taken(), None);
        assert_eq!(failed.moved_to(succeeded(None), at(2)).taken(), None);
        let pending = record.moved_to(succeeded(Some(r#"{"status":"pending"}"#)), at(1));
        assert_eq!(pending.spend, Some(spend()));
        assert_eq!(pending.moved_to(succeeded(Some(r#"{"status":"canceled"}"#)), at(2)).taken(), None);
    }

    #[test]
    fn an_effect_that_is_found_late_counts_for_the_time_at_which_it_was_found() {
        let record = Record { spend: Some(spend()), ..record(1, unknown(false)) };
        let at_ms = |ms| record.clone().moved_to(succeeded(None), at(ms)).spend.unwrap().at_ms;
        assert_eq!(at_ms(ASKED_COUNTS_MS), at(0).wall_ms);
        assert_eq!(at_ms(ASKED_COUNTS_MS + 1), at(ASKED_COUNTS_MS + 1).wall_ms);
        let found = record.clone().moved_to(succeeded(None), at(0));
        let turned = found.moved_to(succeeded(None), at(ASKED_COUNTS_MS + 1));
        assert_eq!(turned.spend, Some(spend()), "a later state of the object takes nothing anew");
    }

    #[test]
    fn what_is_sent_again_takes_what_its_own_bytes_say() {
        let open = Record { spend: Some(spend()), ..record(1, State::Open(outgoing("a=1"))) };
        let claim =
            Claim { caller: "support".to_owned(), groups: vec![], currency: "usd".to_owned(), amount: 7 };
        let amount = |how| claimed(how, &open, Some(claim.clone())).map(|claim| claim.amount);
        assert_eq!(amount(Sending::Resend { ambiguous: false }), Some(500));
        assert_eq!(amount(Sending::NextGeneration), Some(7));
        assert_eq!(amount(Sending::Resend { ambiguous: true }), None);
        let resend = Sending::Resend { ambiguous: false };
        assert_eq!(sending(resend, Some(&open), Some(&claim)), resend);
        let unclaimed = Record { spend: None, ..open };
        assert_eq!(sending(resend, Some(&unclaimed), Some(&claim)), Sending::NextGeneration);
        assert_eq!(sending(resend, Some(&unclaimed), None), resend);
    }
}
