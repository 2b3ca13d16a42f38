//! The memory of every change: what was asked, what was sent, what came of it. Nothing is sent before its intent is
//! durable, and by nobody but the holder of a [`Ticket`]. The sending itself is the caller's.

mod background;
mod budget;
mod call;
#[cfg(test)]
mod enumeration;
mod error;
pub mod finding;
#[cfg(test)]
mod fixtures;
mod flights;
#[cfg(test)]
mod laws;
pub mod lease;
pub mod outcome;
pub mod proof;
mod resolve;
mod roster;
pub mod spend;
pub mod state;
#[cfg(test)]
mod tests;
mod trail;
pub mod transition;
mod turn;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

pub use background::Pruned;
pub use budget::{Asker, Budgets, Exceeded, Use};
pub use call::{Asked, Begun, Preview, Standing, Status, Ticket, Unresolved};
pub use error::Error;
pub use finding::{EventProof, Finding, Ruling};
pub use lease::Lease;
pub use outcome::{Case, Found, Refusal, Settled, Stuck, Success, Witness};
pub use proof::Verdict;
pub use resolve::{Entry, Hold, Proved, Ruled};
pub use roster::Census;
pub use spend::{Claim, Spend};
pub use state::{Record, State};
pub use transition::{Known, Sending};
pub use turn::Turn;

use crate::audit;
use crate::config::Budget;
use crate::contract::Spec;
use crate::domain::clock::{Clock, Moment};
use crate::domain::fingerprint::{Fingerprint, HashKey};
use crate::domain::limits::{AUDIT_READ_BYTES_MAX, FLIGHT_WAIT_MS_MAX, SUPERSEDED_PAGE_RECORDS};
use crate::domain::operation::{Operation, OperationHash};
use crate::domain::planted;
use crate::store::{self, AuditRow, Batch, OperationRow, Store};
use crate::stripe::{Attempt, Outgoing};

use budget::Pending;
use call::Landed;
use flights::{Flight, Flights, Place, Waited};
use lease::Seat;
use proof::Expected;
use roster::Roster;
use spend::{Taken, claimed, sending};
use transition::{Decision, Departure, Fresh};

/// The ledger of one gateway. Clones share it; two that do not share it must not work on one store.
#[derive(Clone, Debug)]
pub struct Ledger {
    store: Store,
    clock: Arc<dyn Clock>,
    key: HashKey,
    flights: Flights<Landed>,
    seat: Seat,
    roster: Roster,
    budgets: Budgets,
    clock_seen: Arc<Mutex<Option<Moment>>>,
    forgetful: bool,
}

impl Ledger {
    /// The ledger in `store`. `key` must be the same for the store's whole life.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, key: HashKey) -> Self {
        // The store locks its folder, so nobody else can have anything in flight.
        let seat = Seat { owner: RandomState::new().hash_one(()), alone: true };
        let (flights, roster, clock_seen) = (Flights::default(), Roster::default(), Arc::default());
        let budgets = Budgets::new(store.clone());
        Self { store, clock, key, flights, seat, roster, budgets, clock_seen, forgetful: false }
    }

    /// The same ledger on a store that is known to have lost its newest entries, if `forgetful`: it begins nothing that
    /// moves money, since that may have been done already.
    #[must_use]
    pub fn forgetful(self, forgetful: bool) -> Self {
        Self { forgetful, ..self }
    }

    /// The same ledger with these budgets from now on.
    #[must_use]
    pub fn with_budgets(self, budgets: Vec<Budget>) -> Self {
        self.budgets.replace(budgets);
        self
    }

    /// The budgets; they can be replaced at any time.
    #[must_use]
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
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
            Seated::Lead(flight) => flight,
            Seated::Answered(begun) => return self.answer(audit, &asked.operation, begun),
        };
        let now = self.clock.now();
        let record = self.read_now(&hash, now).await?;
        let mut decision = transition::decide(record.as_ref(), asked.call(&fingerprint), now, self.seat);
        if let (Decision::Send(how), Some(record)) = (&decision, &record)
            && transition::may_be_superseded(*how, asked.spec)
            && self.superseded(record).await?
        {
            decision = Decision::Look(Stuck::Superseded);
        }
        let (how, record) = match (self.remembered(decision, asked.spec), record) {
            (Decision::Send(how), record) => (how, record),
            (Decision::Answer(known), _) => return self.answer(audit, &asked.operation, known.into()),
            (Decision::Look(why), Some(record)) => {
                let hold = Box::new(Hold { flight, record, why: Some(why) });
                return self.answer(audit, &asked.operation, Begun::Look(hold));
            }
            // There is nothing to look for when nothing is on record.
            (Decision::Look(_), None) => (Sending::New, None),
        };
        let (spec, claim) = (asked.spec, asked.claim.clone());
        let how = sending(how, record.as_ref(), claim.as_ref());
        let before = record.as_ref().and_then(Record::taken);
        let fresh = self.fresh(asked, fingerprint);
        let Departure { mut record, outgoing, ambiguous, lease } =
            transition::depart(how, record, fresh, now, self.seat);
        let pending = match claimed(how, &record, claim) {
            None => self.budgets.follow(before, &record).await,
            Some(claim) => match self.budgets.reserve(&mut record, claim, spec, now).await? {
                Ok(pending) => pending,
                Err(exceeded) => {
                    return self.answer(audit, &record.operation, Begun::OverBudget(Box::new(exceeded)));
                }
            },
        };
        trail::intent(&mut audit, &record, &outgoing);
        planted::point("intent-before");
        self.keep(pending, &record, vec![audit.row()?]).await?;
        planted::point("intent-durable");
        Ok(Begun::New(Box::new(Ticket { flight, record, spec, lease, outgoing, ambiguous })))
    }

    /// Puts on record what came of a sent change, and tells everybody who waits for it, unless nothing came of it for want
    /// of the caller's own time or turn.
    ///
    /// # Errors
    /// Then the outcome counts as unknown, whatever Stripe answered.
    pub async fn settle(
        &self,
        ticket: Ticket,
        attempts: &[Attempt],
        mut audit: audit::Record,
    ) -> Result<Verdict, Error> {
        let Ticket { flight, record, spec, outgoing, ambiguous, .. } = ticket;
        let expected = Expected { object: spec.object, keyed: outgoing.idempotency_key.is_some() };
        let verdict = proof::verdict(attempts, ambiguous, expected);
        trail::outcome(&mut audit, &record, &outgoing, &verdict, attempts);
        let before = record.taken();
        let (record, verdict) = transition::settled(record, outgoing, verdict, self.clock.now());
        planted::point("settle-before");
        let committed = if planted::active("settle-not-awaited") {
            Ok(())
        } else {
            self.commit(before, &record, &audit).await
        };
        planted::point("settle-durable");
        committed.map_err(|error| Error::Unsettled(Box::new(error)))?;
        // What this call alone lacked is no answer to those who wait: one of them takes the next turn.
        if !verdict.is_its_callers() {
            flight.land(Landed { fingerprint: record.fingerprint, verdict: verdict.clone() });
        }
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
        let now = self.clock.now();
        let decision = transition::decide(record.as_ref(), asked.call(&fingerprint), now, self.seat);
        let how = match self.remembered(decision, asked.spec) {
            // It would wait for the one in flight.
            Decision::Send(Sending::Resend { ambiguous: true }) | Decision::Look(_)
                if self.flights.live(&hash) =>
            {
                return Ok(Preview::Answer(Known::InFlight));
            }
            Decision::Send(how) => how,
            Decision::Answer(known) => return Ok(Preview::Answer(known)),
            Decision::Look(why) => return Ok(Preview::Look(why)),
        };
        let (spec, claim) = (asked.spec, asked.claim.clone());
        let how = sending(how, record.as_ref(), claim.as_ref());
        let fresh = self.fresh(asked, fingerprint);
        let departure = transition::depart(how, record, fresh, now, self.seat);
        if let Some(claim) = claimed(how, &departure.record, claim)
            && let Some(exceeded) = self.budgets.preview(&departure.record, &claim, spec, now).await?
        {
            return Ok(Preview::OverBudget(Box::new(exceeded)));
        }
        Ok(Preview::Send { how, outgoing: Box::new(departure.outgoing) })
    }

    /// What is known of an operation; `None` when it was never asked for.
    ///
    /// # Errors
    /// When its entry cannot be read.
    pub async fn status(&self, operation: &Operation) -> Result<Option<Status>, Error> {
        let Some(Entry { record, live, .. }) = self.entry(operation.hash()).await? else { return Ok(None) };
        let in_flight = live || !lease::may_take(&record, self.seat, self.clock.now());
        let Record { generation, first_sent_ms, last_ms, state, .. } = record;
        let standing = match state {
            State::Open(_) | State::Lapsed => Standing::Open,
            State::InFlight { .. } if in_flight => Standing::InFlight,
            State::InFlight { .. } | State::Unknown { .. } => Standing::Unknown,
            State::NeedsOperator { case, .. } => Standing::NeedsOperator(case),
            State::Settled(settled) => Standing::Settled(settled),
        };
        Ok(Some(Status { standing, generation, first_sent_ms, last_ms }))
    }

    /// Waits until the call may lead, or has its answer from another that did.
    async fn enter(
        &self,
        hash: OperationHash,
        fingerprint: &Fingerprint,
        deadline: Option<Instant>,
    ) -> Result<Seated, Error> {
        let latest = Instant::now() + Duration::from_millis(FLIGHT_WAIT_MS_MAX);
        let deadline = deadline.map_or(latest, |deadline| deadline.min(latest));
        loop {
            let follower = match self.flights.enter(hash) {
                Place::Lead(flight) => return Ok(Seated::Lead(flight)),
                Place::Full => return Err(Error::Crowded),
                Place::Follow(follower) => follower,
            };
            match follower.wait(deadline).await {
                Waited::Landed(landed) if landed.fingerprint.differing(fingerprint).is_empty() => {
                    return Ok(Seated::Answered(Begun::Joined(landed.verdict)));
                }
                // Whoever asks for something else, or lost the leader, takes the next turn.
                Waited::Landed(_) | Waited::Lost => {}
                Waited::TimedOut => return Ok(Seated::Answered(Begun::Unresolved(Unresolved::InFlight))),
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

    /// The same, and if the wall clock turns out to have been set back, the entry says so for good.
    async fn read_now(&self, hash: &OperationHash, now: Moment) -> Result<Option<Record>, Error> {
        let record = self.read(hash).await?;
        self.budgets.reconcile(*hash, record.as_ref());
        let Some(marked) =
            record.as_ref().and_then(|record| lease::doubted(record, now, self.went_back(now)))
        else {
            return Ok(record);
        };
        self.keep(self.budgets.follow(marked.taken(), &marked).await, &marked, Vec::new()).await?;
        Ok(Some(marked))
    }

    /// Whether another change of the same path was sent since this generation's first intent, and not refused: audit
    /// records of intents tell, and they are durable before anything is sent.
    async fn superseded(&self, record: &Record) -> Result<bool, Error> {
        let Some(path) = record.outgoing().map(|outgoing| outgoing.path.as_str()) else { return Ok(false) };
        let ours = record.operation.hash();
        let mut after = record.audit_before;
        loop {
            let page =
                self.store.audit_with(path, after, SUPERSEDED_PAGE_RECORDS, AUDIT_READ_BYTES_MAX).await;
            let page = page.map_err(Error::Unread)?;
            let Some(last) = page.last() else { return Ok(false) };
            after = last.sequence;
            for stored in &page {
                let Some(other) = trail::intent_of(&stored.row.record, path).filter(|other| *other != ours)
                else {
                    continue;
                };
                let other = self.read(&other).await?;
                if other.as_ref().is_none_or(transition::may_have_taken_effect) {
                    return Ok(true);
                }
            }
        }
    }

    /// The decision, unless it rests on a memory with a hole.
    fn remembered(&self, decision: Decision, spec: &Spec) -> Decision {
        match decision {
            Decision::Send(how) if self.forgetful && transition::may_pay_again(how, spec) => {
                Decision::Answer(Known::Forgotten)
            }
            decision => decision,
        }
    }

    /// Writes an entry and its audit record; `before` is what the entry before it took.
    async fn commit(
        &self,
        before: Option<Taken>,
        record: &Record,
        audit: &audit::Record,
    ) -> Result<(), Error> {
        let audit = vec![audit.row()?];
        self.keep(self.budgets.follow(before, record).await, record, audit).await
    }

    /// The one place that writes entries: what they do to budgets is written with them.
    async fn keep(&self, pending: Pending, record: &Record, audit: Vec<AuditRow>) -> Result<(), Error> {
        let hash = record.operation.hash();
        let operations = vec![OperationRow { hash, record: record.encode()?, listed: record.unresolved() }];
        let batch = Batch { operations, audit, movements: pending.movements(), ..Batch::default() };
        let written = self.store.commit(batch).await;
        pending.close(&written);
        let kept = written.map(drop).map_err(not_recorded);
        // What may be on record is looked after as if it were.
        if !matches!(kept, Err(Error::NotRecorded(_))) {
            self.roster.note(hash, record);
        }
        kept
    }

    fn fresh(&self, asked: Asked<'_>, fingerprint: Fingerprint) -> Fresh {
        let Asked { operation, outgoing, .. } = asked;
        Fresh { operation, fingerprint, outgoing, audit_before: *self.store.audit_head().borrow() }
    }

    /// Answers a call that sends nothing; its audit record need not be waited for.
    fn answer(&self, mut audit: audit::Record, operation: &Operation, begun: Begun) -> Result<Begun, Error> {
        trail::answered(&mut audit, operation, begun.word());
        if let Begun::OverBudget(exceeded) = &begun {
            trail::denied(&mut audit, exceeded.rule());
        }
        self.store.append_audit_lazily(audit.row()?);
        Ok(begun)
    }
}

/// How a call got its turn.
enum Seated {
    Lead(Flight<Landed>),
    /// It needs none: here is its answer.
    Answered(Begun),
}

fn not_recorded(error: store::Error) -> Error {
    if error.certain_not_written() { Error::NotRecorded(error) } else { Error::Uncertain }
}
