//! Tries what restricted keys may do, behind the start and behind each reload, and shows what is missing. No call waits for
//! it, and it decides nothing: a key that lacks a right works for everything else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::contract::METHODS;
use crate::domain::drain::Drain;
use crate::gateway::{Account, Accounts};
use crate::policy::Policies;
use crate::stripe::rights::{self, Needed, Standing};
use crate::telemetry::metrics::Metrics;

/// How long the rights of one key may take to be tried.
const WAIT: Duration = Duration::from_secs(120);

/// An account's alias and a right that a key of it lacks.
type Missing = (String, String);

/// Runs until the gateway ends.
pub(super) async fn watch(accounts: Accounts, policies: Policies, metrics: Metrics, drain: Drain) {
    let missing = Arc::new(Mutex::new(Vec::<Missing>::new()));
    metrics.rights_missing({
        let missing = Arc::clone(&missing);
        move || missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    });
    // Every reload puts policies in place, changed or not, and may have brought keys.
    let mut reloads = policies.changes();
    loop {
        reloads.borrow_and_update();
        let set = policies.current();
        let may_be_called = METHODS.iter().copied().filter(|spec| set.may_permit(spec.service, spec.rpc));
        let needed = rights::needed(may_be_called);
        tokio::select! {
            found = all(&accounts, &needed) => {
                *missing.lock().unwrap_or_else(PoisonError::into_inner) = found;
            }
            () = drain.begun() => return,
        }
        tokio::select! {
            changed = reloads.changed() => if changed.is_err() { return },
            () = drain.begun() => return,
        }
    }
}

async fn all(accounts: &Accounts, needed: &[Needed]) -> Vec<Missing> {
    let mut missing = Vec::new();
    for account in accounts.all() {
        missing.extend(of(account, needed).await);
    }
    missing
}

/// What any of the account's keys lacks, since each may be the one in use.
async fn of(account: &Account, needed: &[Needed]) -> Vec<Missing> {
    let mut missing = Vec::new();
    for key in account.stripe.one_by_one().iter().filter(|key| key.is_restricted()) {
        let found = key.rights(needed, &account.header, Some(Instant::now() + WAIT)).await;
        for (needed, (right, standing)) in needed.iter().zip(found) {
            let Standing::Missing { permission } = standing else { continue };
            let (alias, methods) = (&account.alias, needed.methods.join(", "));
            tracing::error!(account = alias, %right, permission, methods, "a key lacks a right that callers need");
            missing.push((alias.clone(), right.to_string()));
        }
    }
    missing.sort();
    missing.dedup();
    missing
}
