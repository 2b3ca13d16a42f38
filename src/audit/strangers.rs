//! Calls by nobody who is known, counted and put on record in sums, so that no stranger can fill the disk.

use std::sync::{Arc, Mutex, PoisonError};

use super::record::{Phase, Record};
use super::{Auditor, Error};
use crate::domain::caller::Caller;

/// Reason in the record.
const REASON: &str = "UNAUTHENTICATED";

/// Counts calls without a known credential; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Strangers(Arc<Mutex<Option<Sum>>>);

#[derive(Debug)]
struct Sum {
    count: u64,
    last_rpc: String,
    last_peer: String,
}

impl Strangers {
    /// One more call.
    pub fn count(&self, rpc: &str, peer: &str) {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sum.as_ref().map_or(0, |sum| sum.count).saturating_add(1);
        *sum = Some(Sum { count, last_rpc: rpc.to_owned(), last_peer: peer.to_owned() });
    }
}

impl Auditor {
    /// Puts the calls since the last time on record, if there were any: their number, and method and address of the
    /// last.
    ///
    /// # Errors
    /// When the record cannot be encoded or the store does not keep it.
    pub async fn report(&self, strangers: &Strangers) -> Result<(), Error> {
        let taken = strangers.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(sum) = taken else { return Ok(()) };
        let nobody = Caller { name: String::new(), namespace: String::new(), admin: false };
        let mut record: Record = self.record(Phase::Denied, &nobody, sum.last_rpc);
        record.peer = Some(sum.last_peer).filter(|peer| !peer.is_empty());
        record.count = Some(sum.count);
        record.conclude("denied");
        record.outcome.get_or_insert_default().reason = Some(REASON.to_owned());
        self.write(&record).await
    }
}
