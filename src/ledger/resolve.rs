//! How an unresolved operation is found out without a call: by a look at Stripe, an event or a person. It neither looks
//! nor listens itself.

use super::finding::{self, EventProof, Finding, Moved, Ruling};
use super::flights::{Flight, Place};
use super::outcome::{Settled, Stuck};
use super::proof::Verdict;
use super::roster::Census;
use super::spend::Taken;
use super::state::Record;
use super::turn::Turn;
use super::{Error, Landed, Ledger, lease, trail};
use crate::audit;
use crate::contract::{self, Effect, Spec};
use crate::domain::clock::Moment;
use crate::domain::operation::OperationHash;
use crate::domain::planted;

/// The right to find out about one unresolved operation; as long as it lives, nothing is sent for it. Dropping it leaves
/// the operation as it was.
#[derive(Debug)]
pub struct Hold {
    pub(super) flight: Flight<Landed>,
    pub(super) record: Record,
    pub(super) why: Option<Stuck>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proved {
    /// It is on record.
    Settled {
        /// Whether a later generation was sent than the one that took effect: it may have taken effect too.
        later_sent: bool,
    },
    /// The operation took effect before, by another object: an alarm.
    Doubled,
    /// It is not about this operation.
    NotOurs,
    /// The operation is in flight; ask again when it has landed.
    InFlight,
    /// It changes nothing.
    Nothing,
}

/// What became of a person's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruled {
    /// It stands.
    Done(Settled),
    /// The operation is in flight, or was a moment ago.
    TooEarly,
    /// Nothing of this operation is unresolved.
    NotUnresolved,
}

/// The newest entry of an operation.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The operation.
    pub hash: OperationHash,
    /// The entry.
    pub record: Record,
    /// Whether a call of it is on its way in this process.
    pub live: bool,
}

impl Hold {
    /// What is on record.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The RPC; `None` when this build has it no more.
    #[must_use]
    pub fn spec(&self) -> Option<&'static Spec> {
        contract::by_ledger_name(&self.record.operation.rpc)
    }

    /// Why looking is all that is left; `None` while a resend by the caller may still find the outcome out.
    #[must_use]
    pub fn why(&self) -> Option<Stuck> {
        self.why
    }
}

impl Ledger {
    /// Takes hold of an unresolved operation, to look at Stripe what came of it; `None` while it is in flight, or when
    /// nothing of it is unresolved.
    ///
    /// # Errors
    /// When its entry cannot be read.
    pub async fn hold(&self, hash: OperationHash) -> Result<Option<Hold>, Error> {
        let Some((flight, record)) = self.board(hash).await? else { return Ok(None) };
        let now = self.clock.now();
        let record = match record.filter(Record::unresolved) {
            Some(record) if self.may_take(&record, now) => record,
            Some(_) | None => return Ok(None),
        };
        let why = finding::why_look(&record, now);
        Ok(Some(Hold { flight, record, why }))
    }

    /// Puts on record what a look found, and tells everybody who waits for it.
    ///
    /// # Errors
    /// Then the outcome counts as unknown, whatever was found.
    pub async fn found(
        &self,
        hold: Hold,
        finding: Finding,
        mut audit: audit::Record,
    ) -> Result<Verdict, Error> {
        // An RPC that this build does not know is taken for one that moves money.
        let effect = hold.spec().map_or(Effect::Money, |spec| spec.effect);
        let Hold { flight, record: before, why } = hold;
        let is_unasked = matches!(finding, Finding::Unasked { .. });
        let (record, verdict) = finding::looked(before.clone(), finding, why, effect, self.clock.now());
        if is_unasked {
            // It says nothing of the operation: whoever waits takes the next turn, and may be able to ask.
            return Ok(verdict);
        }
        trail::resolved(&mut audit, &record, &verdict, "look");
        if record.state == before.state {
            self.store.append_audit_lazily(audit.row()?);
        } else {
            planted::point("found-before");
            let committed = self.commit(before.taken(), &record, &audit).await;
            planted::point("found-durable");
            committed.map_err(|error| Error::Unsettled(Box::new(error)))?;
        }
        // Whoever waits and may still resend takes the next turn, and finds out more than looking did.
        if why.is_some() || !matches!(verdict, Verdict::Unknown { .. }) {
            flight.land(Landed { fingerprint: record.fingerprint, verdict: verdict.clone() });
        }
        Ok(verdict)
    }

    /// Settles an operation by an event that names a key of it, whatever was thought of its outcome before.
    ///
    /// # Errors
    /// When the entry cannot be read or written; then the event has to come again.
    pub async fn prove(
        &self,
        hash: OperationHash,
        proof: &EventProof,
        audit: audit::Record,
    ) -> Result<Proved, Error> {
        let Some((flight, record)) = self.board(hash).await? else { return Ok(Proved::InFlight) };
        let Some(record) = record else { return Ok(Proved::NotOurs) };
        let Some(spec) = contract::by_ledger_name(&record.operation.rpc) else { return Ok(Proved::Nothing) };
        let now = self.clock.now();
        if !self.may_take(&record, now) {
            return Ok(Proved::InFlight);
        }
        let moved = finding::proved(&record, spec, proof, now);
        self.moved(flight, record.taken(), moved, &proof.event_id, audit).await
    }

    /// Takes note of a later state of the object that an operation made: replays show it, as soon as there is an outcome.
    ///
    /// # Errors
    /// As for [`Ledger::prove`].
    pub async fn turn(
        &self,
        hash: OperationHash,
        turn: &Turn,
        audit: audit::Record,
    ) -> Result<Proved, Error> {
        let Some((flight, record)) = self.board(hash).await? else { return Ok(Proved::InFlight) };
        let Some(record) = record else { return Ok(Proved::NotOurs) };
        let now = self.clock.now();
        if !self.may_take(&record, now) {
            return Ok(Proved::InFlight);
        }
        let moved = finding::turned(&record, turn, now);
        self.moved(flight, record.taken(), moved, &turn.event_id, audit).await
    }

    async fn moved(
        &self,
        flight: Flight<Landed>,
        before: Option<Taken>,
        moved: Moved,
        event_id: &str,
        mut audit: audit::Record,
    ) -> Result<Proved, Error> {
        let (record, later_sent) = match moved {
            Moved::To { record, later_sent } => (record, later_sent),
            Moved::Doubled => return Ok(Proved::Doubled),
            Moved::NotOurs => return Ok(Proved::NotOurs),
            Moved::Nothing => return Ok(Proved::Nothing),
        };
        let verdict = finding::as_it_was(&record);
        let by = if later_sent { "event_of_earlier_generation" } else { "event" };
        trail::resolved(&mut audit, &record, &verdict, by);
        audit.event_id = Some(event_id.to_owned());
        planted::point("prove-before");
        self.commit(before, &record, &audit).await?;
        planted::point("prove-durable");
        // Whoever waits for an outcome takes the next turn while there is none.
        if !record.unresolved() {
            flight.land(Landed { fingerprint: record.fingerprint, verdict });
        }
        Ok(Proved::Settled { later_sent })
    }

    /// Settles an operation by a person's word. `audit` says who and why.
    ///
    /// # Errors
    /// When the entry cannot be read or written.
    pub async fn rule(
        &self,
        hash: OperationHash,
        ruling: Ruling,
        mut audit: audit::Record,
    ) -> Result<Ruled, Error> {
        let Some((flight, record)) = self.board(hash).await? else { return Ok(Ruled::TooEarly) };
        let Some(record) = record.filter(Record::unresolved) else { return Ok(Ruled::NotUnresolved) };
        let now = self.clock.now();
        if !self.may_take(&record, now) {
            return Ok(Ruled::TooEarly);
        }
        let before = record.taken();
        let Some(record) = finding::ruled(record, ruling, now) else { return Ok(Ruled::TooEarly) };
        let verdict = finding::as_it_was(&record);
        trail::resolved(&mut audit, &record, &verdict, "operator");
        self.commit(before, &record, &audit).await?;
        flight.land(Landed { fingerprint: record.fingerprint, verdict: verdict.clone() });
        match verdict {
            Verdict::Settled(settled) => Ok(Ruled::Done(settled)),
            Verdict::Open { .. } | Verdict::Unknown { .. } | Verdict::NeedsOperator(_) => {
                Ok(Ruled::NotUnresolved)
            }
        }
    }

    /// The newest entry of an operation; `None` when it was never asked for.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn entry(&self, hash: OperationHash) -> Result<Option<Entry>, Error> {
        let live = self.flights.live(&hash);
        Ok(self.read(&hash).await?.map(|record| Entry { hash, record, live }))
    }

    /// The unresolved operation for which a request with this key was sent, in whichever generation.
    #[must_use]
    pub fn holder_of(&self, idempotency_key: &str) -> Option<OperationHash> {
        self.roster.holder_of(idempotency_key)
    }

    /// How many operations are unresolved.
    #[must_use]
    pub fn census(&self) -> Census {
        self.roster.census()
    }

    /// Takes the only place of an operation, and reads its entry then; `None` while somebody else has it.
    async fn board(&self, hash: OperationHash) -> Result<Option<(Flight<Landed>, Option<Record>)>, Error> {
        match self.flights.enter(hash) {
            Place::Lead(flight) => Ok(Some((flight, self.read_now(&hash, self.clock.now()).await?))),
            Place::Follow(_) | Place::Full => Ok(None),
        }
    }

    fn may_take(&self, record: &Record, now: Moment) -> bool {
        lease::may_take(record, self.seat, now)
    }
}
