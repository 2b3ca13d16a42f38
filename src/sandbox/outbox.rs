//! Deliveries of events still to be made: which event goes to which target, and how often that was tried. It must not
//! send anything.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::object::text;
use super::schedule::Change;
use super::state::State;
use super::{events, webhook_endpoints};

/// Tries for one delivery unless the sandbox is told otherwise, the first included; then it stays undelivered.
pub(super) const TRIES_MAX: u32 = 8;

/// Wait after the first failed try; each further wait is four times as long, so that the last try is 90 minutes after
/// the first. All in sandbox time.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_FACTOR: u32 = 4;

/// Where one delivery goes. Address and secrets are looked up at each try, since both may have changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    /// A target the sandbox was started with or given by its control.
    Url(String),
    /// The same, for events in their thin form.
    Thin(String),
    /// A webhook endpoint, by its id.
    Endpoint(String),
}

/// One event on its way to one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Delivery {
    pub(super) event: String,
    pub(super) to: Target,
    /// Failed tries so far.
    pub(super) tries: u32,
    /// Already held back once by a fault.
    pub(super) held: bool,
}

/// Deliveries that are due, and those under way. What waits for a retry is in the schedule.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Outbox {
    due: VecDeque<Delivery>,
    under_way: BTreeMap<u64, Delivery>,
    taken: u64,
}

impl Outbox {
    /// Takes the next due delivery; it counts as under way until `finish` is called with its number.
    pub(super) fn take(&mut self) -> Option<(u64, Delivery)> {
        let delivery = self.due.pop_front()?;
        self.taken += 1;
        self.under_way.insert(self.taken, delivery.clone());
        Some((self.taken, delivery))
    }

    /// Ends a try.
    pub(super) fn finish(&mut self, number: u64) -> Option<Delivery> {
        self.under_way.remove(&number)
    }

    /// Makes those deliveries due again that were under way when the process ended.
    pub(super) fn resume(&mut self) {
        self.due.extend(std::mem::take(&mut self.under_way).into_values());
    }

    /// Drops what is due; what is under way goes on.
    pub(super) fn give_up(&mut self) -> usize {
        let given_up = self.due.len();
        self.due.clear();
        given_up
    }

    /// Deliveries that are due or under way.
    pub(super) fn len(&self) -> usize {
        self.due.len() + self.under_way.len()
    }

    /// Moves with every try and its end.
    pub(super) fn position(&self) -> (u64, usize) {
        (self.taken, self.under_way.len())
    }
}

/// Who wants an event of that type.
pub(super) fn targets(state: &State, kind: &str) -> Vec<Target> {
    let configured = state.webhooks.iter().map(|target| Target::Url(target.url.clone()));
    let thin = state.thin_webhooks.iter().map(|target| Target::Thin(target.url.clone()));
    let wants = |endpoint: &super::object::Object| {
        text(endpoint, "status") == "enabled"
            && webhook_endpoints::enabled(endpoint).any(|pattern| events::fits(pattern, kind))
    };
    let endpoints = webhook_endpoints::of_account(state).into_iter().filter(wants);
    let configured = configured.chain(thin);
    configured.chain(endpoints.map(|endpoint| Target::Endpoint(text(&endpoint, "id").to_owned()))).collect()
}

/// Makes deliveries of a new event due.
pub(super) fn add(state: &mut State, event: &str, targets: Vec<Target>) {
    for to in targets {
        put(state, Delivery { event: event.to_owned(), to, tries: 0, held: false });
    }
}

/// Makes a delivery due now.
pub(super) fn put(state: &mut State, delivery: Delivery) {
    state.kept.outbox.due.push_back(delivery);
    state.emitted.notify_waiters();
}

/// The try was answered with success.
pub(super) fn delivered(state: &mut State, number: u64) {
    let Some(delivery) = state.kept.outbox.finish(number) else { return };
    state.kept.book.acknowledged.push(delivery.event.clone());
    state.change("event", &delivery.event, |event| {
        let pending = super::object::int(event, "pending_webhooks") - 1;
        event.insert("pending_webhooks".to_owned(), pending.max(0).into());
    });
}

/// The try failed: plans the next one, unless that was the last.
pub(super) fn failed(state: &mut State, number: u64) {
    let Some(mut delivery) = state.kept.outbox.finish(number) else { return };
    delivery.tries += 1;
    if delivery.tries < state.delivery_tries_max {
        let wait = RETRY_FIRST.saturating_mul(RETRY_FACTOR.saturating_pow(delivery.tries - 1));
        state.schedule(wait, Change::Deliver(delivery));
    }
}
