//! Ends the keeping of records: what is older than the retention loses its bytes and keeps its leaf, so that proofs go
//! on. Only what is signed is erased, and nothing because one clock says that years have passed.

use std::time::Duration;

use serde::Deserialize;

use super::keys::Month;
use super::strangers::Strangers;
use super::{Auditor, Error};
use crate::domain::clock::{Clock, UnixMillis, Vouched};
use crate::domain::drain::Drain;
use crate::store::Store;

/// How often calls by strangers are put on record.
const PAUSE: Duration = Duration::from_secs(10);
/// After how many pauses is looked for what is over: once an hour.
const EXPIRY_PAUSES: u32 = 360;
/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// What is read of a record to tell its age.
#[derive(Deserialize)]
struct Aged {
    at_ms: UnixMillis,
}

/// The time as the newest record of before vouches for it; to be asked before the process makes a record of its own.
///
/// # Errors
/// When the store cannot be read.
pub(super) async fn vouched(store: &Store, clock: &dyn Clock) -> Result<Vouched, Error> {
    let newest = *store.audit_head().borrow();
    // Without a record that is still legible there is nothing to lose.
    Ok(Vouched::new(clock, at_ms(store, newest).await?))
}

impl Auditor {
    /// Looks after sums, keys and old records until the end has begun; `signed` tells how far the log is signed.
    pub async fn look_after(self, strangers: Strangers, signed: impl Fn() -> u64 + Send, end: Drain) {
        for pauses in 0_u32.. {
            // A clock that is wrong at the start is often set right soon after, so nothing is erased at once.
            if pauses > 0
                && pauses % EXPIRY_PAUSES == 0
                && let Err(error) = self.expire(signed()).await
            {
                tracing::warn!(%error, "the retention of the audit log is late");
            }
            let ended = tokio::select! {
                () = end.begun() => true,
                () = tokio::time::sleep(PAUSE) => false,
            };
            if let Err(error) = self.report(&strangers).await {
                tracing::warn!(%error, "calls by strangers could not be put on record");
            }
            if ended {
                return;
            }
        }
    }

    /// Makes the keys that are needed next, drops those of months that are over, and erases records that are.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn expire(&self, signed: u64) -> Result<(), Error> {
        self.keys.ensure(Month::of(self.clock.wall())).await?;
        let limit = self.vouched.now(&*self.clock).saturating_sub(self.kept_days.saturating_mul(DAY_MS));
        for month in self.keys.months() {
            if month < Month::of(limit) {
                self.keys.erase(month).await?;
                tracing::info!(%month, "the key for personal values of a month was dropped");
            }
        }
        let last = last_before(&self.store, limit, signed).await?;
        if last > 0 && at_ms(&self.store, last).await?.is_some() {
            self.store.erase_audit(last).await?;
            tracing::info!(up_to_sequence = last, "old audit records were erased");
        }
        Ok(())
    }
}

/// The place of the last record of the first `size` that is older than `limit`, 0 when none is. As exact as the clock
/// that stamped them.
async fn last_before(store: &Store, limit: UnixMillis, size: u64) -> Result<u64, Error> {
    let (mut old, mut young) = (0, size.saturating_add(1));
    while young.saturating_sub(old) > 1 {
        let middle = old + (young - old) / 2;
        match at_ms(store, middle).await? {
            Some(at_ms) if at_ms >= limit => young = middle,
            // What is erased already was old.
            _ => old = middle,
        }
    }
    Ok(old)
}

/// When the record at this place was made; `None` when it is erased.
async fn at_ms(store: &Store, sequence: u64) -> Result<Option<UnixMillis>, Error> {
    let found = store.audit_after(sequence.saturating_sub(1), 1).await?;
    let aged = found.first().and_then(|stored| serde_json::from_slice::<Aged>(&stored.row.record).ok());
    Ok(aged.map(|aged| aged.at_ms))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::audit::Phase;
    use crate::domain::caller::Caller;
    use crate::domain::clock::ManualClock;
    use crate::store::Terms;

    const KEPT_DAYS: u32 = 60;
    /// 2027-01-15.
    const START_MS: UnixMillis = 1_800_000_000_000;

    fn days(count: u32) -> Duration {
        Duration::from_secs(86_400) * count
    }

    /// One run of the gateway, which begins and ends with a record.
    async fn run(folder: &Path, clock: &Arc<ManualClock>, during: impl AsyncFnOnce(&Auditor)) {
        let store = Store::open(folder, Terms::default()).unwrap();
        let auditor =
            Auditor::open(store.clone(), Arc::clone(clock) as Arc<dyn Clock>, KEPT_DAYS).await.unwrap();
        mark(&auditor).await;
        during(&auditor).await;
        mark(&auditor).await;
        store.close().await;
    }

    async fn mark(auditor: &Auditor) {
        let nobody = Caller::own("", "");
        auditor.write(&auditor.record(Phase::Admin, &nobody, "tollgate/mark")).await.unwrap();
    }

    /// How many records are still legible, and which months still have keys.
    async fn left(auditor: &Auditor) -> (usize, Vec<String>) {
        let rows = auditor.store.audit_after(0, 1_000).await.unwrap();
        let months = auditor.key_months().iter().map(ToString::to_string).collect();
        (rows.iter().filter(|stored| !stored.row.record.is_empty()).count(), months)
    }

    #[tokio::test]
    async fn what_is_older_than_the_retention_is_erased_with_its_keys() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(START_MS));
        run(folder.path(), &clock, async |_| {}).await;
        clock.advance(days(50));
        run(folder.path(), &clock, async |_| {}).await;
        run(folder.path(), &clock, async |auditor| {
            auditor.expire(5).await.unwrap();
            assert_eq!(left(auditor).await.0, 5, "nothing is old yet");
            clock.advance(days(30));
            auditor.expire(5).await.unwrap();
            let months = ["2027-02", "2027-03", "2027-04", "2027-05"].map(str::to_owned);
            assert_eq!(left(auditor).await, (3, months.to_vec()));
        })
        .await;
    }

    #[tokio::test]
    async fn a_clock_that_is_years_ahead_erases_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(START_MS));
        run(folder.path(), &clock, async |_| {}).await;
        clock.set_wall(START_MS + 5_000 * DAY_MS);
        run(folder.path(), &clock, async |auditor| {
            auditor.expire(3).await.unwrap();
            assert_eq!(left(auditor).await.0, 3, "wrong at the start");
        })
        .await;
        clock.set_wall(START_MS);
        let other = tempfile::tempdir().unwrap();
        run(other.path(), &clock, async |auditor| {
            clock.set_wall(START_MS + 5_000 * DAY_MS);
            auditor.expire(1).await.unwrap();
            let (records, months) = left(auditor).await;
            assert_eq!((records, months.contains(&"2027-01".to_owned())), (1, true), "wrong later");
        })
        .await;
    }

    #[tokio::test]
    async fn nothing_is_erased_right_after_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(START_MS));
        run(folder.path(), &clock, async |_| {}).await;
        clock.advance(days(50));
        run(folder.path(), &clock, async |_| {}).await;
        clock.advance(days(50));
        run(folder.path(), &clock, async |_| {}).await;
        run(folder.path(), &clock, async |auditor| {
            let (trigger, end) = Drain::channel();
            trigger.begin();
            auditor.clone().look_after(Strangers::default(), || 6, end).await;
            assert_eq!(left(auditor).await.0, 7);
            auditor.expire(6).await.unwrap();
            assert_eq!(left(auditor).await.0, 5);
        })
        .await;
    }
}
