//! Compares the log with the last checkpoint that lies outside the store, which tells what the store alone cannot: that
//! the store was cut, exchanged or restored from a copy.

use super::{Failed, Notary, Refusal, planted};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::tree::Frontier;

/// The fault of a notary that trusts the store alone.
const PLANTED_FORK: &str = "audit-fork-signed";

impl Notary {
    /// Whether the log continues what the checkpoint says. Cheap where the store's own frontier is as large.
    pub(super) async fn agrees_with(&self, outside: Option<Checkpoint>) -> Result<(), Failed> {
        let Some(outside) = outside.filter(|_| !planted::active(PLANTED_FORK)) else { return Ok(()) };
        if outside.origin != self.origin {
            return Err(Failed::Refused(Refusal::OtherLog(outside.origin)));
        }
        let size = *self.store.audit_head().borrow();
        if size < outside.size {
            return Err(Failed::Refused(Refusal::Shorter { size, signed: outside.size }));
        }
        let known = self.frontier.size() <= outside.size;
        let mut frontier = if known { self.frontier.clone() } else { Frontier::default() };
        let missing = outside.size - frontier.size();
        self.extend(&mut frontier, missing).await?;
        if frontier.root() == outside.root {
            Ok(())
        } else {
            Err(Failed::Refused(Refusal::Different(outside.size)))
        }
    }
}
