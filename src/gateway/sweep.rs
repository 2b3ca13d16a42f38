//! Compares the event log with Stripe's own list, at start, on a schedule and on demand, and adds what is missing. It
//! sends nothing but reads, gives way to everybody else, and claims nothing that it has not read to the end.

mod book;
mod pace;
mod pass;
mod standing;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

pub use book::{OpenError, Sweeps};
pub(super) use pass::{Stop, Tally};
pub(super) use standing::Standing;

use self::book::Place;
use self::pace::Paces;
use self::pass::{Part, Read};
use self::standing::{DAY_S, Parts, fingerprint};
use super::accounts::Account;
use super::call::Gateway;
use crate::config::EventsMode;
use crate::domain::account::AccountHeader;
use crate::domain::drain::Drain;
use crate::domain::limits::EVENTS_TYPES_MAX;
use crate::proto::v1::EventSource;
use crate::stripe::events::{EVENTS_LISTED_S, EventsQuery};

/// Events of the last seconds are left to their webhooks, which are likely to be on their way.
const LAG_S: i64 = 30;
/// How far back events are looked for that an endpoint has not taken, in seconds: Stripe delivers for three days
/// (docs.stripe.com/webhooks).
const UNDELIVERED_S: i64 = 3 * 24 * 3_600;

/// The background task of one gateway.
#[derive(Debug)]
pub struct Sweeper {
    gateway: Arc<Gateway>,
}

impl Sweeper {
    /// A sweeper that has not read anything yet.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }

    /// Works until the gateway goes down; a sweep that is cut is made again after the next start.
    pub async fn run(self, drain: Drain) {
        let settings = &self.gateway.events;
        if settings.sweep_reads_per_day == 0 {
            return;
        }
        let mut paces = Paces::default();
        loop {
            tokio::select! {
                biased;
                () = drain.begun() => return,
                () = self.gateway.sweep_due(&mut paces) => {}
            }
            let next = paces.next().unwrap_or_else(|| Instant::now() + settings.sweep_every);
            tokio::select! {
                () = drain.begun() => return,
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }
}

impl Gateway {
    /// Most reads of a day, over all accounts.
    pub(super) fn sweep_reads_per_day(&self) -> u64 {
        u64::try_from(self.events.sweep_reads_per_day).unwrap_or(u64::MAX)
    }

    /// Brings every account up to date whose time it is.
    async fn sweep_due(&self, paces: &mut Paces) {
        let mut places = BTreeSet::new();
        for account in self.accounts.all() {
            let connected = self.sweeps.of(account.log_alias()).into_iter().map(|(connected, _)| connected);
            for connected in connected.chain([String::new()]).collect::<BTreeSet<_>>() {
                let place = (account.log_alias().to_owned(), connected);
                if paces.is_due(&place, Instant::now()) {
                    // What happened while the gateway was down is wanted at once.
                    let is_first = !paces.was_well(&place) || self.events.mode == EventsMode::Poll;
                    let swept = self.catch_up(account, &place, if is_first { 0 } else { LAG_S }).await;
                    if let Err(stop) = &swept {
                        let connected = &place.1;
                        tracing::warn!(account = account.alias, connected, error = %stop, "a sweep stopped");
                    }
                    paces.note(&place, &swept, (Instant::now(), self.events.sweep_every));
                }
                places.insert(place);
            }
        }
        paces.retain(&places, Instant::now());
    }

    /// Reads what happened at an account since the last sweep.
    async fn catch_up(&self, account: &Account, place: &Place, lag_s: i64) -> Result<(), Stop> {
        let _turn = self.sweeps.turn().await;
        let (settings, now_s) = (&self.events, self.clock.wall().div_euclid(1000));
        let overlap_s = i64::try_from(settings.sweep_overlap.as_secs()).unwrap_or(i64::MAX);
        let mut standing = match self.sweeps.standing(place) {
            Some(standing) => standing,
            None if place.1.is_empty() => self.begin(place, now_s.saturating_sub(overlap_s)).await?,
            None => return Ok(()),
        };
        standing.doubt(now_s, overlap_s);
        standing.want(fingerprint(&settings.sweep_types));
        let source = match settings.mode {
            EventsMode::Webhook => EventSource::Backfill,
            EventsMode::Poll => EventSource::Poll,
        };
        let mut part = Part::new(account, &place.1, source);
        let from_s = standing.next_s(now_s.saturating_sub(EVENTS_LISTED_S));
        let span_s = (from_s, now_s - lag_s);
        let look = Look::Schedule { lag_s, overlap_s };
        let swept = self.sweep_span(&mut part, place, &mut standing, (span_s, look)).await;
        if let Some(date_s) = part.date_s {
            standing.doubt(date_s, overlap_s);
        }
        let undelivered_s = standing.since_s.max(now_s.saturating_sub(UNDELIVERED_S));
        let swept = match swept {
            Ok(()) if settings.mode == EventsMode::Webhook && undelivered_s < from_s => {
                let span_s = (undelivered_s, from_s);
                match self.sweep_span(&mut part, place, &mut standing, (span_s, Look::Undelivered)).await {
                    // Its share is; the next sweep comes to its end all the same.
                    Err(Stop::Allotment) => Ok(()),
                    looked => looked,
                }
            }
            swept => swept,
        };
        self.conclude(place, standing, swept).await
    }

    /// Reads a span of time on demand: what it came to, and how the account stands then.
    ///
    /// # Errors
    /// When the span could not be read to its end; what was found until then is in the log.
    pub(super) async fn sweep_on_demand(
        &self,
        account: &Account,
        connected: &str,
        span_s: (i64, i64),
    ) -> Result<(Tally, Standing), Stop> {
        let _turn = self.sweeps.turn().await;
        let place = (account.log_alias().to_owned(), connected.to_owned());
        let since_s = self.clock.wall().div_euclid(1000);
        // Whether there is such an account shows when Stripe answers.
        let begun = || Standing { since_s, ..Standing::default() };
        let mut standing = self.sweeps.standing(&place).unwrap_or_else(begun);
        standing.want(fingerprint(&self.events.sweep_types));
        let mut part = Part::new(account, connected, EventSource::Backfill);
        let swept = self.sweep_span(&mut part, &place, &mut standing, (span_s, Look::Demand)).await;
        let tally = part.tally;
        self.conclude(&place, standing.clone(), swept).await?;
        Ok((tally, standing))
    }

    /// From now on events of this account are wanted.
    pub(super) async fn begin(&self, place: &Place, since_s: i64) -> Result<Standing, Stop> {
        let standing = Standing { since_s, ..Standing::default() };
        self.sweeps.keep(place, standing.clone()).await?;
        Ok(standing)
    }

    /// Reads a span part by part, and vouches for each that was read to its end, but not beyond the time that Stripe tells:
    /// our own clock may be ahead of it.
    async fn sweep_span(
        &self,
        part: &mut Part<'_>,
        place: &Place,
        standing: &mut Standing,
        (span_s, look): ((i64, i64), Look),
    ) -> Result<(), Stop> {
        let width_s_max = if look == Look::Undelivered { UNDELIVERED_S } else { DAY_S };
        let mut parts = Parts::new(span_s, width_s_max);
        while let Some((start_s, end_s)) = parts.next() {
            // Stripe counts in whole seconds, and the last one may not be over.
            let before_s = end_s.saturating_add(i64::from(end_s == span_s.1));
            let undelivered = look == Look::Undelivered;
            let query = EventsQuery { from_s: start_s, before_s, undelivered, ..<_>::default() };
            let added = part.tally.added;
            part.date_s = None;
            let read = self.read_types(part, &query, end_s - start_s > 1).await;
            standing.repaired += part.tally.added - added;
            match read? {
                Read::TooMuch { back_to_s } => {
                    parts.divide(back_to_s);
                    continue;
                }
                Read::Whole { is_small } => parts.done(is_small),
            }
            let date_s = part.date_s.unwrap_or_else(|| self.clock.wall().div_euclid(1000));
            let vouched_s = match look {
                Look::Undelivered => continue,
                Look::Schedule { lag_s, .. } => end_s.min(date_s.saturating_sub(lag_s)),
                Look::Demand => end_s.min(date_s),
            };
            if vouched_s > start_s {
                match look {
                    Look::Schedule { overlap_s, .. } => {
                        standing.go_on((span_s.0, vouched_s), date_s.saturating_sub(overlap_s));
                    }
                    _ => standing.add(span_s.0, vouched_s),
                }
                self.sweeps.keep(place, standing.clone()).await?;
            }
            if vouched_s < end_s {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads a part of the list for all types that are wanted, as many at a time as Stripe lets one name.
    async fn read_types(
        &self,
        part: &mut Part<'_>,
        query: &EventsQuery,
        may_divide: bool,
    ) -> Result<Read, Stop> {
        if self.events.sweep_types.is_empty() {
            return self.read_part(part, query, may_divide).await;
        }
        let mut all_small = true;
        for types in self.events.sweep_types.chunks(EVENTS_TYPES_MAX) {
            let query = EventsQuery { types: types.to_vec(), ..query.clone() };
            match self.read_part(part, &query, may_divide).await? {
                Read::Whole { is_small } => all_small &= is_small,
                too_much @ Read::TooMuch { .. } => return Ok(too_much),
            }
        }
        Ok(Read::Whole { is_small: all_small })
    }

    /// Puts on record how a sweep ended. A connected account that Stripe refuses, and of which nothing was read that it
    /// still lists, is swept no more until it sends an event.
    async fn conclude(
        &self,
        place: &Place,
        mut standing: Standing,
        swept: Result<(), Stop>,
    ) -> Result<(), Stop> {
        if self.sweeps.standing(place).is_none() {
            return swept;
        }
        standing.last_ms = self.clock.wall();
        standing.last_error = swept.as_ref().err().map(ToString::to_string).unwrap_or_default();
        standing.refused = !place.1.is_empty() && swept.as_ref().is_err_and(Stop::is_refusal);
        let oldest_s = standing.last_ms.div_euclid(1000).saturating_sub(EVENTS_LISTED_S);
        if standing.refused && standing.is_bare(oldest_s) {
            self.sweeps.forget(place).await?;
        } else {
            self.sweeps.keep(place, standing).await?;
        }
        swept
    }
}

/// What a span is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// To bring an account up to date, but for the last seconds.
    Schedule {
        /// How many.
        lag_s: i64,
        /// For how many seconds after an event the list may not show it yet.
        overlap_s: i64,
    },
    /// An operator wants it.
    Demand,
    /// It was read before, and what an endpoint has not taken may show in the list late.
    Undelivered,
}

/// Which header names an account to Stripe: that of its alias, or of one that is connected to it.
pub(super) fn header(account: &Account, connected: &str) -> AccountHeader {
    if connected.is_empty() { account.header.clone() } else { account.header.connected(connected) }
}
