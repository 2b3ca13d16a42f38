//! The memory of every change: what was asked, what was sent, what came of it. Nothing is sent before its intent is
//! durable, and by nobody but the holder of a [`Ticket`]. The sending itself is the caller's.

mod call;
mod error;
#[cfg(test)]
mod fixtures;
mod flights;
#[cfg(test)]
mod laws;
pub mod proof;
pub mod state;
#[cfg(test)]
mod tests;
mod trail;
pub mod transition;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use call::{Asked, Begun, Preview, Standing, Status, Ticket, Unresolved};
pub use error::Error;
pub use proof::Verdict;
pub use state::{Refusal, Settled, Stuck, Success};
pub use transition::{Known, Sending};

use crate::audit;
use crate::contract::{Effect, Spec};
use crate::domain::clock::Clock;
use crate::domain::fingerprint::{Fingerprint, HashKey};
use crate::domain::limits::FLIGHT_WAIT_MS_MAX;
use crate::domain::operation::{Operation, OperationHash};
use crate::domain::planted;
use crate::store::{self, Batch, OperationRow, Store};
use crate::stripe::{Attempt, Outgoing};

use call::Landed;
use flights::{Flight, Flights, Place, Waited};
use proof::Expected;
use state::{Record, State};
use transition::{Call, Decision, Departure};

/// The ledger of one gateway. Clones share it; two that do not share it must not work on one store.
#[derive(Clone, Debug)]
pub struct Ledger {
    store: Store,
    clock: Arc<dyn Clock>,
    key: HashKey,
    flights: Flights<Landed>,
}

impl Ledger {
    /// The ledger in `store`. `key` must be the same for the store's whole life.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, key: HashKey) -> Self {
        Self { store, clock, key, flights: Flights::default() }
    }

    /// Decides about a call, and puts its intent and `audit` on record if it is to be sent. Calls of one operation go
    /// one after the other: an equal one waits for the one in flight, until `deadline` at the longest, and gets its
    /// verdict; another is decided about afterwards.
    ///
    /// Run it, the sending and [`Ledger::settle`] in a task that is not dropped with the caller.
    ///
    /// # Errors
    /// Whenever it fails, nothing may be sent.
    pub async fn begin(
        &self,
        asked: Asked<'_>,
        mut audit: audit::Record,
        deadline: Option<Instant>,
    ) -> Result<Begun, Error> {
        let hash = asked.operation.hash();
        let fingerprint = self.fingerprint(&asked);
        let flight = match self.enter(hash, &fingerprint, deadline).await? {
            Turn::Lead(flight) => flight,
            Turn::Answered(begun) => return self.answer(audit, &asked.operation, begun),
        };
        let record = self.read(&hash).await?;
        let now = self.clock.wall();
        let how = match transition::decide(record.as_ref(), asked.call(&fingerprint), now) {
            Decision::Send(how) => how,
            Decision::Answer(known) => return self.answer(audit, &asked.operation, known.into()),
            Decision::GiveUp(given_up, why) => {
                let begun = Begun::Unresolved(Unresolved::NeedsOperator(why));
                trail::answered(&mut audit, &asked.operation, begun.word());
                self.commit(hash, &given_up, &audit).await?;
                return Ok(begun);
            }
        };
        let departure = transition::depart(how, record, asked.operation, fingerprint, asked.outgoing, now);
        let Departure { record, outgoing, ambiguous } = departure;
        trail::intent(&mut audit, &record, &outgoing);
        planted::point("intent-before");
        self.commit(hash, &record, &audit).await?;
        planted::point("intent-durable");
        Ok(Begun::New(Box::new(Ticket { flight, record, spec: asked.spec, outgoing, ambiguous })))
    }

    /// Puts on record what came of a sent change, and tells everybody who waits for it.
    ///
    /// # Errors
    /// Then the outcome counts as unknown, whatever Stripe answered.
    pub async fn settle(
        &self,
        ticket: Ticket,
        attempts: &[Attempt],
        mut audit: audit::Record,
    ) -> Result<Verdict, Error> {
        let Ticket { flight, record, spec, outgoing, ambiguous } = ticket;
        let expected = Expected { object: spec.object, keyed: outgoing.idempotency_key.is_some() };
        let verdict = proof::verdict(attempts, ambiguous, expected);
        trail::outcome(&mut audit, &record, &outgoing, &verdict, attempts);
        let record = transition::settled(record, outgoing, &verdict, self.clock.wall());
        planted::point("settle-before");
        let committed = self.commit(record.operation.hash(), &record, &audit).await;
        planted::point("settle-durable");
        committed.map_err(|error| Error::Unsettled(Box::new(error)))?;
        flight.land(Landed { fingerprint: record.fingerprint, verdict: verdict.clone() });
        Ok(verdict)
    }

    /// What [`Ledger::begin`] would do, without doing it.
    ///
    /// # Errors
    /// When the operation's entry cannot be read.
    pub async fn preview(&self, asked: Asked<'_>) -> Result<Preview, Error> {
        let hash = asked.operation.hash();
        let fingerprint = self.fingerprint(&asked);
        let record = self.read(&hash).await?;
        let now = self.clock.wall();
        let how = match transition::decide(record.as_ref(), asked.call(&fingerprint), now) {
            // It would wait for the one in flight.
            Decision::Send(Sending::Resend { ambiguous: true }) if self.flights.live(&hash) => {
                return Ok(Preview::Answer(Known::Unknown));
            }
            Decision::Send(how) => how,
            Decision::Answer(known) => return Ok(Preview::Answer(known)),
            Decision::GiveUp(_, why) => return Ok(Preview::Answer(Known::NeedsOperator(why))),
        };
        let departure = transition::depart(how, record, asked.operation, fingerprint, asked.outgoing, now);
        Ok(Preview::Send { how, outgoing: Box::new(departure.outgoing) })
    }

    /// What is known of an operation of the RPC `spec`; `None` when it was never asked for.
    ///
    /// # Errors
    /// When its entry cannot be read.
    pub async fn status(&self, operation: &Operation, spec: &Spec) -> Result<Option<Status>, Error> {
        let hash = operation.hash();
        let Some(record) = self.read(&hash).await? else { return Ok(None) };
        let call = Call {
            fingerprint: &record.fingerprint,
            retry_refused: false,
            repeatable: spec.effect == Effect::Repeatable,
        };
        let standing = match transition::decide(Some(&record), call, self.clock.wall()) {
            _ if self.flights.live(&hash) && matches!(record.state, State::InFlight { .. }) => {
                Standing::InFlight
            }
            Decision::Send(Sending::Resend { ambiguous: false }) => Standing::Open,
            Decision::Answer(Known::Replay(settled)) => Standing::Settled(settled),
            Decision::Answer(Known::NeedsOperator(why)) | Decision::GiveUp(_, why) => {
                Standing::NeedsOperator(why)
            }
            Decision::Send(_) | Decision::Answer(Known::Unknown | Known::Mismatch(_)) => Standing::Unknown,
        };
        let Record { generation, first_sent_ms, last_ms, .. } = record;
        Ok(Some(Status { standing, generation, first_sent_ms, last_ms }))
    }

    /// Waits until the call may lead, or has its answer from another that did.
    async fn enter(
        &self,
        hash: OperationHash,
        fingerprint: &Fingerprint,
        deadline: Option<Instant>,
    ) -> Result<Turn, Error> {
        let latest = Instant::now() + Duration::from_millis(FLIGHT_WAIT_MS_MAX);
        let deadline = deadline.map_or(latest, |deadline| deadline.min(latest));
        loop {
            let follower = match self.flights.enter(hash) {
                Place::Lead(flight) => return Ok(Turn::Lead(flight)),
                Place::Full => return Err(Error::Crowded),
                Place::Follow(follower) => follower,
            };
            match follower.wait(deadline).await {
                Waited::Landed(landed) if landed.fingerprint.differing(fingerprint).is_empty() => {
                    return Ok(Turn::Answered(Begun::Joined(landed.verdict)));
                }
                // Whoever asks for something else, or lost the leader, takes the next turn.
                Waited::Landed(_) | Waited::Lost => {}
                Waited::TimedOut => return Ok(Turn::Answered(Begun::Unresolved(Unresolved::InFlight))),
            }
        }
    }

    fn fingerprint(&self, asked: &Asked<'_>) -> Fingerprint {
        let Outgoing { template, path, .. } = &asked.outgoing;
        let params = asked.params.iter().map(|pair| (pair.name.as_str(), pair.value.as_str()));
        Fingerprint::of(&self.key, template, path, params)
    }

    async fn read(&self, hash: &OperationHash) -> Result<Option<Record>, Error> {
        let stored = self.store.operation(hash).await.map_err(Error::Unread)?;
        Ok(stored.as_deref().map(Record::decode).transpose()?)
    }

    async fn commit(&self, hash: OperationHash, record: &Record, audit: &audit::Record) -> Result<(), Error> {
        let listed = !matches!(record.state, State::Settled(_));
        let operations = vec![OperationRow { hash, record: record.encode()?, listed }];
        let batch = Batch { operations, audit: vec![audit.row()?], ..Batch::default() };
        self.store.commit(batch).await.map(drop).map_err(not_recorded)
    }

    /// Answers a call that sends nothing; its audit record need not be waited for.
    fn answer(&self, mut audit: audit::Record, operation: &Operation, begun: Begun) -> Result<Begun, Error> {
        trail::answered(&mut audit, operation, begun.word());
        self.store.append_audit_lazily(audit.row()?);
        Ok(begun)
    }
}

/// How a call got its turn.
enum Turn {
    Lead(Flight<Landed>),
    /// It needs none: here is its answer.
    Answered(Begun),
}

fn not_recorded(error: store::Error) -> Error {
    if error.certain_not_written() { Error::NotRecorded(error) } else { Error::Uncertain }
}
