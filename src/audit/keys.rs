//! The keys behind the hashes of personal values: one for each calendar month, so that dropping a key erases that month
//! and no other. A hash names its key.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use super::Error;
use crate::domain::clock::UnixMillis;
use crate::domain::fingerprint::HashKey;
use crate::store::{Batch, Setting, Store};

/// How the names of the settings begin that hold the keys.
const SETTING: &str = "audit_hash_key.";
/// Months of a year.
const MONTHS: i32 = 12;

/// A calendar month (UTC), counted from the beginning of the year 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(i32);

/// The keys that exist; clones share them.
#[derive(Clone)]
pub(super) struct Keys {
    store: Store,
    by_month: Arc<RwLock<BTreeMap<Month, HashKey>>>,
}

impl Month {
    /// The month of an instant.
    #[must_use]
    pub fn of(at_ms: UnixMillis) -> Self {
        let instant = prost_types::Timestamp { seconds: at_ms.div_euclid(1000), nanos: 0 };
        instant.to_string().get(..7).and_then(Self::parse).unwrap_or(Self(0))
    }

    /// Reads `2026-11`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('-')?;
        let digits =
            |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        let sound = digits(year, 4) && digits(month, 2);
        let (year, month): (i32, i32) = (year.parse().ok()?, month.parse().ok()?);
        (sound && (1..=MONTHS).contains(&month)).then_some(Self(year * MONTHS + month - 1))
    }

    /// The month so many months later; earlier for a negative number.
    #[must_use]
    pub fn later(self, months: i32) -> Self {
        Self(self.0.saturating_add(months))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04}-{:02}", self.0.div_euclid(MONTHS), self.0.rem_euclid(MONTHS) + 1)
    }
}

impl Keys {
    /// Reads the keys of the last `kept` months, and makes those of this month and the next where they are missing.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub(super) async fn open(store: Store, now: Month, kept: i32) -> Result<Self, Error> {
        let keys = Self { store, by_month: Arc::default() };
        for back in (0..=kept).rev() {
            keys.load(now.later(-back)).await?;
        }
        keys.ensure(now).await?;
        Ok(keys)
    }

    /// One key for all months.
    #[cfg(test)]
    pub(super) fn with(store: Store, month: Month, key: HashKey) -> Self {
        Self { store, by_month: Arc::new(RwLock::new(BTreeMap::from([(month, key)]))) }
    }

    /// Sees to it that this month and the next have keys.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub(super) async fn ensure(&self, now: Month) -> Result<(), Error> {
        for month in [now, now.later(1)] {
            if !self.months().contains(&month) && !self.load(month).await? {
                let mut key = [0; 32];
                getrandom::fill(&mut key).map_err(Error::Random)?;
                self.set(month, key.to_vec()).await?;
                self.load(month).await?;
            }
        }
        Ok(())
    }

    /// Drops the key of a month for good; whether there was one.
    ///
    /// # Errors
    /// When the store cannot be written; the key is then still there.
    pub(super) async fn erase(&self, month: Month) -> Result<bool, Error> {
        let known = self.months().contains(&month);
        if known {
            // An empty value remains, so that the key is not made anew.
            self.set(month, Vec::new()).await?;
            self.by_month.write().unwrap_or_else(PoisonError::into_inner).remove(&month);
        }
        Ok(known)
    }

    /// The months whose keys exist, in order.
    pub(super) fn months(&self) -> Vec<Month> {
        self.by_month.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// The hash of a value under its name, with the key of `month`, or with the latest there is where that month has
    /// none; nothing without any key.
    pub(super) fn hash(&self, month: Month, name: &str, value: &str) -> Option<String> {
        let keys = self.by_month.read().unwrap_or_else(PoisonError::into_inner);
        let (month, key) = keys.get_key_value(&month).or_else(|| keys.last_key_value())?;
        Some(format!("{month}:{}", key.hash([name, value])))
    }

    /// The hashes that the value has under this name, one for each key.
    pub(super) fn hashes(&self, name: &str, value: &str) -> Vec<String> {
        self.months().into_iter().filter_map(|month| self.hash(month, name, value)).collect()
    }

    /// Reads a key from the store; whether the store knows the month, be it as erased.
    async fn load(&self, month: Month) -> Result<bool, Error> {
        let Some(value) = self.store.setting(&format!("{SETTING}{month}")).await? else { return Ok(false) };
        if let Ok(key) = <[u8; 32]>::try_from(value) {
            let mut keys = self.by_month.write().unwrap_or_else(PoisonError::into_inner);
            keys.insert(month, HashKey::new(key));
        }
        Ok(true)
    }

    async fn set(&self, month: Month, value: Vec<u8>) -> Result<(), Error> {
        let state = vec![Setting { name: format!("{SETTING}{month}"), value }];
        self.store.commit(Batch { state, ..Batch::default() }).await?;
        Ok(())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Keys").field("months", &self.months()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Terms;

    #[test]
    fn months_follow_each_other_over_the_year() {
        let november = Month::of(1_795_395_723_000);
        assert_eq!(november.to_string(), "2026-11");
        assert_eq!(november.later(2).to_string(), "2027-01");
        assert_eq!(november.later(-11).to_string(), "2025-12");
        assert_eq!(Month::parse("2027-01"), Some(november.later(2)));
        for wrong in ["", "2026", "2026-13", "2026-00", "2026-1", "+026-11", "2026-11-01"] {
            assert_eq!(Month::parse(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn an_erased_key_stays_erased_and_hashes_with_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Terms::default()).unwrap();
        let now = Month::parse("2026-11").unwrap();
        let keys = Keys::open(store.clone(), now, 13).await.unwrap();
        let old = keys.hash(now, "email", "ada@example.com").unwrap();
        assert!(old.starts_with("2026-11:"), "{old}");
        let later = now.later(2);
        keys.ensure(later).await.unwrap();
        assert_eq!(keys.hashes("email", "ada@example.com").len(), 4);
        assert!(keys.erase(now).await.unwrap());
        assert!(!keys.erase(now).await.unwrap());

        let again = Keys::open(store.clone(), later, 13).await.unwrap();
        assert_eq!(again.months(), [now.later(1), later, later.later(1)]);
        assert_eq!(again.hashes("email", "ada@example.com"), keys.hashes("email", "ada@example.com"));
        assert!(!again.hashes("email", "ada@example.com").contains(&old));
        again.ensure(now).await.unwrap();
        assert!(!again.months().contains(&now), "it is not made anew");
        store.close().await;
    }
}
