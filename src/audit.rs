//! The record of who did what: builds the records and hands them to the store. Whether a call may happen at all, and in
//! which transaction a change's records are written, is decided elsewhere.

pub mod checkpoint;
pub mod entry;
mod id;
mod keys;
mod notary;
pub mod note;
pub mod record;
mod retention;
mod strangers;
mod terms;
pub mod tree;
pub mod verify;

use std::sync::Arc;

pub use keys::Month;
pub use notary::{Notarized, Notary, Refusal, Standing};
pub use record::{Outcome, Param, Phase, Record, Shown, Try};
pub use strangers::Strangers;
pub use terms::terms;

use crate::contract::{Pair, Sensitivity};
use crate::domain::caller::Caller;
use crate::domain::clock::{Clock, Vouched};
use crate::store::{self, AuditRow, Batch, Store};

use id::Ids;
use keys::Keys;

/// Days of the shortest month, to tell how many months may be kept.
const MONTH_DAYS_MIN: i64 = 28;

/// Why a record was not made or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// The record has no stored form.
    #[error("the audit record cannot be encoded")]
    Encode(#[source] serde_json::Error),
    /// The store did not keep it.
    #[error("the audit record was not kept")]
    Store(#[from] store::Error),
    /// What the store has of the tree is no frontier of a tree.
    #[error("the frontier of the audit log's tree is damaged")]
    Frontier,
}

/// Makes audit records. Clones share everything.
#[derive(Clone, Debug)]
pub struct Auditor {
    store: Store,
    clock: Arc<dyn Clock>,
    keys: Keys,
    kept_days: i64,
    vouched: Vouched,
    ids: Arc<Ids>,
}

impl Auditor {
    /// An auditor whose records, and the keys of their personal values, are kept for `kept_days`.
    ///
    /// # Errors
    /// When the system gives no random bytes, or the store cannot be read or written.
    pub async fn open(store: Store, clock: Arc<dyn Clock>, kept_days: u32) -> Result<Self, Error> {
        let ids = Arc::new(Ids::new().map_err(Error::Random)?);
        let kept_days = i64::from(kept_days);
        let kept_months = i32::try_from(kept_days / MONTH_DAYS_MIN + 1).unwrap_or(i32::MAX);
        let keys = Keys::open(store.clone(), Month::of(clock.wall()), kept_months).await?;
        let vouched = retention::vouched(&store, &*clock).await?;
        Ok(Self { store, clock, keys, kept_days, vouched, ids })
    }

    /// An auditor with this key for all months, for tests that cannot wait.
    #[cfg(test)]
    pub(crate) fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        key: crate::domain::fingerprint::HashKey,
    ) -> Result<Self, Error> {
        let keys = Keys::with(store.clone(), Month::of(clock.wall()), key);
        let ids = Arc::new(Ids::new().map_err(Error::Random)?);
        let vouched = Vouched::new(&*clock, None);
        Ok(Self { store, clock, keys, kept_days: 1, vouched, ids })
    }

    /// A record of now, to be filled further. `rpc` is the full gRPC method.
    #[must_use]
    pub fn record(&self, phase: Phase, caller: &Caller, rpc: impl Into<String>) -> Record {
        let at_ms = self.clock.wall();
        Record::new(self.ids.next(at_ms), at_ms, phase, caller, rpc.into())
    }

    /// A further record of the call that a record is about, as of now; what came of it is still to be said.
    #[must_use]
    pub fn further(&self, record: &Record) -> Record {
        let at_ms = self.clock.wall();
        let mut further = record.clone();
        (further.id, further.at_ms) = (self.ids.next(at_ms), at_ms);
        (further.outcome, further.latency_ms) = (None, None);
        further
    }

    /// The parameters as the record may show them: public ones as they are, personal ones as keyed hashes, of secret
    /// ones the name alone.
    #[must_use]
    pub fn params(&self, pairs: &[Pair]) -> Vec<Param> {
        pairs.iter().map(|pair| Param { name: pair.name.clone(), shown: self.shown(pair) }).collect()
    }

    fn shown(&self, pair: &Pair) -> Shown {
        match pair.sensitivity {
            Sensitivity::Public => Shown::Value(pair.value.clone()),
            // The same value under the same name can be found again, and under no other name.
            Sensitivity::Personal => {
                let month = Month::of(self.clock.wall());
                self.keys.hash(month, &pair.name, &pair.value).map_or(Shown::Withheld, Shown::Hash)
            }
            Sensitivity::Secret => Shown::Withheld,
        }
    }

    /// The hashes under which a personal value can stand in records, one for each key there is.
    #[must_use]
    pub fn hashes(&self, name: &str, value: &str) -> Vec<String> {
        self.keys.hashes(name, value)
    }

    /// The months whose keys exist, in order.
    #[must_use]
    pub fn key_months(&self) -> Vec<Month> {
        self.keys.months()
    }

    /// Drops the key of a month, so that nobody can tell any more which personal values its records are about; whether
    /// there was one.
    ///
    /// # Errors
    /// When the store does not keep it; the key is then still there.
    pub async fn erase_key(&self, month: Month) -> Result<bool, Error> {
        self.keys.erase(month).await
    }

    /// Keeps a record without waiting, for calls that change nothing; what finds no room is dropped and counted there.
    ///
    /// # Errors
    /// When the record cannot be encoded.
    pub fn append(&self, record: &Record) -> Result<(), Error> {
        self.store.append_audit_lazily(record.row()?);
        Ok(())
    }

    /// Makes a record durable before it returns.
    ///
    /// # Errors
    /// When the record cannot be encoded or the store does not keep it.
    pub async fn write(&self, record: &Record) -> Result<(), Error> {
        let audit = vec![record.row()?];
        self.store.commit(Batch { audit, ..Batch::default() }).await?;
        Ok(())
    }
}

impl Record {
    /// The record as it is stored; these bytes are what any later proof is about.
    ///
    /// # Errors
    /// When the encoder reports a fault.
    pub fn row(&self) -> Result<AuditRow, Error> {
        let record = serde_json::to_vec(self).map_err(Error::Encode)?;
        Ok(AuditRow { id: self.id.clone(), leaf: tree::leaf(&record), record })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::ManualClock;
    use crate::store::Terms;

    fn caller() -> Caller {
        Caller::own("billing", "shop")
    }

    fn pair(name: &str, value: &str, sensitivity: Sensitivity) -> Pair {
        Pair { name: name.to_owned(), value: value.to_owned(), sensitivity }
    }

    #[tokio::test]
    async fn a_record_shows_each_value_as_its_sensitivity_allows() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Terms::default()).unwrap();
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let auditor = Auditor::open(store.clone(), clock, 396).await.unwrap();
        let mut record =
            auditor.record(Phase::Denied, &caller(), "tollgate.v1.CustomerService/CreateCustomer");
        record.params = auditor.params(&[
            pair("currency", "eur", Sensitivity::Public),
            pair("email", "ada@example.com", Sensitivity::Personal),
            pair("phone", "ada@example.com", Sensitivity::Personal),
            pair("source", "tok_hidden", Sensitivity::Secret),
        ]);
        auditor.write(&record).await.unwrap();

        let stored = store.audit_after(0, 10).await.unwrap();
        let text = String::from_utf8(stored[0].row.record.clone()).unwrap();
        assert_eq!(stored[0].row.id, record.id);
        assert!(text.contains(r#"{"name":"currency","value":"eur"}"#), "{text}");
        assert!(text.contains(r#"{"name":"email","hash":"2027-01:"#), "{text}");
        assert!(text.contains(r#"{"name":"source","withheld":null}"#), "{text}");
        assert!(!text.contains("ada@") && !text.contains("hidden"), "{text}");
        assert_ne!(
            record.params[1].shown, record.params[2].shown,
            "one value has other hashes under other names"
        );
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        store.close().await;
    }

    #[tokio::test]
    async fn a_record_that_nobody_waits_for_is_kept_too() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Terms::default()).unwrap();
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let auditor = Auditor::open(store.clone(), clock, 396).await.unwrap();
        let record = auditor.record(Phase::Read, &caller(), "tollgate.v1.RefundService/GetRefund");
        auditor.append(&record).unwrap();
        store.close().await;
        let store = Store::open(folder.path(), Terms::default()).unwrap();
        assert_eq!(store.audit_after(0, 10).await.unwrap()[0].row, record.row().unwrap());
    }
}
