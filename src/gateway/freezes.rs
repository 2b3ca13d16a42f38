//! The kill switch: which changes are frozen now, and by whom. It judges changes alone; reads and look-ups never ask it.

use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::accounts::Account;
use super::context::Context;
use super::fault::{Code, Fault, Reason, Retry};
use crate::contract::Spec;
use crate::domain::clock::UnixMillis;
use crate::domain::operation::Mode;
use crate::domain::planted;
use crate::store::{self, Store};

/// The kind of entry that freezes are kept as.
pub(super) const KIND: &str = "freeze";

/// What an operator froze. A part that is absent stands for all of its kind, so that one without parts freezes every
/// change there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Freeze {
    /// Its name, `frz_...`.
    pub(super) id: String,
    /// Only changes of this caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) caller: Option<String>,
    /// Only changes by this RPC, `Service/Method`, or by any of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) method: Option<String>,
    /// Only changes at this Stripe account, by id and mode: an alias may be given to another account later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) account: Option<(String, Mode)>,
    /// Why, as the operator said.
    pub(super) reason: String,
    /// Who froze it.
    pub(super) by: String,
    /// For whom that caller said it acted; empty when it said nothing.
    #[serde(default)]
    pub(super) actor: String,
    /// When.
    pub(super) at_ms: UnixMillis,
}

/// A change, as far as a freeze asks.
#[derive(Clone, Debug)]
pub(super) struct Change {
    caller: String,
    spec: &'static Spec,
    account: String,
    mode: Mode,
}

/// What is frozen now; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Freezes {
    now: Arc<RwLock<Arc<[Freeze]>>>,
    /// Held while a freeze is made or lifted, so that the disk and this list change in the same order.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
}

/// The freezes of an earlier run cannot be read, so nobody knows what must not be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("what is frozen cannot be read: {0}")]
    Store(#[from] store::Error),
    /// An entry is damaged, or of a later version.
    #[error("the freeze `{id}` cannot be read: {source}")]
    Damaged {
        /// Its name.
        id: String,
        /// Where reading stopped.
        source: serde_json::Error,
    },
}

impl Freezes {
    /// What earlier runs left frozen.
    ///
    /// # Errors
    /// When that cannot be read in full: the gateway must not send what may be frozen.
    pub async fn open(store: &Store) -> Result<Self, Error> {
        let entries = store.entries(KIND).await?.into_iter();
        let read = entries
            .map(|(id, body)| serde_json::from_slice(&body).map_err(|source| Error::Damaged { id, source }));
        let freezes = Self::default();
        freezes.set(read.collect::<Result<_, _>>()?);
        Ok(freezes)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list().len()
    }

    /// All of them, in the order in which they were made.
    pub(super) fn list(&self) -> Arc<[Freeze]> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The first that stands against a change.
    pub(super) fn over(&self, change: &Change) -> Option<Freeze> {
        self.list().iter().find(|freeze| freeze.stops(change)).cloned()
    }

    pub(super) fn add(&self, freeze: Freeze) {
        self.set(self.list().iter().cloned().chain([freeze]).collect());
    }

    pub(super) fn remove(&self, id: &str) {
        self.set(self.list().iter().filter(|freeze| freeze.id != id).cloned().collect());
    }

    fn set(&self, mut freezes: Vec<Freeze>) {
        freezes.sort_by(|one, other| (one.at_ms, &one.id).cmp(&(other.at_ms, &other.id)));
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = freezes.into();
    }
}

impl Change {
    pub(super) fn new(context: &Context, account: &Account, spec: &'static Spec) -> Self {
        let (caller, id) = (context.caller.name.clone(), account.id.clone());
        Self { caller, spec, account: id, mode: account.mode }
    }
}

impl Freeze {
    fn stops(&self, change: &Change) -> bool {
        let of_method = |method: &str| match method.split_once('/') {
            Some(both) => both == (change.spec.service, change.spec.rpc),
            None => method == change.spec.service,
        };
        self.caller.as_ref().is_none_or(|caller| *caller == change.caller)
            && self.method.as_deref().is_none_or(of_method)
            && self.account.as_ref().is_none_or(|(id, mode)| (id, *mode) == (&change.account, change.mode))
    }

    /// What is frozen, for people.
    pub(super) fn scope(&self) -> String {
        let parts = [
            self.caller.as_ref().map(|caller| format!("caller `{caller}`")),
            self.method.as_ref().map(|method| format!("method `{method}`")),
            self.account.as_ref().map(|(id, mode)| format!("account `{id}` ({})", mode.as_str())),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "every change".to_owned() } else { parts.join(", ") }
    }

    /// What the caller of a frozen change is told.
    pub(super) fn fault(&self) -> Fault {
        let Self { id, by, reason, .. } = self;
        let message =
            format!("changes are frozen by `{by}` ({}): {reason}; this call sent nothing", self.scope());
        let mut fault = Fault::new(Code::FailedPrecondition, Reason::Frozen, message)
            .with("freeze", id)
            .with("frozen_by", by)
            .with("frozen_because", reason)
            .retry(Retry::Never);
        fault.precondition = Some(("NOT_FROZEN".to_owned(), id.clone()));
        fault
    }

    /// What the audit record names as the rule that denied a change.
    pub(super) fn decision(&self) -> String {
        format!("freeze {}", self.id)
    }
}

/// Whether a freeze lets an attempt go out that was decided on before.
pub(super) fn lets_out(freezes: &Freezes, change: &Change) -> bool {
    planted::active("freeze-not-rechecked") || freezes.over(change).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    fn freeze(id: &str, caller: Option<&str>, method: Option<&str>, account: Option<&str>) -> Freeze {
        Freeze {
            id: id.to_owned(),
            caller: caller.map(str::to_owned),
            method: method.map(str::to_owned),
            account: account.map(|id| (id.to_owned(), Mode::Test)),
            reason: "wrong amounts".to_owned(),
            by: "operator".to_owned(),
            actor: String::new(),
            at_ms: 1,
        }
    }

    fn change(caller: &str, rpc: &str, account: &str, mode: Mode) -> Change {
        let spec = contract::find("RefundService", rpc).unwrap();
        Change { caller: caller.to_owned(), spec, account: account.to_owned(), mode }
    }

    #[test]
    fn a_freeze_stops_what_every_part_of_it_means() {
        let ours = change("shop", "CreateRefund", "acct_1", Mode::Test);
        for (caller, method, account, stops) in [
            (None, None, None, true),
            (Some("shop"), None, None, true),
            (Some("shops"), None, None, false),
            (None, Some("RefundService"), None, true),
            (None, Some("RefundService/CreateRefund"), None, true),
            (None, Some("RefundService/CancelRefund"), None, false),
            (None, Some("Refund"), None, false),
            (None, None, Some("acct_1"), true),
            (None, None, Some("acct_2"), false),
            (Some("shop"), Some("RefundService"), Some("acct_1"), true),
            (Some("shop"), Some("RefundService"), Some("acct_2"), false),
            (Some("other"), Some("RefundService"), Some("acct_1"), false),
        ] {
            let freeze = freeze("frz_1", caller, method, account);
            assert_eq!(freeze.stops(&ours), stops, "{}", freeze.scope());
        }
        let live = change("shop", "CreateRefund", "acct_1", Mode::Live);
        assert!(
            !freeze("frz_1", None, None, Some("acct_1")).stops(&live),
            "the other mode is another account"
        );
    }

    #[test]
    fn what_one_operator_froze_stays_when_another_lifts_his() {
        let freezes = Freezes::default();
        freezes.add(freeze("frz_1", Some("shop"), None, None));
        freezes.add(freeze("frz_2", Some("shop"), None, None));
        let ours = change("shop", "CreateRefund", "acct_1", Mode::Test);
        assert_eq!(freezes.over(&ours).map(|freeze| freeze.id), Some("frz_1".to_owned()));
        freezes.remove("frz_1");
        assert_eq!(freezes.over(&ours).map(|freeze| freeze.id), Some("frz_2".to_owned()));
        freezes.remove("frz_2");
        assert_eq!((freezes.over(&ours), freezes.count()), (None, 0));
    }

    #[test]
    fn a_frozen_caller_learns_who_and_why_and_not_to_try_again() {
        let fault = freeze("frz_1", Some("shop"), Some("RefundService"), None).fault();
        let said = "changes are frozen by `operator` (caller `shop`, method `RefundService`): wrong amounts; \
                    this call sent nothing";
        assert_eq!((fault.message.as_str(), fault.retry), (said, Retry::Never));
        assert_eq!(freeze("frz_1", None, None, None).scope(), "every change");
    }
}
