//! Who may do what: the policies that operators write in Cedar, judged for every call and every event. It knows neither
//! how a caller proved who it is nor what is done with a decision.

mod action;
mod explain;
mod fault;
mod lint;
mod parse;
mod question;
mod set;
mod table;

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

pub use action::{ACTIONS, Action, Kind, READ_EVERY_NAMESPACE, RECEIVE_EVENT, SCHEMA, SEE_EVERY_CAUSE};
pub use explain::{Bearing, Explained};
pub use fault::{Fault, Faults};
pub use lint::{Known, Warning};
pub use parse::{Source, files, read};
pub use question::{Facts, Question, Target};
pub use set::{Decision, PolicySet};
pub use table::{Row, Table, Verdict};

/// The rule that a denial names when no policy speaks of the call.
pub const DEFAULT_DENY: &str = "default-deny";
/// The rule that a denial names when a policy cannot be evaluated: a forbidding one might have been meant.
pub const EVALUATION_ERROR: &str = "evaluation-error";
/// The rule of a gateway without callers, which serves the loopback address alone.
pub const ON_LOOPBACK: &str = "permit-everything-on-loopback";

/// The policies that are in force; clones share them.
#[derive(Clone, Debug)]
pub struct Policies(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    set: RwLock<Arc<PolicySet>>,
    /// How often they were replaced.
    epoch: watch::Sender<u64>,
}

impl Policies {
    /// Puts policies in force.
    #[must_use]
    pub fn new(set: PolicySet) -> Self {
        Self(Arc::new(Shared { set: RwLock::new(Arc::new(set)), epoch: watch::Sender::new(0) }))
    }

    /// Puts other policies in force for every question from now on.
    pub fn replace(&self, set: PolicySet) {
        *self.0.set.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
        self.0.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Tells of every replacement.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.epoch.subscribe()
    }

    /// How often they have been replaced.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        *self.0.epoch.borrow()
    }

    /// What is in force at this moment.
    #[must_use]
    pub fn current(&self) -> Arc<PolicySet> {
        Arc::clone(&self.0.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Decides a question: denied unless a policy permits it and none forbids it.
    #[must_use]
    pub fn judge(&self, question: &Question<'_>) -> Decision {
        self.current().judge(question)
    }
}

#[cfg(test)]
mod tests;
