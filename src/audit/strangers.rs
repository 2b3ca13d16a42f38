//! Calls by nobody who is known, counted by cause and put on record in sums, so that no stranger can fill the disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::record::{Phase, Record};
use super::{Auditor, Error};
use crate::domain::caller::Caller;

/// Reason in the record.
const REASON: &str = "UNAUTHENTICATED";

/// Counts calls without a known credential; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Strangers(Arc<Mutex<BTreeMap<&'static str, Sum>>>);

#[derive(Debug, Default)]
struct Sum {
    count: u64,
    last_rpc: String,
    last_peer: String,
}

impl Strangers {
    /// One more call, for a cause that is one of a few words.
    pub fn count(&self, cause: &'static str, rpc: &str, peer: &str) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = sums.entry(cause).or_default();
        *sum =
            Sum { count: sum.count.saturating_add(1), last_rpc: rpc.to_owned(), last_peer: peer.to_owned() };
    }
}

impl Auditor {
    /// Puts the calls since the last time on record, if there were any: for each cause their number, and method and
    /// address of the last.
    ///
    /// # Errors
    /// When the record cannot be encoded or the store does not keep it.
    pub async fn report(&self, strangers: &Strangers) -> Result<(), Error> {
        let sums = std::mem::take(&mut *strangers.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (cause, sum) in sums {
            let mut record: Record = self.record(Phase::Denied, &Caller::own("", ""), sum.last_rpc);
            record.peer = Some(sum.last_peer).filter(|peer| !peer.is_empty());
            record.note = Some(cause.to_owned());
            record.count = Some(sum.count);
            record.conclude("denied");
            record.outcome.get_or_insert_default().reason = Some(REASON.to_owned());
            self.write(&record).await?;
        }
        Ok(())
    }
}
