//! Reads one part of Stripe's list to its end and puts into the log what it lacks, in the order in which it happened. Page
//! after page comes with the newest first, so they are held until the last one is there; a part that is more than may be
//! held is for the caller to divide.

use std::time::Duration;

use super::super::accounts::Account;
use super::super::call::Gateway;
use super::super::intake::Taken;
use super::header;
use crate::domain::account::AccountHeader;
use crate::domain::limits::{
    CHANGES_AT_ONCE_MAX, EVENTS_TYPES_MAX, SWEEP_BYTES_MAX, SWEEP_PART_PAGES_MAX, SWEEP_PARTS_PER_DAY_MIN,
    SWEEP_READ_PAUSE_MS, SWEEP_YIELDS_MAX,
};
use crate::events::{self, Arrival, Cause, Envelope};
use crate::proto::v1::EventSource;
use crate::store;
use crate::stripe::Trouble;
use crate::stripe::events::{EVENTS_PAGE_MAX, EventsPage, EventsQuery, ReadError};

/// Pause in which changes of callers go first.
const YIELD_PAUSE: Duration = Duration::from_millis(50);

/// What is read, and for whom.
#[derive(Debug)]
pub(super) struct Part<'a> {
    account: &'a Account,
    header: AccountHeader,
    source: EventSource,
    /// What it came to so far.
    pub(super) tally: Tally,
    /// When Stripe first answered for the span at hand, by its own clock, in seconds of Unix time.
    pub(super) date_s: Option<i64>,
}

/// What reading came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::gateway) struct Tally {
    /// Events that the log lacked.
    pub added: u64,
    /// Events that it had.
    pub known: u64,
    /// Events that do not belong under the alias, or that are none.
    pub left_out: u64,
    /// Requests.
    pub reads: u64,
}

/// Why reading stopped before its end.
#[derive(Debug, thiserror::Error)]
pub(in crate::gateway) enum Stop {
    /// No more may be read today.
    #[error("the reads of Stripe that are allotted for today are used up")]
    Allotment,
    /// Stripe did not show it.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log cannot be written or read.
    #[error("an event could not be stored: {0}")]
    Feed(#[from] events::Error),
    /// The book cannot be written.
    #[error("what was swept could not be stored: {0}")]
    Store(#[from] store::Error),
}

impl Stop {
    /// Whether Stripe says that it will not show this, and not that it cannot now.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Read(ReadError::NoPermission(_) | ReadError::Missing) => true,
            Self::Read(ReadError::Refused(status)) => (400..500).contains(status),
            // A key that is refused says nothing of the account.
            _ => false,
        }
    }
}

/// What reading a part came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// It came to its end.
    Whole {
        /// Whether one of twice the size fits too.
        is_small: bool,
    },
    /// It is more than is read at once.
    TooMuch {
        /// Down to which second it was read.
        back_to_s: i64,
    },
}

impl<'a> Part<'a> {
    pub(super) fn new(account: &'a Account, connected: &str, source: EventSource) -> Self {
        Self { account, header: header(account, connected), source, tally: Tally::default(), date_s: None }
    }
}

impl Gateway {
    /// Reads a part of the list to its end. Where it `may_divide` and is more than fits, nothing of it is stored.
    pub(super) async fn read_part(
        &self,
        part: &mut Part<'_>,
        query: &EventsQuery,
        may_divide: bool,
    ) -> Result<Read, Stop> {
        let (mut held, mut bytes, mut pages, pages_max) = (Vec::new(), 0, 0, self.part_pages_max());
        let (mut after, mut limit) = (None, EVENTS_PAGE_MAX);
        loop {
            let page = match self.read_page(part, query, (after.as_deref(), limit)).await {
                Err(Stop::Read(ReadError::NoAnswer(Trouble::TooLarge))) if limit > 1 => {
                    limit = fewer(limit);
                    continue;
                }
                page => page?,
            };
            part.date_s = part.date_s.or(page.date_s);
            pages += 1;
            bytes += size(&page.events);
            let last = page.events.last().filter(|_| page.has_more).map(|json| envelope(json)).transpose()?;
            held.extend(page.events);
            let Some(last) = last else { break };
            if bytes > SWEEP_BYTES_MAX || pages >= pages_max {
                if may_divide {
                    return Ok(Read::TooMuch { back_to_s: last.created_s });
                }
                // Nothing tells the order of a single second's events.
                self.take_all(part, std::mem::take(&mut held)).await?;
                bytes = 0;
            }
            after = Some(last.id);
        }
        let is_small = pages <= pages_max && 2 * held.len() <= EVENTS_PAGE_MAX * pages_max;
        self.take_all(part, held).await?;
        Ok(Read::Whole { is_small })
    }

    /// Most pages for a part: so few that the reads of a day are enough for some parts, whatever else they are used for.
    fn part_pages_max(&self) -> usize {
        let questions = self.events.sweep_types.len().div_ceil(EVENTS_TYPES_MAX).max(1);
        let share = SWEEP_PARTS_PER_DAY_MIN.saturating_mul(questions);
        self.events.sweep_reads_per_day.div_euclid(share).clamp(1, SWEEP_PART_PAGES_MAX)
    }

    /// One read, when it is allotted and callers have no use for the moment.
    async fn read_page(
        &self,
        part: &mut Part<'_>,
        query: &EventsQuery,
        place: (Option<&str>, usize),
    ) -> Result<EventsPage, Stop> {
        // Before the first of a part too: the one before it may have been of another account a moment ago.
        tokio::time::sleep(Duration::from_millis(SWEEP_READ_PAUSE_MS)).await;
        self.give_way().await;
        let allotted = allotted(self.sweep_reads_per_day(), query.undelivered);
        if !self.sweeps.take_read(self.clock.wall().div_euclid(1000), allotted) {
            return Err(Stop::Allotment);
        }
        part.tally.reads += 1;
        self.metrics.sweep_read();
        Ok(part.account.stripe.events(query, place, &part.header).await?)
    }

    /// Lets the changes of callers go first, for a while.
    pub(in crate::gateway) async fn give_way(&self) {
        for _ in 0..SWEEP_YIELDS_MAX {
            if self.open_changes.available_permits() >= CHANGES_AT_ONCE_MAX as usize {
                return;
            }
            tokio::time::sleep(YIELD_PAUSE).await;
        }
    }

    /// Puts events into the log of which the newest come first.
    async fn take_all(&self, part: &mut Part<'_>, events: Vec<String>) -> Result<(), Stop> {
        for json in events.into_iter().rev() {
            self.take_listed(part, json).await?;
        }
        Ok(())
    }

    async fn take_listed(&self, part: &mut Part<'_>, json: String) -> Result<(), Stop> {
        let Part { account, header, source, tally, .. } = part;
        let mut envelope = match Envelope::parse(&json) {
            Ok(envelope) => envelope,
            Err(error) => {
                tracing::error!(account = account.alias, %error, "Stripe lists an event that is none");
                tally.left_out += 1;
                return Ok(());
            }
        };
        // Most are known, and to find that out by writing would cost a commit each.
        if self.feed.get(account.log_alias(), &envelope.id).await?.is_some() {
            tally.known += 1;
            return Ok(());
        }
        // What is reached by its context has events of its own, which name no account when they are delivered either.
        let is_own = *header == account.header && matches!(header, AccountHeader::StripeContext(_));
        if let (true, false, Some(connected)) =
            (envelope.connected_account.is_empty(), is_own, header.account())
        {
            connected.clone_into(&mut envelope.connected_account);
        }
        let arrival = Arrival {
            envelope,
            account: account.log_alias().to_owned(),
            source: *source,
            json,
            cause: Cause::default(),
        };
        match self.intake.take(&self.accounts.belonging_to(account), arrival).await? {
            Taken::Stored { .. } => {
                tally.added += 1;
                self.metrics.events_repaired();
            }
            Taken::Duplicate { .. } => tally.known += 1,
            Taken::WrongMode | Taken::WrongAccount => tally.left_out += 1,
        }
        Ok(())
    }
}

fn envelope(json: &str) -> Result<Envelope, ReadError> {
    Envelope::parse(json).map_err(|_| ReadError::Foreign)
}

/// How many reads of a day there are. What endpoints have not taken is asked for in every sweep anew, and may be all that
/// there is: one endpoint that is down is enough, whosever it is. So it leaves half of them to what happened since.
fn allotted(per_day: u64, undelivered: bool) -> u64 {
    if undelivered { per_day.div_euclid(2) } else { per_day }
}

/// How many events to ask for when an answer with so many was too large.
fn fewer(limit: usize) -> usize {
    limit.div_euclid(10).max(1)
}

fn size(events: &[String]) -> usize {
    events.iter().map(String::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_too_large_is_asked_for_by_fewer_events_down_to_one() {
        let limits = std::iter::successors(Some(EVENTS_PAGE_MAX), |&limit| (limit > 1).then(|| fewer(limit)));
        assert_eq!(limits.collect::<Vec<_>>(), [100, 10, 1]);
    }
}
