//! Everything the sandbox remembers: objects by kind, events, keys, money, pending changes and time. It must not know
//! any endpoint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::book::Book;
use super::error::Error;
use super::fault::{Fault, Kind};
use super::idempotency::Keys;
use super::ids::Ids;
use super::money::Money;
use super::object::{self, Object};
use super::outbox::{self, Outbox};
use super::schedule::{Change, Schedule};
use super::webhook_endpoints::Platform;
use super::{Options, RestrictedKey, WebhookTarget};
use crate::domain::clock::Clock;

/// Milliseconds in a second, between the clock's unit and Stripe's.
const SECOND_MS: i64 = 1_000;

/// The request that causes what happens now; empty for changes that come due by themselves.
#[derive(Debug, Clone, Default)]
pub(super) struct Cause {
    pub(super) request_id: Option<String>,
    pub(super) idempotency_key: Option<String>,
}

/// What outlives the process when a state file is given.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    objects: BTreeMap<String, Map<String, Value>>,
    ids: Ids,
    clock_offset_ms: i64,
    pub(super) keys: Keys,
    pub(super) book: Book,
    pub(super) money: Money,
    pub(super) outbox: Outbox,
    pub(super) schedule: Schedule,
}

/// The sandbox's whole state, held behind one lock: each request sees and leaves a consistent account.
#[derive(Debug)]
pub(super) struct State {
    pub(super) kept: Kept,
    pub(super) faults: Vec<Fault>,
    pub(super) webhooks: Vec<WebhookTarget>,
    /// Targets that get events in their thin form.
    pub(super) thin_webhooks: Vec<WebhookTarget>,
    /// Tries for one delivery, the first included.
    pub(super) delivery_tries_max: u32,
    pub(super) restricted_keys: Vec<RestrictedKey>,
    pub(super) cause: Cause,
    pub(super) account_id: String,
    /// Whether events name the account, as those of connected ones do.
    pub(super) connected: bool,
    pub(super) api_version: String,
    /// Endpoints of the platform that get the events of connected accounts.
    pub(super) platform: Platform,
    /// Woken whenever a delivery comes due.
    pub(super) emitted: Arc<Notify>,
    clock: Arc<dyn Clock>,
}

impl State {
    pub(super) fn new(options: &Options) -> Self {
        let kept = Kept {
            objects: BTreeMap::new(),
            ids: Ids::new(options.seed),
            clock_offset_ms: 0,
            keys: Keys::default(),
            book: Book::default(),
            money: Money::default(),
            outbox: Outbox::default(),
            schedule: Schedule::default(),
        };
        Self {
            kept,
            faults: options.faults.clone(),
            webhooks: options.webhooks.clone(),
            thin_webhooks: options.thin_webhooks.clone(),
            delivery_tries_max: options.delivery_tries_max,
            restricted_keys: options.restricted_keys.clone(),
            cause: Cause::default(),
            account_id: options.account_id.clone(),
            connected: false,
            api_version: options.api_version.clone(),
            platform: Platform::default(),
            emitted: Arc::new(Notify::new()),
            clock: Arc::clone(&options.clock),
        }
    }

    /// Sandbox time in milliseconds: the clock given at the start plus all advances.
    pub(super) fn now_ms(&self) -> i64 {
        self.clock.wall().saturating_add(self.kept.clock_offset_ms)
    }

    /// Sandbox time in Unix seconds, as Stripe's `created`.
    pub(super) fn now(&self) -> i64 {
        self.now_ms().div_euclid(SECOND_MS)
    }

    /// The time other machines have, in Unix seconds: signatures are dated with it, since receivers compare the date
    /// with their own clock and know nothing of the test clock.
    pub(super) fn real_seconds(&self) -> i64 {
        self.clock.wall().div_euclid(SECOND_MS)
    }

    /// Moves the test clock forward and carries out what comes due on the way, each at its own time.
    pub(super) fn advance(&mut self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let goal = self.kept.clock_offset_ms.saturating_add(by);
        while let Some(at) = self.kept.schedule.next_at() {
            let offset = at.saturating_sub(self.clock.wall());
            if offset > goal {
                break;
            }
            self.kept.clock_offset_ms = self.kept.clock_offset_ms.max(offset);
            self.settle_due();
        }
        self.kept.clock_offset_ms = goal;
        let now = self.now_ms();
        self.kept.keys.prune(now);
    }

    /// A number that differs whenever the kept state may: ids, time and book move with every request and change.
    pub(super) fn version(&self) -> (u64, u64, i64, usize, (u64, usize)) {
        (
            self.kept.ids.position(),
            self.kept.book.received,
            self.kept.clock_offset_ms,
            self.kept.schedule.len(),
            self.kept.outbox.position(),
        )
    }

    /// A fresh id with the prefix (given without its underscore).
    pub(super) fn new_id(&mut self, prefix: &str) -> String {
        self.kept.ids.next(prefix)
    }

    /// `length` random letters and digits.
    pub(super) fn random(&mut self, length: usize) -> String {
        self.kept.ids.alphanumeric(length)
    }

    /// True with the given probability.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.kept.ids.chance(probability)
    }

    /// Stores a new object (or replaces it whole) under its own `object` and `id` fields.
    pub(super) fn insert(&mut self, object: Object) {
        let kind = object::text(&object, "object").to_owned();
        let id = object::text(&object, "id").to_owned();
        self.kept.objects.entry(kind).or_default().insert(id, Value::Object(object));
    }

    /// The object of that kind, if it exists.
    pub(super) fn get(&self, kind: &str, id: &str) -> Option<&Object> {
        self.kept.objects.get(kind)?.get(id)?.as_object()
    }

    /// The object named in a path: absent is 404.
    pub(super) fn find(&self, kind: &str, id: &str) -> Result<&Object, Error> {
        self.get(kind, id).ok_or_else(|| Error::not_found(kind, id))
    }

    /// The object named in a parameter: absent is 400.
    pub(super) fn named(&self, kind: &str, id: &str, param: &str) -> Result<&Object, Error> {
        self.get(kind, id).ok_or_else(|| Error::missing(kind, id, param))
    }

    /// The object with that id, of whatever kind.
    pub(super) fn any(&self, id: &str) -> Option<&Object> {
        self.kept.objects.values().find_map(|kind| kind.get(id))?.as_object()
    }

    /// All objects of a kind, oldest first.
    pub(super) fn all(&self, kind: &str) -> impl DoubleEndedIterator<Item = &Object> {
        self.kept.objects.get(kind).into_iter().flat_map(Map::values).filter_map(Value::as_object)
    }

    /// Changes an object in place and returns it as it is afterwards; null if it does not exist.
    pub(super) fn change(&mut self, kind: &str, id: &str, change: impl FnOnce(&mut Object)) -> Object {
        let objects = self.kept.objects.get_mut(kind);
        let Some(object) = objects.and_then(|kind| kind.get_mut(id)).and_then(Value::as_object_mut) else {
            return Object::new();
        };
        change(object);
        object.clone()
    }

    /// Changes an object and, if anything changed, emits `event` with its `previous_attributes`.
    pub(super) fn update(
        &mut self,
        kind: &str,
        id: &str,
        event: &str,
        change: impl FnOnce(&mut Object),
    ) -> Object {
        self.update_as(kind, id, &[event], change)
    }

    /// Like `update`, for a change that several event types tell of.
    pub(super) fn update_as(
        &mut self,
        kind: &str,
        id: &str,
        events: &[&str],
        change: impl FnOnce(&mut Object),
    ) -> Object {
        let before = self.get(kind, id).cloned().unwrap_or_default();
        let after = self.change(kind, id, change);
        let previous = object::previous(&before, &after);
        if !previous.is_empty() {
            for event in events {
                self.append(event, &after, Some(previous.clone()));
            }
        }
        after
    }

    /// Removes an object.
    pub(super) fn remove(&mut self, kind: &str, id: &str) -> Option<Object> {
        self.kept.objects.get_mut(kind)?.shift_remove(id).map(object::from)
    }

    /// Appends an event about the object as it is now.
    pub(super) fn emit(&mut self, event: &str, object: &Object) {
        self.append(event, object, None);
    }

    /// Appends an event about the object, with what it was before the change.
    pub(super) fn append(&mut self, event: &str, object: &Object, previous: Option<Object>) {
        let mut data = object::from(json!({"object": object::shown(object)}));
        if let Some(previous) = previous {
            data.insert("previous_attributes".to_owned(), Value::Object(previous));
        }
        let id = self.new_id("evt");
        let targets = outbox::targets(self, event);
        let event = json!({
            "id": id,
            "object": "event",
            "api_version": self.api_version,
            "created": self.now(),
            "data": data,
            "livemode": false,
            "pending_webhooks": targets.len(),
            "request": {"id": self.cause.request_id, "idempotency_key": self.cause.idempotency_key},
            "type": event,
        });
        let mut event = object::from(event);
        if self.connected {
            event.insert("account".to_owned(), json!(self.account_id));
        }
        self.insert(event);
        outbox::add(self, &id, targets);
    }

    /// Plans a change for later, in sandbox time.
    pub(super) fn schedule(&mut self, after: Duration, change: Change) {
        let at = self.now_ms().saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX));
        self.kept.schedule.add(at, change);
    }

    /// Carries out every change whose time has come; their events name no request.
    pub(super) fn settle_due(&mut self) {
        let cause = std::mem::take(&mut self.cause);
        while let Some(change) = self.kept.schedule.take_due(self.now_ms()) {
            change.apply(self);
        }
        self.cause = cause;
    }

    /// The first fault that meets the request, counted down; a fault whose times are used up is dropped.
    pub(super) fn take_fault(&mut self, method: &str, path: &str) -> Option<Fault> {
        self.take_first(|fault| fault.fits(method, path))
    }

    /// The first fault that meets the delivery of an event of that type; one that was `held` back before is not held
    /// back again.
    pub(super) fn take_delivery_fault(&mut self, kind: &str, held: bool) -> Option<Fault> {
        self.take_first(|fault| fault.fits_event(kind) && !(held && fault.kind == Kind::WebhookReorder))
    }

    fn take_first(&mut self, fits: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let candidates: Vec<_> =
            (0..self.faults.len()).filter(|at| self.faults.get(*at).is_some_and(&fits)).collect();
        for at in candidates {
            let probability = self.faults.get(at).and_then(|fault| fault.probability).unwrap_or(1.0);
            if probability < 1.0 && !self.chance(probability) {
                continue;
            }
            let fault = self.faults.get_mut(at)?;
            let taken = fault.clone();
            if let Some(times) = fault.times.as_mut() {
                *times = times.saturating_sub(1);
            }
            self.faults.retain(|fault| fault.times != Some(0));
            return Some(taken);
        }
        None
    }
}
