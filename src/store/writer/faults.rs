//! Faults of the writer that the proofs must notice. In a shipped build nothing here does anything.

use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::{Answer, Writer};
use crate::domain::planted;
use crate::store::commit::{Failure, number};
use crate::store::limits::LAZY_WAIT_MAX;
use crate::store::rows::{Appended, AuditRow, Batch, Receipt};

/// Time that answers which are given too early give the callers to act on them.
const EARLY: Duration = Duration::from_millis(10);
/// The same for events: Stripe's acknowledgement comes over a connection, and a repeated delivery mends some of the loss.
const EARLY_EVENTS: Duration = Duration::from_millis(100);

impl Writer {
    /// Answers the callers before their batches are written, all of them (`ack-before-sync`) or those of events
    /// (`event-ack-before-durable`); takes the audit rows out, which are to come in a later transaction (`audit-apart`).
    pub(super) fn spoil(
        &mut self,
        batches: &mut [Batch],
        callers: &mut Vec<(Answer, OwnedSemaphorePermit)>,
    ) -> Vec<AuditRow> {
        if let Some(pause) = early(batches) {
            let position = number(self.last.position).saturating_add(1);
            for (batch, (caller, _)) in batches.iter().zip(callers.drain(..)) {
                let events = vec![Appended { position, duplicate: false }; batch.events.len()];
                drop(caller.send(Ok(Receipt { events })));
            }
            std::thread::park_timeout(pause);
        }
        if !planted::active("audit-apart") {
            return Vec::new();
        }
        batches.iter_mut().flat_map(|batch| std::mem::take(&mut batch.audit)).collect()
    }

    /// Lets the rows that were taken out wait like those that nobody waits for.
    pub(super) fn come_late(&mut self, rows: Vec<AuditRow>) {
        if !rows.is_empty() {
            self.shared.lazy.put_back(rows);
            self.flush_at = Some(Instant::now() + LAZY_WAIT_MAX);
        }
    }
}

/// How long before the write the answers come. Two names, since two proofs have to notice it, each by itself: a folder whose
/// first settings are lost would not get as far as events.
fn early(batches: &[Batch]) -> Option<Duration> {
    if planted::active("ack-before-sync") {
        return Some(EARLY);
    }
    let events = batches.iter().any(|batch| !batch.events.is_empty());
    (events && planted::active("event-ack-before-durable")).then_some(EARLY_EVENTS)
}

/// Takes a failed commit for one that certainly did not happen (`uncertain-as-failed`).
pub(super) fn misread<T>(written: Result<T, Failure>) -> Result<T, Failure> {
    match written {
        Err(Failure::AtCommit(error)) if planted::active("uncertain-as-failed") => {
            Err(Failure::Before(error))
        }
        written => written,
    }
}
