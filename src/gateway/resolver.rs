//! Finds out unknown outcomes in the background, by looking at Stripe on a schedule, and keeps the ledger tidy. It never
//! sends a change: a caller that gave up may have done something else.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::call::Gateway;
use super::resolve::worth_looking;
use crate::contract;
use crate::domain::clock::UnixMillis;
use crate::domain::drain::Drain;
use crate::domain::limits::{
    HOUSEKEEPING_MS, LOOKUP_MS_MAX, LOOKUPS_READS_PER_MINUTE_MAX, PRUNED_AT_ONCE_MAX, RESEND_MS_MAX,
    RESOLVER_TICK_MS,
};
use crate::domain::operation::OperationHash;
use crate::ledger::{self, Entry};

/// When an unknown outcome is looked up, in milliseconds after the operation was first sent: soon, in case Stripe
/// carried it out; and right after the last moment at which its caller could have resent it. Then every day.
const LOOK_AFTER_MS: [i64; 4] = [60_000, 600_000, 3_600_000, RESEND_MS_MAX + 60_000];
/// How often it is looked up after that, in milliseconds.
const LOOK_EVERY_MS: i64 = 24 * 3_600_000;
/// Every time is put off by up to one part in this many, so that not all operations of an outage are due at once.
const JITTER: i64 = 10;
/// How often the unresolved operations are gone through at least, in milliseconds: a new one is due no sooner.
const SCAN_EVERY_MS: i64 = 30_000;
/// Entries that are read from the store at once.
const ENTRIES_AT_ONCE: usize = 100;
const MINUTE: Duration = Duration::from_secs(60);

/// The background task of one gateway.
#[derive(Debug)]
pub struct Resolver {
    gateway: Arc<Gateway>,
    /// When each unresolved operation was looked up last.
    looked_ms: HashMap<OperationHash, UnixMillis>,
    /// When the unresolved operations are gone through next.
    scan_ms: UnixMillis,
    /// Reads that may still be made this minute.
    reads_left: u32,
    minute_began: Instant,
}

impl Resolver {
    /// A resolver that has not looked at anything yet.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Self {
        let reads_left = LOOKUPS_READS_PER_MINUTE_MAX;
        Self { gateway, looked_ms: HashMap::new(), scan_ms: 0, reads_left, minute_began: Instant::now() }
    }

    /// Works until the gateway goes down; a look that has begun is finished.
    pub async fn run(mut self, drain: Drain) {
        let mut tick = tokio::time::interval(Duration::from_millis(RESOLVER_TICK_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tidy_ms = 0;
        loop {
            tokio::select! {
                biased;
                () = drain.begun() => return,
                _ = tick.tick() => {}
            }
            let now = self.gateway.clock.wall();
            let done = if is_due(tidy_ms, now, HOUSEKEEPING_MS) {
                tidy_ms = now.saturating_add(HOUSEKEEPING_MS);
                self.tidy().await
            } else {
                self.pass(now, &drain).await
            };
            if let Err(error) = done {
                tracing::warn!(%error, "unknown outcomes could not be worked on; trying again");
            }
        }
    }

    async fn tidy(&self) -> Result<(), ledger::Error> {
        self.gateway.ledger.watch_clock().await?;
        self.gateway.ledger.prune(PRUNED_AT_ONCE_MAX).await.map(drop)
    }

    /// Looks up whatever is due.
    async fn pass(&mut self, now: UnixMillis, drain: &Drain) -> Result<(), ledger::Error> {
        if !is_due(self.scan_ms, now, SCAN_EVERY_MS) {
            return Ok(());
        }
        let latest = now.saturating_add(SCAN_EVERY_MS);
        let (mut after, mut seen, mut next_ms) = (None, HashSet::new(), latest);
        loop {
            let entries = self.gateway.ledger.unresolved(after, ENTRIES_AT_ONCE).await?;
            let Some(last) = entries.last() else { break };
            after = Some(last.hash);
            for entry in &entries {
                if drain.has_begun() || !self.has_reads_left() {
                    return Ok(());
                }
                seen.insert(entry.hash);
                if let Some(due) = self.consider(entry, now).await? {
                    next_ms = next_ms.min(due);
                }
            }
        }
        self.looked_ms.retain(|hash, _| seen.contains(hash));
        self.scan_ms = next_ms;
        Ok(())
    }

    /// Looks an operation up if that is due; tells when it is due otherwise.
    async fn consider(
        &mut self,
        entry: &Entry,
        now: UnixMillis,
    ) -> Result<Option<UnixMillis>, ledger::Error> {
        let Entry { hash, record, live } = entry;
        let known = contract::by_ledger_name(&record.operation.rpc).is_some_and(worth_looking);
        if *live || !known {
            return Ok(None);
        }
        let due = due_ms(record.first_sent_ms, self.looked_ms.get(hash).copied(), jitter(hash));
        if due > now {
            return Ok(Some(due));
        }
        let Some(hold) = self.gateway.ledger.hold(*hash).await? else { return Ok(None) };
        let audit = self.gateway.own_record(&record.operation);
        let deadline = Instant::now() + Duration::from_millis(LOOKUP_MS_MAX);
        let looked = self.gateway.look(hold, audit, Some(deadline)).await;
        if looked.as_ref().map_or(true, |looked| looked.asked) {
            self.looked_ms.insert(*hash, now);
        }
        self.reads_left = self.reads_left.saturating_sub(looked?.reads);
        Ok(None)
    }

    fn has_reads_left(&mut self) -> bool {
        if self.minute_began.elapsed() >= MINUTE {
            (self.minute_began, self.reads_left) = (Instant::now(), LOOKUPS_READS_PER_MINUTE_MAX);
        }
        self.reads_left > 0
    }
}

/// Whether it is time for what comes every so often. A clock that was set back must not put it off.
fn is_due(at_ms: UnixMillis, now: UnixMillis, every_ms: i64) -> bool {
    at_ms <= now || at_ms > now.saturating_add(every_ms)
}

/// When an operation is to be looked up next; `jitter` is from 0 to 255.
fn due_ms(first_sent_ms: UnixMillis, looked_ms: Option<UnixMillis>, jitter: u8) -> UnixMillis {
    let after = |ms: i64| {
        let put_off = (ms / JITTER).saturating_mul(i64::from(jitter)) / 256;
        first_sent_ms.saturating_add(ms).saturating_add(put_off)
    };
    let Some(looked_ms) = looked_ms else { return after(LOOK_AFTER_MS[0]) };
    let scheduled = LOOK_AFTER_MS.into_iter().map(after).find(|due| *due > looked_ms);
    scheduled.unwrap_or_else(|| looked_ms.saturating_add(LOOK_EVERY_MS))
}

fn jitter(hash: &OperationHash) -> u8 {
    hash.0[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: UnixMillis = 1_800_000_000_000;
    const HOUR: i64 = 3_600_000;

    #[test]
    fn the_first_looks_come_soon_and_the_later_ones_daily() {
        let mut looked = None;
        let mut dues = Vec::new();
        for _ in 0..6 {
            let due = due_ms(SENT, looked, 0);
            dues.push((due - SENT) / 60_000);
            looked = Some(due);
        }
        assert_eq!(dues, [1, 10, 60, 23 * 60 + 1, 47 * 60 + 1, 71 * 60 + 1]);
    }

    #[test]
    fn a_clock_that_was_set_back_puts_nothing_off() {
        assert!(is_due(SENT, SENT, 30) && is_due(SENT, SENT + 1, 30));
        assert!(!is_due(SENT, SENT - 1, 30) && !is_due(SENT, SENT - 30, 30));
        assert!(is_due(SENT, SENT - 31, 30));
    }

    #[test]
    fn after_a_pause_of_the_gateway_one_look_is_enough() {
        let late = SENT + 30 * HOUR;
        assert!(due_ms(SENT, None, 255) < late);
        assert_eq!(due_ms(SENT, Some(late), 255), late + 24 * HOUR);
    }

    #[test]
    fn operations_of_one_moment_are_looked_up_one_after_the_other() {
        let due = |jitter| due_ms(SENT, Some(SENT + 2 * HOUR), jitter);
        assert!(due(0) < due(128) && due(128) < due(255));
        assert!(due(255) - due(0) < 3 * HOUR);
    }
}
