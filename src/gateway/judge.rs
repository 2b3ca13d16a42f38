//! Asks the policies before anything is done, and puts the decision into the call's record. What a policy says is the
//! policies' business, who calls is the door's.

use tokio::sync::watch;

use super::accounts::Account;
use super::call::Gateway;
use super::context::Context;
use super::fault::{Code, Fault, Reason, Retry};
use super::prepare::Prepared;
use crate::audit::{Phase, Record};
use crate::contract::{Pair, Sensitivity, Spec};
use crate::domain::caller::Caller;
use crate::domain::fingerprint::path_values;
use crate::domain::operation::Mode;
use crate::domain::planted;
use crate::events::Viewer;
use crate::policy::{
    self, Decision, Facts, Question, READ_EVERY_NAMESPACE, RECEIVE_EVENT, SEE_EVERY_CAUSE, Target,
};

/// The package that every RPC of the contract is in.
const PACKAGE: &str = "tollgate.v1.";
/// The parameter that holds the caller's own keys and values.
const METADATA: &str = "metadata";

impl Gateway {
    /// Judges a call; a denied one is a denial on record.
    ///
    /// # Errors
    /// PERMISSION_DENIED / `POLICY_DENIED` with the rule.
    pub(super) fn judge(
        &self,
        context: &Context,
        account: &Account,
        facts: Facts<'_>,
        record: &mut Record,
    ) -> Result<(), Fault> {
        let action = action(&record.rpc);
        let judging = || self.policies.judge(&question(&context.caller, &action, account, facts));
        let decision = tracing::info_span!("policy").in_scope(judging);
        record.decision = Some(decision.rule());
        if decision.permitted || planted::active("policy-skipped") {
            return Ok(());
        }
        record.phase = Phase::Denied;
        Err(self.denied(&decision, &action, account))
    }

    /// The answer to a call that was denied, which is counted.
    fn denied(&self, decision: &Decision, action: &str, account: &Account) -> Fault {
        self.metrics.denied(decision.rule());
        denied(decision, action, account)
    }

    /// Judges a call of the gateway's own that has no further facts; `alias` means its account, and none the default.
    ///
    /// # Errors
    /// As [`Gateway::judge`], and NOT_FOUND for an account that is not configured.
    pub(super) fn judge_own(
        &self,
        context: &Context,
        alias: Option<&str>,
        record: &mut Record,
    ) -> Result<(), Fault> {
        let account = self.accounts.named(alias.unwrap_or_default())?;
        self.judge(context, account, Facts::default(), record)
    }

    /// Whether the caller may be shown an event of this type that an account received.
    pub(super) fn may_receive(&self, caller: &Caller, account: &Account, event_type: &str) -> bool {
        let facts = Facts { event_type, ..Facts::default() };
        self.policies.judge(&question(caller, RECEIVE_EVENT, account, facts)).permitted
    }

    /// What of the causes of an account's events the caller may know.
    pub(super) fn viewer(&self, caller: &Caller, account: &Account) -> Viewer {
        let every = self.permits(caller, SEE_EVERY_CAUSE, account);
        Viewer { namespace: caller.namespace.clone(), every }
    }

    /// Judges the read of one object by its id as part of another call, which is on record itself.
    ///
    /// # Errors
    /// As [`Gateway::judge`].
    pub(super) fn judge_retrieval(
        &self,
        caller: &Caller,
        spec: &Spec,
        (account, id): (&Account, &str),
    ) -> Result<(), Fault> {
        let (action, facts) = (spec.name(), Facts { fields: vec![("id", id)], ..Facts::default() });
        let decision = self.policies.judge(&question(caller, &action, account, facts));
        if decision.permitted { Ok(()) } else { Err(self.denied(&decision, &action, account)) }
    }

    /// Judges anew a call that goes on: its caller as it is known now, by the policies of now.
    ///
    /// # Errors
    /// UNAUTHENTICATED when its credential is nobody's any more, PERMISSION_DENIED when no rule permits it any more.
    pub(super) fn judge_again(
        &self,
        context: &mut Context,
        account: &Account,
        rpc: &str,
    ) -> Result<(), Fault> {
        let again = self.registry.again(&context.caller, self.clock.wall());
        context.caller = again.map_err(|why| {
            let message = format!("the credential proves no caller of this gateway any more: `{why}`");
            Fault::new(Code::Unauthenticated, Reason::Unauthenticated, message)
                .with("credential", why.as_str())
                .retry(Retry::Never)
        })?;
        let action = action(rpc);
        let decision = self.policies.judge(&question(&context.caller, &action, account, Facts::default()));
        if decision.permitted { Ok(()) } else { Err(self.denied(&decision, &action, account)) }
    }

    /// Whether a call of the gateway's own that has no further facts is permitted at an account; it goes on no record.
    pub(super) fn permits(&self, caller: &Caller, rpc: &str, account: &Account) -> bool {
        self.policies.judge(&question(caller, &action(rpc), account, Facts::default())).permitted
    }

    /// What of the audit log the caller may see.
    pub(super) fn sight(&self, caller: &Caller) -> Sight {
        let permitted = |account: &Account| self.permits(caller, READ_EVERY_NAMESPACE, account);
        let hidden = self.accounts.all().filter(|account| !permitted(account));
        Sight {
            namespace: caller.namespace.clone(),
            every: permitted(self.accounts.default_account()),
            hidden: hidden.map(|account| (account.id.clone(), account.mode)).collect(),
        }
    }

    /// Tells when this caller may not be one any more, or what callers may do has changed.
    #[must_use]
    pub fn changes(&self, caller: &Caller) -> Changes {
        Changes { callers: self.registry.changes_for(caller), policies: self.policies.changes() }
    }
}

/// Which records of the audit log somebody may see.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    /// The namespace whose records are shown.
    pub(super) namespace: String,
    /// Whether those of all others are shown too, but for the hidden accounts.
    every: bool,
    /// Accounts of which no other namespace's are shown.
    hidden: Vec<(String, Mode)>,
}

impl Sight {
    /// Whether records of other namespaces are shown that are about an account, or about none.
    pub(super) fn every_of(&self, account: Option<&str>, mode: Option<Mode>) -> bool {
        let is_hidden = |(id, of): &(String, Mode)| (Some(id.as_str()), Some(*of)) == (account, mode);
        self.every && !self.hidden.iter().any(is_hidden)
    }

    /// Whether nothing is hidden.
    pub(super) fn is_full(&self) -> bool {
        self.every && self.hidden.is_empty()
    }
}

/// Changes of who may call and of what callers may do.
#[derive(Clone, Debug)]
pub struct Changes {
    callers: watch::Receiver<u64>,
    policies: watch::Receiver<u64>,
}

impl Changes {
    /// Whether [`Changes::next`] would not wait; it still has the change.
    #[must_use]
    pub fn are_due(&self) -> bool {
        [&self.callers, &self.policies].iter().any(|changes| changes.has_changed().unwrap_or_default())
    }

    /// Waits for the next change; those before the last look count as one.
    pub async fn next(&mut self) {
        // Whoever changes them lives as long as the gateway; after that there is nothing to wait for.
        tokio::select! {
            Ok(()) = self.callers.changed() => {}
            Ok(()) = self.policies.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// The action that an RPC is to policies.
pub(super) fn action(rpc: &str) -> String {
    rpc.trim_start_matches(PACKAGE).replace('/', ".")
}

/// The question whether a caller may do something with an account.
pub(super) fn question<'a>(
    caller: &'a Caller,
    action: &'a str,
    account: &'a Account,
    facts: Facts<'a>,
) -> Question<'a> {
    let account = Target { alias: &account.alias, id: &account.id, mode: account.mode };
    Question { caller, action, account, facts }
}

/// What a request says, for the policies: its public fields of one value, its order and its metadata.
pub(super) fn facts<'a>(prepared: &'a Prepared<'_>) -> Facts<'a> {
    let reference = prepared.local.operation;
    let top = |pair: &&Pair| !pair.name.contains('[') && pair.sensitivity == Sensitivity::Public;
    let fields = prepared.params.pairs().iter().filter(top);
    let in_path = path_values(prepared.spec.path, &prepared.path);
    let metadata = prepared.params.pairs().iter().filter_map(|pair| {
        let key = pair.name.strip_prefix(METADATA)?.strip_prefix('[')?.strip_suffix(']')?;
        Some((key, pair.value.as_str()))
    });
    Facts {
        order_id: reference.map(|reference| reference.order_id.as_str()).unwrap_or_default(),
        operation_id: reference.map(|reference| reference.operation_id.as_str()).unwrap_or_default(),
        fields: in_path
            .into_iter()
            .chain(fields.map(|pair| (pair.name.as_str(), pair.value.as_str())))
            .collect(),
        metadata: metadata.collect(),
        ..Facts::default()
    }
}

/// The answer to a call that no rule permits, or that one forbids.
fn denied(decision: &Decision, action: &str, account: &Account) -> Fault {
    if let Some(trouble) = &decision.trouble {
        tracing::error!(trouble, action, "a policy cannot be evaluated, so the call was denied");
    }
    let why = match decision.rule().as_str() {
        policy::DEFAULT_DENY => "no rule of this gateway permits it".to_owned(),
        policy::EVALUATION_ERROR => "a rule of this gateway cannot be evaluated".to_owned(),
        rule => format!("the rule `{rule}` of this gateway forbids it"),
    };
    Fault::new(Code::PermissionDenied, Reason::PolicyDenied, format!("{why}; nothing was done"))
        .with("rule", decision.rule())
        .with("action", action)
        .with("account", account.alias.clone())
        .retry(Retry::Never)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::METHODS;
    use crate::policy::ACTIONS;

    #[test]
    fn every_method_is_an_action() {
        for spec in METHODS {
            let action = action(&spec.full_name());
            assert!(ACTIONS.iter().any(|known| known.name == action), "{action}");
        }
    }

    #[tokio::test]
    async fn a_change_is_due_from_when_it_comes_until_it_is_taken() {
        let (callers, policies) = (watch::Sender::new(0), watch::Sender::new(0));
        let mut changes = Changes { callers: callers.subscribe(), policies: policies.subscribe() };
        assert!(!changes.are_due());
        for sender in [callers, policies] {
            sender.send_modify(|count| *count += 1);
            assert!(changes.are_due() && changes.are_due());
            changes.next().await;
            assert!(!changes.are_due());
        }
    }
}
