//! How far a subscription has come, and what is out: the rules alone, without clock, disk or log.
//!
//! Everything up to `reach` was looked at, and whatever of it is neither open nor parked has been dealt with or did not
//! match. What is kept is therefore the reach and the open events, whose number is limited, and never what was
//! acknowledged. Leases are not kept: after a restart, everything open goes out again.

mod lines;
mod saved;
mod told;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::lines::Lines;
pub use self::saved::Saved;
pub use self::words::{Delivering, Known, Lost, Parked, Stale, Taken, Taker, Verdict};
use super::ack::AckId;
use crate::domain::clock::{Moment, UnixMillis};
use crate::domain::limits::{
    SUBSCRIPTION_OPEN_EVENTS_MAX, SUBSCRIPTION_PARKED_MAX, SUBSCRIPTION_RETRY_MS_MAX,
    SUBSCRIPTION_UNPARKABLE_RETRY_MS,
};

/// What a subscription says of an event whose consumer did not answer.
const LEASE_ENDED: &str = "the lease ended without an answer";

/// An event that has still to be dealt with.
#[derive(Clone, Debug, Default)]
struct Open {
    attempts: u32,
    replay: u32,
    /// Not before this; 0 for at once.
    retry_at_ms: UnixMillis,
    /// Absent until it was looked at, which after a restart is anew.
    known: Option<Known>,
    lease: Option<Lease>,
}

#[derive(Clone, Debug)]
struct Lease {
    stream: u64,
    name: Arc<str>,
    /// By the clock that nobody can set, in milliseconds.
    until_ms: i64,
}

/// How far a subscription has come.
#[derive(Clone, Debug)]
pub struct Progress {
    delivering: Delivering,
    generation: u32,
    replays: u32,
    paused: bool,
    /// Events that were received before this do not match.
    since_ms: UnixMillis,
    reach: u64,
    open: BTreeMap<u64, Open>,
    /// Acknowledged beyond the reach: they had been delivered before a restart that forgot how far it had been.
    ahead: BTreeSet<u64>,
    parked: BTreeMap<u64, Parked>,
    lost: Option<Lost>,
    /// Everything up to here was looked at since the start.
    looked: u64,
    lines: Lines,
    leases: BTreeSet<(i64, u64)>,
    out_by_stream: BTreeMap<u64, usize>,
    bytes_out: usize,
}

impl Progress {
    /// Begins right behind `position`, with events received at `since_ms` or later.
    #[must_use]
    pub fn new(delivering: Delivering, position: u64, since_ms: UnixMillis) -> Self {
        Self::load(delivering, Saved { reach: position, since_ms, ..Saved::default() }, BTreeMap::new(), 0)
    }

    /// The position behind which to look next. What was dealt with before a restart is not looked at again.
    pub fn look_behind(&mut self) -> u64 {
        if self.looked < self.reach {
            let open = self.open.range(self.looked.saturating_add(1)..=self.reach).next();
            self.looked = open.map_or(self.reach, |(position, _)| position.saturating_sub(1));
        }
        self.looked
    }

    /// The last position that was looked at.
    #[must_use]
    pub fn looked(&self) -> u64 {
        self.looked
    }

    /// How many events may be looked at now.
    #[must_use]
    pub fn room(&self) -> usize {
        // What is open already takes no further room.
        let again = usize::try_from(self.reach.saturating_sub(self.looked)).unwrap_or(usize::MAX);
        again.max(SUBSCRIPTION_OPEN_EVENTS_MAX.saturating_sub(self.open.len()))
    }

    /// Whether events of this time of receipt can match.
    #[must_use]
    pub fn is_since(&self, received_ms: UnixMillis) -> bool {
        received_ms >= self.since_ms
    }

    /// Looks at the next event of the log, which `matches` the filter or not. The positions between this and the last
    /// one are gone from the log; answers what is lost by that.
    pub fn look(&mut self, position: u64, known: Known, matches: bool) -> Option<Lost> {
        if position <= self.looked {
            return None;
        }
        let follows = position == self.looked.saturating_add(1);
        let lost = if follows { None } else { self.lose(position.saturating_sub(1)) };
        self.looked = position;
        if position > self.reach {
            self.reach = position;
            let was_ahead = self.ahead.remove(&position);
            if matches && !was_ahead {
                self.open.entry(position).or_default();
            }
        }
        // What is open is so for good reasons, whatever the filter says.
        if let Some(open) = self.open.get_mut(&position).filter(|open| open.known.is_none()) {
            self.lines.join(position, &known.object);
            open.known = Some(known);
        }
        lost
    }

    /// Takes the next event for a stream, if there is one that may go out and whose type is `shown` to it.
    pub fn take(&mut self, taker: &Taker, now: Moment, mut shown: impl FnMut(&str) -> bool) -> Option<Taken> {
        let of_stream = self.out_by_stream.get(&taker.stream).copied().unwrap_or_default();
        let full = self.leases.len() >= self.delivering.in_flight_max || of_stream >= taker.in_flight_max;
        if self.paused || full {
            return None;
        }
        let position = self.lines.heads().find(|position| self.is_ready(*position, now, &mut shown))?;
        let open = self.open.get_mut(&position)?;
        let known = open.known.as_ref()?;
        let bytes_out = self.bytes_out.saturating_add(known.bytes);
        if bytes_out > self.delivering.in_flight_bytes_max && !self.leases.is_empty() {
            return None;
        }
        self.bytes_out = bytes_out;
        self.lines.go_out(position, &known.object);
        open.attempts = open.attempts.saturating_add(1);
        let until_ms = now.boot.ms.saturating_add(self.delivering.lease_ms);
        open.lease = Some(Lease { stream: taker.stream, name: Arc::clone(&taker.name), until_ms });
        self.leases.insert((until_ms, position));
        *self.out_by_stream.entry(taker.stream).or_default() += 1;
        let lease_end_ms = now.wall_ms.saturating_add(self.delivering.lease_ms);
        Some(Taken { position, attempt: open.attempts, replay: open.replay, lease_end_ms })
    }

    /// Whether an event whose type is `shown` may go out as far as time and order go.
    #[must_use]
    pub fn has_ready(&self, now: Moment, mut shown: impl FnMut(&str) -> bool) -> bool {
        self.lines.heads().any(|position| self.is_ready(position, now, &mut shown))
    }

    /// Whether the first of a line may go out to somebody who is `shown` certain types.
    fn is_ready(&self, position: u64, now: Moment, shown: &mut impl FnMut(&str) -> bool) -> bool {
        self.open.get(&position).is_some_and(|open| {
            !waits(open.retry_at_ms, now.wall_ms)
                && open.known.as_ref().is_some_and(|known| shown(&known.kind))
        })
    }

    /// Whether a delivery is still the stream's: its lease has not ended, and nobody has moved the place.
    #[must_use]
    pub fn is_out(&self, taken: Taken, stream: u64) -> bool {
        let is_same = |open: &Open| (open.attempts, open.replay) == (taken.attempt, taken.replay);
        let lease = self.open.get(&taken.position).filter(|open| is_same(open));
        lease.and_then(|open| open.lease.as_ref()).is_some_and(|lease| lease.stream == stream)
    }

    /// Takes back an event that did not get as far as the consumer of its stream.
    pub fn untake(&mut self, taken: Taken, stream: u64) {
        let of_others = |open: &Open| open.lease.as_ref().is_some_and(|lease| lease.stream != stream);
        let open = self.open.get_mut(&taken.position);
        if let Some(open) = open.filter(|open| open.attempts == taken.attempt && !of_others(open)) {
            open.attempts = open.attempts.saturating_sub(1);
            self.end_lease(taken.position);
        }
    }

    /// Acknowledges deliveries, all of them or none.
    ///
    /// # Errors
    /// With the index of the first that is of an earlier generation; or where more is said of what lies beyond the reach
    /// than can have been delivered.
    pub fn acknowledge(&mut self, ids: &[AckId]) -> Result<(), (usize, Stale)> {
        if let Some(index) = ids.iter().position(|id| id.generation != self.generation) {
            return Err((index, Stale::Generation));
        }
        let ahead = ids.iter().filter(|id| id.position > self.reach).count();
        if self.ahead.len().saturating_add(ahead) > SUBSCRIPTION_OPEN_EVENTS_MAX {
            return Err((0, Stale::DeliveredAgain));
        }
        for id in ids {
            let position = id.position;
            if self.open.get(&position).is_some_and(|open| open.replay == id.replay) {
                self.close(position);
            } else if self.parked.get(&position).is_some_and(|parked| parked.replay == id.replay) {
                self.parked.remove(&position);
            } else if position > self.reach {
                self.ahead.insert(position);
            }
        }
        Ok(())
    }

    /// Rejects a delivery; answers whether its event is parked now.
    ///
    /// # Errors
    /// When it is not the latest delivery of its event, or was answered.
    pub fn reject(&mut self, id: AckId, verdict: Verdict, reason: &str, now: Moment) -> Result<bool, Stale> {
        if id.generation != self.generation {
            return Err(Stale::Generation);
        }
        let position = id.position;
        let Some(open) = self.open.get(&position) else {
            let parked = self.parked.get(&position).is_some_and(|parked| parked.replay == id.replay);
            return Err(match parked {
                true => Stale::Parked,
                // Delivered before a restart, and not looked at since.
                false if position > self.reach => Stale::DeliveredAgain,
                false => Stale::Answered,
            });
        };
        if open.replay != id.replay {
            return Err(Stale::Answered);
        }
        if open.lease.is_none() || open.attempts != id.attempt {
            return Err(Stale::DeliveredAgain);
        }
        match verdict {
            Verdict::Skip => self.close(position),
            Verdict::Park => return Ok(self.park(position, reason, now)),
            Verdict::RetryAfter(after_ms) => return Ok(self.give_back(position, after_ms, reason, now)),
        }
        Ok(false)
    }

    /// Takes back what was not answered in time; answers whether there was any.
    pub fn expire(&mut self, now: Moment) -> bool {
        let mut any = false;
        while let Some((until_ms, position)) = self.leases.first().copied() {
            if until_ms > now.boot.ms {
                break;
            }
            self.give_back(position, 0, LEASE_ENDED, now);
            any = true;
        }
        any
    }

    /// Takes back what a consumer of this name has out; answers whether there was any.
    pub fn release(&mut self, name: &str, now: Moment) -> bool {
        let is_of_name = |open: &Open| open.lease.as_ref().is_some_and(|lease| *lease.name == *name);
        let held: Vec<u64> =
            self.open.iter().filter(|(_, open)| is_of_name(open)).map(|(position, _)| *position).collect();
        for position in &held {
            self.give_back(*position, 0, "its consumer began anew without an answer", now);
        }
        !held.is_empty()
    }

    /// When something comes due by time alone: how long until then, in milliseconds.
    #[must_use]
    pub fn due_in_ms(&self, now: Moment) -> Option<i64> {
        let lease = self.leases.first().map(|(until_ms, _)| until_ms.saturating_sub(now.boot.ms));
        let retry = self.lines.heads().filter_map(|position| {
            let at_ms = self.open.get(&position)?.retry_at_ms;
            waits(at_ms, now.wall_ms).then(|| at_ms.saturating_sub(now.wall_ms))
        });
        lease.into_iter().chain(retry).min().map(|ms| ms.max(0))
    }

    /// Moves the place right behind `position`, for events received at `since_ms` or later.
    pub fn seek(&mut self, position: u64, since_ms: UnixMillis) {
        let mut parked = std::mem::take(&mut self.parked);
        // Those come again by themselves.
        parked.retain(|parked, _| *parked <= position);
        let saved = Saved {
            generation: self.generation.saturating_add(1),
            replays: self.replays,
            paused: self.paused,
            since_ms,
            reach: position,
            ..Saved::default()
        };
        *self = Self::load(self.delivering, saved, parked, 0);
    }

    /// Stops deliveries, or goes on with them.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Whether so many further events can be open.
    #[must_use]
    pub fn has_room_for(&self, count: usize) -> bool {
        self.open.len().saturating_add(count) <= SUBSCRIPTION_OPEN_EVENTS_MAX.saturating_mul(2)
    }

    /// Delivers events as a replay, whether they were dealt with before or not; answers its number.
    pub fn replay(&mut self, events: impl IntoIterator<Item = (u64, Known)>) -> u32 {
        self.replays = self.replays.saturating_add(1);
        for (position, known) in events {
            self.close(position);
            self.parked.remove(&position);
            self.ahead.remove(&position);
            self.reopen(position, self.replays, known);
        }
        self.replays
    }

    /// Delivers a parked event again; answers whether it was parked.
    pub fn replay_parked(&mut self, position: u64, known: Known) -> bool {
        let parked = self.parked.remove(&position);
        parked.map(|parked| self.reopen(position, parked.replay, known)).is_some()
    }

    /// Everything up to `last` has left the log: what of it had still to be dealt with, parked events included, is lost.
    /// Answers what was not known to be lost before.
    pub fn lose(&mut self, last: u64) -> Option<Lost> {
        let open: Vec<u64> = self.open.range(..=last).map(|(position, _)| *position).collect();
        let parked = self.parked.keys().next().copied().filter(|first| *first <= last);
        let unread = (self.reach < last).then(|| self.reach.saturating_add(1));
        let first = open.first().copied().into_iter().chain(parked).chain(unread).min();
        let lost = first.map(|first| Lost { first, last });
        let told = self.lost.into_iter().chain(lost);
        self.lost = told.reduce(|a, b| Lost { first: a.first.min(b.first), last: a.last.max(b.last) });
        open.into_iter().for_each(|position| self.close(position));
        self.parked = self.parked.split_off(&last.saturating_add(1));
        self.ahead.retain(|position| *position > last);
        self.reach = self.reach.max(last);
        self.looked = self.looked.max(last);
        lost
    }

    fn reopen(&mut self, position: u64, replay: u32, known: Known) {
        let mut open = Open { replay, ..Open::default() };
        // What was not looked at yet comes in its turn.
        if position <= self.looked {
            self.lines.join(position, &known.object);
            open.known = Some(known);
        }
        self.open.insert(position, open);
    }

    /// An event that is out comes back: to go out again after a while, or to be parked. Answers whether it was parked.
    fn give_back(&mut self, position: u64, after_ms: i64, reason: &str, now: Moment) -> bool {
        if self.open.get(&position).is_some_and(|open| open.attempts >= self.delivering.attempts_max) {
            return self.park(position, reason, now);
        }
        self.defer(position, after_ms, now);
        false
    }

    /// Sets an event aside, or puts it off where too many are.
    fn park(&mut self, position: u64, reason: &str, now: Moment) -> bool {
        if self.parked.len() >= SUBSCRIPTION_PARKED_MAX {
            self.defer(position, SUBSCRIPTION_UNPARKABLE_RETRY_MS, now);
            return false;
        }
        let Some(Open { attempts, replay, .. }) = self.open.get(&position).cloned() else { return false };
        let parked = Parked { attempts, replay, reason: reason.to_owned(), at_ms: now.wall_ms };
        self.close(position);
        self.parked.insert(position, parked);
        true
    }

    fn defer(&mut self, position: u64, after_ms: i64, now: Moment) {
        self.end_lease(position);
        if let Some(open) = self.open.get_mut(&position) {
            open.retry_at_ms = if after_ms > 0 { now.wall_ms.saturating_add(after_ms) } else { 0 };
        }
    }

    /// The event has been dealt with, and the next of its object may go out.
    fn close(&mut self, position: u64) {
        self.end_lease(position);
        if let Some(known) = self.open.remove(&position).and_then(|open| open.known) {
            self.lines.leave(position, &known.object);
        }
    }

    fn end_lease(&mut self, position: u64) {
        let Some(open) = self.open.get_mut(&position) else { return };
        let (Some(lease), Some(known)) = (open.lease.take(), &open.known) else { return };
        self.leases.remove(&(lease.until_ms, position));
        self.bytes_out = self.bytes_out.saturating_sub(known.bytes);
        self.lines.come_back(position, &known.object);
        if let Some(out) = self.out_by_stream.get_mut(&lease.stream) {
            *out = out.saturating_sub(1);
            if *out == 0 {
                self.out_by_stream.remove(&lease.stream);
            }
        }
    }
}

/// Whether it is too early. A time that is too far off was made by a clock that has been set back since.
fn waits(retry_at_ms: UnixMillis, now_ms: UnixMillis) -> bool {
    (1..=SUBSCRIPTION_RETRY_MS_MAX).contains(&retry_at_ms.saturating_sub(now_ms))
}

#[cfg(test)]
mod tests;
