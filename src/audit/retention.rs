//! Ends the keeping of records: what is older than the retention loses its bytes and keeps its leaf, so that proofs go
//! on. Only what is signed is erased.

use std::time::Duration;

use serde::Deserialize;

use super::keys::Month;
use super::strangers::Strangers;
use super::{Auditor, Error};
use crate::domain::clock::UnixMillis;
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

impl Auditor {
    /// Looks after sums, keys and old records until the end has begun; `signed` tells how far the log is signed.
    pub async fn look_after(self, strangers: Strangers, signed: impl Fn() -> u64 + Send, end: Drain) {
        for pauses in 0_u32.. {
            if pauses % EXPIRY_PAUSES == 0
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
        let now = self.clock.wall();
        self.keys.ensure(Month::of(now)).await?;
        let limit = now.saturating_sub(self.kept_days.saturating_mul(DAY_MS));
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
