//! Lets Stripe's events settle what they prove: reads the event log once, in order, from a durable place, and hands the
//! ledger every event that names one of its operations.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::call::Gateway;
use crate::contract;
use crate::domain::drain::Drain;
use crate::domain::limits::METADATA_STAMP;
use crate::domain::operation::{KEY_PREFIX, Mode, Operation, OperationHash};
use crate::events::{self, Bookmark, Envelope, LogEvent, snapshot};
use crate::gateway::lookup::stamp_of;
use crate::ledger::{self, EventProof, Proved, Turn};
use crate::store::NewEvent;
use crate::telemetry::names::Way;

/// Under which name the place in the event log is kept.
pub(super) const BOOKMARK: &str = "settler";
/// Pause before an event is tried again whose operation is in flight, or after a failure of the store.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the place is made durable while events come: each time costs a commit, and what is read again after a crash
/// changes nothing.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// The background task of one gateway.
#[derive(Debug)]
pub struct Settler {
    gateway: Arc<Gateway>,
}

/// Why the settler stopped at an event.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("the operation is in flight")]
    InFlight,
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    #[error(transparent)]
    Events(#[from] events::Error),
}

impl Settler {
    /// A settler that has not read anything yet.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }

    /// Works until the gateway goes down. An event that was dealt with is dealt with again after a crash at worst.
    pub async fn run(self, drain: Drain) {
        let mut bookmark = loop {
            match Bookmark::open(self.gateway.feed.clone(), BOOKMARK).await {
                Ok(bookmark) => break bookmark,
                Err(error) => tracing::warn!(%error, "the event log cannot be read; trying again"),
            }
            tokio::select! {
                () = drain.begun() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        };
        let mut kept = Instant::now();
        loop {
            let has_moved = bookmark.has_moved();
            let events = tokio::select! {
                biased;
                () = drain.begun() => break,
                events = bookmark.next() => events,
                // Whatever is quiet now may stay so, and what is not known to be read stays in the log.
                () = sleep_until(kept + KEEP_EVERY), if has_moved => Ok(Vec::new()),
            };
            let step = tokio::select! {
                biased;
                () = drain.begun() => break,
                step = self.batch(events, &mut bookmark) => step,
            };
            match step {
                Ok(()) => {}
                Err(Stop::InFlight) => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    tracing::warn!(%error, "events could not be taken as proof; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if bookmark.has_moved() && kept.elapsed() >= KEEP_EVERY {
                self.keep(&mut bookmark).await;
                kept = Instant::now();
            }
        }
        self.keep(&mut bookmark).await;
    }

    async fn keep(&self, bookmark: &mut Bookmark) {
        if let Err(error) = bookmark.keep().await {
            tracing::warn!(%error, "the place in the event log was not kept; events will be read again");
        }
    }

    async fn batch(
        &self,
        events: Result<Vec<Arc<LogEvent>>, events::Error>,
        bookmark: &mut Bookmark,
    ) -> Result<(), Stop> {
        for logged in events? {
            match self.event(&logged).await {
                // Trying again would not mend the entry, and would hold up all other events.
                Err(Stop::Ledger(error @ ledger::Error::Unreadable(_))) => {
                    tracing::error!(%error, event = logged.event.id, "an event was passed over");
                }
                dealt_with => dealt_with?,
            }
            bookmark.advance(logged.position);
        }
        Ok(())
    }

    async fn event(&self, logged: &LogEvent) -> Result<(), Stop> {
        let json = &logged.event.json;
        let Some(envelope) = logged.envelope() else { return Ok(()) };
        let Some(object) = snapshot(json) else { return Ok(()) };
        let Some(source) = self.gateway.source_of(&logged.event, envelope) else { return Ok(()) };
        let stamped = json.contains(METADATA_STAMP).then(|| made_by(object)).flatten();
        let key = &envelope.idempotency_key;
        // An operation that seems settled is proven wrong by an event as well as one that is unknown.
        let holder = stamped.filter(|_| key.starts_with(KEY_PREFIX));
        if let Some(hash) = self.gateway.ledger.holder_of(key).or(holder) {
            self.prove(hash, (&source, envelope), object).await?;
        }
        match stamped {
            Some(hash) => self.turn(hash, (&source, envelope), object).await,
            None => Ok(()),
        }
    }

    /// An event that one of our requests caused.
    async fn prove(
        &self,
        hash: OperationHash,
        (source, envelope): (&Source, &Envelope),
        object: &str,
    ) -> Result<(), Stop> {
        let Some(entry) = self.gateway.ledger.entry(hash).await? else { return Ok(()) };
        if !source.tells_of(&entry.record.operation) {
            return Ok(());
        }
        let proof = EventProof {
            event_id: envelope.id.clone(),
            kind: envelope.kind.clone(),
            idempotency_key: envelope.idempotency_key.clone(),
            object: object.to_owned(),
            api_version: envelope.api_version.clone(),
        };
        let audit = self.gateway.own_record(&entry.record.operation);
        match self.gateway.ledger.prove(hash, &proof, audit).await? {
            Proved::InFlight => return Err(Stop::InFlight),
            Proved::Settled { later_sent } => {
                self.gateway.metrics.resolved(Way::Event);
                tracing::info!(operation = %hash, event = envelope.id, "an event told an unknown outcome");
                if later_sent {
                    tracing::error!(operation = %hash, event = envelope.id, "an earlier try took effect, and a later one was sent too");
                }
            }
            Proved::Doubled => {
                tracing::error!(operation = %hash, event = envelope.id, "the operation took effect twice");
            }
            Proved::NotOurs | Proved::Nothing => {}
        }
        Ok(())
    }

    /// A later state of an object that one of our operations made.
    async fn turn(
        &self,
        hash: OperationHash,
        (source, envelope): (&Source, &Envelope),
        object: &str,
    ) -> Result<(), Stop> {
        let Some(entry) = self.gateway.ledger.entry(hash).await? else { return Ok(()) };
        if !source.tells_of(&entry.record.operation) {
            return Ok(());
        }
        let spec = contract::by_ledger_name(&entry.record.operation.rpc);
        if !spec.is_some_and(|spec| spec.turned_by.contains(&envelope.kind.as_str())) {
            return Ok(());
        }
        let turn = Turn {
            event_id: envelope.id.clone(),
            kind: envelope.kind.clone(),
            created_s: envelope.created_s,
            object: object.to_owned(),
            api_version: envelope.api_version.clone(),
        };
        let audit = self.gateway.own_record(&entry.record.operation);
        match self.gateway.ledger.turn(hash, &turn, audit).await? {
            Proved::InFlight => Err(Stop::InFlight),
            Proved::Settled { .. } | Proved::Doubled | Proved::NotOurs | Proved::Nothing => Ok(()),
        }
    }
}

/// The account and mode that an event speaks of. It proves nothing about any other.
#[derive(Debug)]
struct Source {
    account: String,
    mode: Mode,
}

impl Source {
    fn tells_of(&self, operation: &Operation) -> bool {
        (&self.account, self.mode) == (&operation.account, operation.mode)
    }
}

impl Gateway {
    /// Of which account an event is: the connected one that it names, or that whose endpoint received it. `None` when that
    /// one is not configured any more.
    fn source_of(&self, event: &NewEvent, envelope: &Envelope) -> Option<Source> {
        let mode = if event.livemode { Mode::Live } else { Mode::Test };
        let account = match envelope.connected_account.as_str() {
            "" => self.accounts.resolve(&event.account)?.id.clone(),
            connected => connected.to_owned(),
        };
        Some(Source { account, mode })
    }
}

/// The operation that made an object, by its stamp.
fn made_by(object: &str) -> Option<OperationHash> {
    let object = serde_json::from_str(object).ok()?;
    OperationHash::parse(stamp_of(&object)?)
}
