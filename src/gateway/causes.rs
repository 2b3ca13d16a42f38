//! Finds the calls through the gateway that an event goes back to: those of the last while from memory, all others from
//! the audit log, where each is on record before it is sent. Who may know of them is not decided here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::context::Context;
use super::lookup::stamp_of;
use crate::audit::{Phase, Record};
use crate::contract::Spec;
use crate::domain::limits::{AUDIT_READ_BYTES_MAX, CALLS_REMEMBERED_MAX, CAUSE_RECORDS_MAX, METADATA_STAMP};
use crate::domain::operation::{KEY_PREFIX, Mode, Operation, OperationHash};
use crate::events::{Call, Cause, Envelope, snapshot};
use crate::store::{self, Store};

/// What finds them; clones share what they remember.
#[derive(Clone, Debug)]
pub struct Causes {
    store: Store,
    lately: Arc<Mutex<Lately>>,
}

/// The calls that were sent last, by idempotency key and by stamp.
#[derive(Debug, Default)]
struct Lately {
    calls: HashMap<String, Arc<Sent>>,
    order: VecDeque<String>,
}

/// A call that was sent.
#[derive(Debug)]
struct Sent {
    account: String,
    mode: Mode,
    call: Call,
}

/// Of which account and in which mode an event is: a call at another one did not cause it, whatever it says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side<'a> {
    pub(super) account: &'a str,
    pub(super) mode: Mode,
}

impl Causes {
    /// Causes on the record of this store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, lately: Arc::default() }
    }

    /// Takes note of a call that is about to be sent.
    pub(super) fn sending(
        &self,
        operation: &Operation,
        (spec, key): (&Spec, Option<&str>),
        context: &Context,
    ) {
        let call = Call {
            namespace: operation.namespace.clone(),
            order_id: operation.order_id.clone(),
            operation_id: operation.operation_id.clone(),
            rpc: format!("{}/{}", spec.service, spec.rpc),
            caller: context.caller.name.clone(),
            trace_id: context.trace_id.clone(),
        };
        let sent = Arc::new(Sent { account: operation.account.clone(), mode: operation.mode, call });
        let names = key.map(str::to_owned).into_iter().chain([operation.hash().to_string()]);
        // A panic elsewhere can leave a name too few, which the audit log makes good.
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        names.for_each(|name| lately.note(name, &sent));
    }

    /// The calls behind an event. Its key and its stamp are only looked up where they can be ours.
    ///
    /// # Errors
    /// When the audit log cannot be read.
    pub(super) async fn of(
        &self,
        envelope: &Envelope,
        json: &str,
        side: Side<'_>,
    ) -> Result<Cause, store::Error> {
        let key = Some(envelope.idempotency_key.as_str()).filter(|key| key.starts_with(KEY_PREFIX));
        let stamp = stamp(json);
        Ok(Cause { call: self.named(key, side).await?, origin: self.named(stamp.as_deref(), side).await? })
    }

    async fn named(&self, name: Option<&str>, side: Side<'_>) -> Result<Option<Call>, store::Error> {
        let Some(name) = name else { return Ok(None) };
        let known = self.lately.lock().unwrap_or_else(PoisonError::into_inner).calls.get(name).cloned();
        if let Some(sent) = known {
            return Ok(side.has(&sent.account, sent.mode).then(|| sent.call.clone()));
        }
        let found = self.store.audit_with(name, 0, CAUSE_RECORDS_MAX, AUDIT_READ_BYTES_MAX).await?;
        // The last try is the one that took effect, if any did.
        Ok(found.iter().rev().find_map(|stored| intent(&stored.row.record, side)))
    }
}

impl Lately {
    fn note(&mut self, name: String, sent: &Arc<Sent>) {
        if self.calls.insert(name.clone(), Arc::clone(sent)).is_none() {
            self.order.push_back(name);
        }
        while self.order.len() > CALLS_REMEMBERED_MAX {
            self.order.pop_front().and_then(|oldest| self.calls.remove(&oldest));
        }
    }
}

impl Side<'_> {
    fn has(self, account: &str, mode: Mode) -> bool {
        (self.account, self.mode) == (account, mode)
    }
}

/// The call that a stored record is the intent of.
fn intent(record: &[u8], side: Side<'_>) -> Option<Call> {
    let record: Record = serde_json::from_slice(record).ok()?;
    let ours = side.has(record.account.as_deref()?, record.mode?);
    (ours && record.phase == Phase::Intent).then(|| Call {
        rpc: record.rpc.rsplit_once('.').map_or(record.rpc.as_str(), |(_, rpc)| rpc).to_owned(),
        namespace: record.namespace,
        order_id: record.order_id.unwrap_or_default(),
        operation_id: record.operation_id.unwrap_or_default(),
        caller: record.caller,
        trace_id: record.trace_id.unwrap_or_default(),
    })
}

/// The stamp of the object that an event carries, where it has one of the form of ours.
fn stamp(json: &str) -> Option<String> {
    if !json.contains(METADATA_STAMP) {
        return None;
    }
    let object: Value = serde_json::from_str(snapshot(json)?).ok()?;
    stamp_of(&object).filter(|stamp| OperationHash::parse(stamp).is_some()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
        let sent = Arc::new(Sent { account: String::new(), mode: Mode::Test, call: Call::default() });
        let mut lately = Lately::default();
        for number in 0..=CALLS_REMEMBERED_MAX {
            lately.note(number.to_string(), &sent);
            lately.note(number.to_string(), &sent);
        }
        assert_eq!((lately.calls.len(), lately.order.len()), (CALLS_REMEMBERED_MAX, CALLS_REMEMBERED_MAX));
        assert!(!lately.calls.contains_key("0") && lately.calls.contains_key("1"));
    }
}
