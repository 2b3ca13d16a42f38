//! Pages of the log, read backwards from the latest arrival.

use std::ops::RangeInclusive;

use super::feed::Error;
use super::filter::Filter;
use super::log_event::LogEvent;
use crate::domain::limits::{
    EVENT_BATCH_BYTES_MAX, EVENT_BATCH_EVENTS_MAX, EVENT_PAGE_BYTES_MAX, EVENT_PAGE_SEARCHED_MAX,
};
use crate::store::{Store, StoredEvent};

/// Which events, and which part of them.
#[derive(Clone, Debug)]
pub struct Query {
    /// Account, types, and what else.
    pub filter: Filter,
    /// When they happened, in seconds since the Unix epoch.
    pub created_s: RangeInclusive<i64>,
    /// Only what arrived before the event at this position; without it, everything.
    pub before: Option<u64>,
    /// Most events on the page.
    pub events_max: usize,
}

/// A page.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// The events, the latest arrival first.
    pub events: Vec<LogEvent>,
    /// `before` of the next page; absent when the log has been searched to its end.
    pub next: Option<u64>,
}

/// Reads a page. It ends early at [`EVENT_PAGE_BYTES_MAX`], so that any client can take it, and at
/// [`EVENT_PAGE_SEARCHED_MAX`] events looked at, so that a rare type does not hold the store up.
pub(super) async fn read(store: &Store, query: &Query) -> Result<Page, Error> {
    let mut page = Page { events: Vec::new(), next: None };
    // Everything at or after `before` has been dealt with.
    let mut before = query.before.unwrap_or(u64::MAX);
    let (mut bytes, mut searched) = (0, 0);
    loop {
        let batch = batch(store, &query.filter, before).await?;
        if batch.is_empty() {
            return Ok(page);
        }
        searched += batch.len();
        for stored in batch {
            let (position, logged) = (stored.position, LogEvent::from(stored));
            if query.created_s.contains(&logged.event.created_s) && query.filter.matches(&logged) {
                bytes += logged.event.json.len();
                let full = page.events.len() >= query.events_max || bytes > EVENT_PAGE_BYTES_MAX;
                if full && !page.events.is_empty() {
                    page.next = Some(position.saturating_add(1));
                    return Ok(page);
                }
                page.events.push(logged);
            }
            before = position;
        }
        if searched >= EVENT_PAGE_SEARCHED_MAX {
            page.next = Some(before);
            return Ok(page);
        }
    }
}

/// The next rows to look at. A filter for something that events are found by is spared all the others.
async fn batch(store: &Store, filter: &Filter, before: u64) -> Result<Vec<StoredEvent>, Error> {
    let (count_max, bytes_max) = (EVENT_BATCH_EVENTS_MAX, EVENT_BATCH_BYTES_MAX);
    Ok(match filter.term() {
        Some(term) => store.events_with_before(&term, before, count_max, bytes_max).await?,
        None => store.events_before(before, count_max, bytes_max).await?,
    })
}
