//! One subscription: its progress, who consumes it, and what of it is on the disk. What an answer says is on the disk
//! before it is given.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::ack::AckId;
use super::progress::{Known, Lost, Parked, Progress, Stale, Taken, Taker, Verdict};
use super::terms::{Record, Terms};
use crate::domain::clock::{Moment, UnixMillis};
use crate::domain::planted;
use crate::events::{self, Feed, Filter, LogEvent};
use crate::store::{self, AuditRow, Batch, Entry, Store};

/// The kind of entry that a subscription is kept as.
pub(super) const KIND: &str = "subscription";
/// The kind of entry that an event is kept as that a subscription has parked.
pub(super) const PARKED: &str = "subscription_parked";

/// One subscription.
#[derive(Debug)]
pub struct Named {
    terms: Terms,
    filter: Filter,
    store: Store,
    state: Mutex<State>,
    /// Wakes consumers.
    changed: watch::Sender<u64>,
    /// Held while something is made durable, so that the disk changes in the order of the state.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) progress: Progress,
    /// Goes up with every change that has to be durable.
    version: u64,
    /// The version that is on the disk.
    durable: u64,
    /// What is parked on the disk; `None` where a write of it has begun and is not known to be there.
    parked: BTreeMap<u64, Option<Parked>>,
    /// The reach on the disk, and up to where nothing is of use even to what is on the disk.
    reach: u64,
    needless: u64,
    /// The names of open streams.
    streams: BTreeMap<u64, Arc<str>>,
    last_stream: u64,
    ended: bool,
    /// When the earliest event was received that has still to be dealt with, when somebody last looked.
    oldest_ms: Option<UnixMillis>,
}

/// How a subscription is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Everything up to here has been dealt with, is parked, or did not match.
    pub position: u64,
    /// Position of the last event in the log.
    pub head: u64,
    /// When that was received, if the log still has it.
    pub head_received_ms: Option<UnixMillis>,
    /// Events that have still to be dealt with, or to be looked at.
    pub lag: u64,
    /// How long ago the earliest of them was received, in seconds.
    pub lag_s: i64,
    /// Events that are out.
    pub in_flight: usize,
    /// Events that are parked.
    pub parked: usize,
    /// Open streams.
    pub consumers: usize,
    /// Whether deliveries are stopped.
    pub paused: bool,
    /// What was gone before it was dealt with.
    pub lost: Option<Lost>,
}

/// A change was not made durable.
#[derive(Debug, thiserror::Error)]
pub enum Unkept {
    /// The subscription was deleted, and what is said of it has no effect.
    #[error("the subscription was deleted")]
    Ended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Unkept {
    /// The failure of the store; of what has ended, nothing needs to be kept.
    pub(super) fn unless_ended(self) -> Result<(), store::Error> {
        match self {
            Self::Ended => Ok(()),
            Self::Store(error) => Err(error),
        }
    }
}

impl Named {
    pub(super) fn new(
        (terms, progress): (Terms, Progress),
        parked: BTreeMap<u64, Parked>,
        store: Store,
    ) -> Self {
        let state = State {
            reach: progress.reach(),
            needless: progress.needless(),
            progress,
            version: 1,
            durable: 0,
            parked: on_disk(parked),
            streams: BTreeMap::new(),
            last_stream: 0,
            ended: false,
            oldest_ms: None,
        };
        let (filter, state, changed) = (terms.matcher(), Mutex::new(state), watch::Sender::new(0));
        Self { terms, filter, store, state, changed, turn: tokio::sync::Mutex::default() }
    }

    /// What it was created as.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Acknowledges deliveries, durably.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn acknowledge(self: &Arc<Self>, ids: &[AckId], head: u64) -> Result<(), Refused> {
        if let Some(index) = ids.iter().position(|id| !self.gave_out(id) || id.position > head) {
            return Err(Refused::Stale(index, Stale::Generation));
        }
        let answered = self.change(|progress| progress.acknowledge(ids));
        answered.map_err(|(index, stale)| Refused::Stale(index, stale))?;
        if planted::active("subscription-ack-lost") {
            return Ok(());
        }
        Ok(self.keep(Vec::new()).await?)
    }

    /// Rejects a delivery, durably and on record; answers whether its event is parked now.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn reject(
        self: &Arc<Self>,
        (id, now): (AckId, Moment),
        (verdict, reason): (Verdict, &str),
        audit: Vec<AuditRow>,
    ) -> Result<bool, Refused> {
        if !self.gave_out(&id) {
            return Err(Refused::Stale(0, Stale::Generation));
        }
        let rejected = self.change(|progress| progress.reject(id, verdict, reason, now));
        let parked = rejected.map_err(|stale| Refused::Stale(0, stale))?;
        self.keep(audit).await?;
        Ok(parked)
    }

    /// Changes something by the word of whoever manages it, durably and on record.
    ///
    /// # Errors
    /// When that cannot be made durable, it may hold nevertheless, unless the subscription has ended.
    pub async fn manage<R>(
        self: &Arc<Self>,
        audit: Vec<AuditRow>,
        change: impl FnOnce(&mut Progress) -> R,
    ) -> Result<R, Unkept> {
        let done = self.change(change);
        self.keep(audit).await.map(|()| done)
    }

    /// The positions and contents of what is parked.
    #[must_use]
    pub fn parked(&self) -> BTreeMap<u64, Parked> {
        self.state().progress.parked().clone()
    }

    /// Whether so many further events can be open.
    #[must_use]
    pub fn has_room_for(&self, count: usize) -> bool {
        self.state().progress.has_room_for(count)
    }

    /// How it is doing.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn standing(&self, feed: &Feed, now: Moment) -> Result<Standing, events::Error> {
        self.look_back(feed).await?;
        let head = *feed.head().borrow();
        let head_received_ms = received_ms(feed, head).await?;
        let state = self.state();
        Ok(Standing {
            position: state.progress.position(),
            head,
            head_received_ms,
            lag: state.progress.lag(head),
            lag_s: seconds_since(state.oldest_ms, now.wall_ms),
            in_flight: state.progress.in_flight(),
            parked: state.progress.parked().len(),
            consumers: state.streams.len(),
            paused: state.progress.is_paused(),
            lost: state.progress.lost(),
        })
    }

    /// Sees when the earliest event was received that has still to be dealt with.
    pub(super) async fn look_back(&self, feed: &Feed) -> Result<(), events::Error> {
        let head = *feed.head().borrow();
        let (lag, known_ms, first) = {
            let progress = &self.state().progress;
            (progress.lag(head), progress.oldest_received_ms(), progress.position().saturating_add(1))
        };
        let oldest_ms = match known_ms {
            _ if lag == 0 => None,
            None => received_ms(feed, first).await?,
            known => known,
        };
        self.state().oldest_ms = oldest_ms;
        Ok(())
    }

    /// The lag in events and in seconds, as far as that is at hand.
    pub(super) fn lag(&self, head: u64, now_ms: UnixMillis) -> (u64, i64) {
        let state = self.state();
        let lag = state.progress.lag(head);
        (lag, if lag == 0 { 0 } else { seconds_since(state.oldest_ms, now_ms) })
    }

    /// Everything up to here is of no use to it any more, nor after a restart.
    pub(super) fn needless(&self) -> u64 {
        let state = self.state();
        state.progress.needless().min(state.needless)
    }

    /// Takes back what was not answered in time.
    pub(super) fn expire(&self, now: Moment) {
        let mut state = self.state();
        if state.progress.expire(now) {
            state.note();
            drop(state);
            self.wake();
        }
    }

    /// Everything up to `last` has left the log, or is about to; says what is lost by it.
    pub(super) fn lose(&self, last: u64) {
        if let Some(lost) = self.change(|progress| progress.lose(last)) {
            self.tell(lost);
        }
    }

    /// Says what is lost.
    pub(super) fn tell(&self, Lost { first, last }: Lost) {
        let subscription = self.terms.key();
        tracing::error!(subscription, first, last, "events left the log before they were dealt with");
    }

    /// Does what time alone makes due, and keeps what was not kept; `all` of it, or what matters.
    pub(super) async fn tend(self: &Arc<Self>, all: bool, now: Moment) -> Result<(), store::Error> {
        let due = {
            let mut state = self.state();
            let expired = state.progress.expire(now);
            let moved = all && state.progress.reach() != state.reach;
            state.version += u64::from(expired || moved);
            if expired {
                self.wake();
            }
            state.version > state.durable
        };
        if due { self.keep(Vec::new()).await.or_else(Unkept::unless_ended) } else { Ok(()) }
    }

    /// Changes the progress, and wakes whoever waits for that.
    fn change<R>(&self, change: impl FnOnce(&mut Progress) -> R) -> R {
        let mut state = self.state();
        state.version += 1;
        let done = change(&mut state.progress);
        drop(state);
        self.wake();
        done
    }

    /// Makes durable what the state is now, and the audit rows with it, whether somebody waits for it or not. Callers that
    /// come at once share one write.
    pub(super) async fn keep(self: &Arc<Self>, audit: Vec<AuditRow>) -> Result<(), Unkept> {
        let (named, wanted) = (Arc::clone(self), self.state().version);
        let work = tokio::spawn(async move { named.keep_in_turn(wanted, audit).await });
        work.await.unwrap_or(Err(Unkept::Store(store::Error::Uncertain)))
    }

    async fn keep_in_turn(&self, wanted: u64, audit: Vec<AuditRow>) -> Result<(), Unkept> {
        let _turn = self.turn.lock().await;
        let (entries, version, kept) = {
            let mut state = self.state();
            if state.ended {
                return Err(Unkept::Ended);
            }
            if state.durable >= wanted && audit.is_empty() {
                return Ok(());
            }
            let entries = self.begin_write(&mut state);
            let progress = &state.progress;
            let kept = (on_disk(progress.parked().clone()), progress.reach(), progress.needless());
            (entries, state.version, kept)
        };
        self.store.commit(Batch { entries, audit, ..Batch::default() }).await?;
        planted::point("subscription-kept");
        let mut state = self.state();
        state.durable = version;
        (state.parked, state.reach, state.needless) = kept;
        Ok(())
    }

    /// Ends it, durably and on record; streams end.
    pub(super) async fn end(&self, audit: Vec<AuditRow>) -> Result<(), Unkept> {
        let _turn = self.turn.lock().await;
        let entries = {
            let mut state = self.state();
            if state.ended {
                return Err(Unkept::Ended);
            }
            // Where it fails, whatever may have gone from the disk is written anew.
            state.note();
            state.parked.values_mut().for_each(|on_disk| *on_disk = None);
            let gone = |kind, id| Entry { kind, id, body: None };
            let parked = state.parked.keys().chain(state.progress.parked().keys());
            let parked = parked.map(|position| gone(PARKED, self.parked_id(*position)));
            parked.chain([gone(KIND, self.terms.key())]).collect()
        };
        self.store.commit(Batch { entries, audit, ..Batch::default() }).await?;
        self.state().ended = true;
        self.wake();
        Ok(())
    }

    /// What changes on the disk. From here on nobody knows what of it is there, until the write is known to have succeeded.
    fn begin_write(&self, state: &mut State) -> Vec<Entry> {
        let record = Record { terms: self.terms.clone(), saved: state.progress.saved() };
        // Text in named members can always be written.
        let main = Entry { kind: KIND, id: self.terms.key(), body: serde_json::to_vec(&record).ok() };
        let parked = state.progress.parked();
        let gone = state.parked.keys().filter(|position| !parked.contains_key(position));
        let gone = gone.map(|position| (*position, None));
        let is_there = |position, of| state.parked.get(position).and_then(Option::as_ref) == Some(of);
        let new = parked.iter().filter(|(position, of)| !is_there(*position, *of));
        let new = new.map(|(position, of)| (*position, serde_json::to_vec(of).ok()));
        let changes: Vec<_> = gone.chain(new).collect();
        state.parked.extend(changes.iter().map(|(position, _)| (*position, None)));
        state.needless = state.needless.min(state.progress.needless());
        let entry = |(position, body)| Entry { kind: PARKED, id: self.parked_id(position), body };
        changes.into_iter().map(entry).chain([main]).collect()
    }

    fn parked_id(&self, position: u64) -> String {
        format!("{}/{position}", self.terms.key())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves a state that is as good as any: it changes by whole steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake(&self) {
        self.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn lets_through(&self, logged: &LogEvent) -> bool {
        self.filter.matches(logged)
    }

    pub(super) fn ack_id(&self, generation: u32, taken: Taken) -> AckId {
        let Taken { position, attempt, replay, .. } = taken;
        let log = self.store.run_at(position);
        AckId { subscription: self.terms.id, log, generation, replay, attempt, position }
    }

    /// Whether a delivery was this subscription's, of an event that stands where it did.
    fn gave_out(&self, id: &AckId) -> bool {
        (id.subscription, id.log) == (self.terms.id, self.store.run_at(id.position))
    }
}

impl State {
    /// Opens a stream; answers its number. What a consumer of the same name had out comes back, and its stream ends.
    pub(super) fn join(&mut self, name: &Arc<str>, now: Moment) -> u64 {
        if !name.is_empty() {
            self.streams.retain(|_, other| other != name);
            self.version += u64::from(self.progress.release(name, now));
        }
        self.last_stream += 1;
        self.streams.insert(self.last_stream, Arc::clone(name));
        self.last_stream
    }

    pub(super) fn leave(&mut self, stream: u64) {
        self.streams.remove(&stream);
    }

    /// Whether a stream may go on; `None` once the subscription has ended.
    pub(super) fn has(&self, stream: u64) -> Option<bool> {
        (!self.ended).then(|| self.streams.contains_key(&stream))
    }

    /// Takes the next event for a stream. One that was delivered before must be durable before it goes out, or an event
    /// that brings everything down would be delivered for ever.
    pub(super) fn take(
        &mut self,
        taker: &Taker,
        now: Moment,
        shown: impl FnMut(&str) -> bool,
    ) -> Option<(Taken, u32)> {
        let taken = self.progress.take(taker, now, shown)?;
        self.version += u64::from(taken.attempt > 1);
        Some((taken, self.progress.generation()))
    }

    /// Takes note of a change that has to be durable before long.
    pub(super) fn note(&mut self) {
        self.version += 1;
    }
}

/// What has to be known of an event to deliver it in its turn.
#[must_use]
pub fn known(logged: &LogEvent) -> Known {
    let object = logged.envelope().map(|envelope| envelope.object_id.as_str()).unwrap_or_default();
    Known {
        object: object.into(),
        kind: logged.event.kind.as_str().into(),
        bytes: logged.event.json.len(),
        received_ms: logged.event.received_ms,
    }
}

/// An answer does not count.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// One of them, by its index, is out of date.
    #[error("{1}")]
    Stale(usize, Stale),
    /// It is not durable.
    #[error(transparent)]
    Unkept(#[from] Unkept),
}

fn on_disk(parked: BTreeMap<u64, Parked>) -> BTreeMap<u64, Option<Parked>> {
    parked.into_iter().map(|(position, of)| (position, Some(of))).collect()
}

/// When the event at a position was received, if the log still has it.
async fn received_ms(feed: &Feed, position: u64) -> Result<Option<UnixMillis>, events::Error> {
    let found = feed.after(position.saturating_sub(1), 1, 1).await?;
    Ok(found.first().map(|logged| logged.event.received_ms))
}

fn seconds_since(then_ms: Option<UnixMillis>, now_ms: UnixMillis) -> i64 {
    then_ms.map_or(0, |then_ms| now_ms.saturating_sub(then_ms).max(0) / 1000)
}

#[cfg(test)]
mod tests;
