//! Disputes that wait for an answer, as the event log tells of them, and the events that remind of their deadlines. It
//! asks Stripe nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::accounts::Account;
use super::call::Gateway;
use crate::domain::limits::{DISPUTE_FORGOTTEN_S, DISPUTE_REMINDER_DAYS};
use crate::events::{self, Arrival, BadEnvelope, Cause, Envelope, LogEvent, snapshot};
use crate::proto::v1::EventSource;
use crate::store::{self, Batch, Entry, Store};

/// The type of the reminders.
const RESPONSE_DUE: &str = "tollgate.dispute.response_due";
/// What begins their ids; nothing of Stripe's does.
const ID_PREFIX: &str = "evt_tollgate_due";
/// The kind of the store's entries that hold a dispute's state.
const KIND: &str = "dispute";
/// Statuses in which the bank waits (docs.stripe.com/api/disputes/object).
const WAITING: [&str; 3] = ["needs_response", "warning_needs_response", "appeal_needs_response"];
const DAY_S: i64 = 86_400;

/// What is known of one dispute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dispute {
    /// Alias that received the event that told last.
    alias: String,
    event_id: String,
    /// When that happened, in seconds of Unix time.
    created_s: i64,
    /// Until when the bank waits, in seconds of Unix time.
    due_by_s: i64,
    /// Whether it waits at all.
    waits: bool,
    /// The last reminder, by its number of days.
    told_days: Option<i64>,
}

/// A reminder cannot be made or kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Feed(#[from] events::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("a dispute's state is not understood: {0}")]
    Content(#[from] serde_json::Error),
    #[error(transparent)]
    Envelope(#[from] BadEnvelope),
}

/// The members of a dispute that matter here.
#[derive(Deserialize)]
struct Told {
    status: String,
    evidence_details: Option<Evidence>,
}

#[derive(Deserialize)]
struct Evidence {
    due_by: Option<i64>,
}

/// All disputes that are known, by id.
#[derive(Debug)]
pub(super) struct Deadlines {
    store: Store,
    disputes: Mutex<HashMap<String, Dispute>>,
}

impl Dispute {
    /// What an event says, if it is about a dispute.
    fn of(event: &LogEvent) -> Option<(String, Self)> {
        let envelope = event.envelope().filter(|envelope| envelope.object_type == "dispute")?;
        let told: Told = serde_json::from_str(snapshot(&event.event.json)?).ok()?;
        let due_by_s = told.evidence_details.and_then(|details| details.due_by);
        let dispute = Self {
            alias: event.event.account.clone(),
            event_id: envelope.id.clone(),
            created_s: envelope.created_s,
            due_by_s: due_by_s.unwrap_or_default(),
            waits: due_by_s.is_some() && WAITING.contains(&told.status.as_str()),
            told_days: None,
        };
        Some((envelope.object_id.clone(), dispute))
    }

    /// What is known after `newer` was told: events come in any order, and of one second a dispute that was answered is
    /// the later state. `None` when that changes nothing.
    fn followed_by(&self, newer: Self) -> Option<Self> {
        let is_late = (newer.created_s, !newer.waits) < (self.created_s, !self.waits);
        if is_late || newer.event_id == self.event_id {
            return None;
        }
        let told_days = self.told_days.filter(|_| newer.due_by_s == self.due_by_s);
        Some(Self { told_days, ..newer })
    }

    /// The reminder that is due, by its number of days: the most urgent one, if it has not been told.
    fn due(&self, now_s: i64) -> Option<i64> {
        let left_s = self.due_by_s.saturating_sub(now_s);
        let reached = DISPUTE_REMINDER_DAYS.into_iter().filter(|days| left_s <= days * DAY_S).min()?;
        let is_new = self.told_days.is_none_or(|told| reached < told);
        (self.waits && left_s > 0 && is_new).then_some(reached)
    }

    /// Whether nothing can come of it any more.
    fn is_over(&self, now_s: i64) -> bool {
        self.due_by_s.max(self.created_s).saturating_add(DISPUTE_FORGOTTEN_S) < now_s
    }
}

impl Deadlines {
    /// The disputes as the store has them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) async fn open(store: Store) -> Result<Self, Error> {
        let mut disputes = HashMap::new();
        for (id, body) in store.entries(KIND).await? {
            disputes.insert(id, serde_json::from_slice(&body)?);
        }
        Ok(Self { store, disputes: Mutex::new(disputes) })
    }

    /// Takes note of what an event says; durable when this returns.
    ///
    /// # Errors
    /// When the store failed.
    pub(super) async fn notice(&self, event: &LogEvent, now_s: i64) -> Result<(), Error> {
        let is_own = event.event.source == i32::from(EventSource::Synthetic);
        let Some((id, newer)) = Dispute::of(event).filter(|_| !is_own) else { return Ok(()) };
        let known = self.disputes().get(&id).cloned();
        let next = match known {
            Some(known) => known.followed_by(newer),
            None => Some(newer).filter(|newer| !newer.is_over(now_s)),
        };
        match next {
            Some(next) => self.keep(&id, Some(next)).await,
            None => Ok(()),
        }
    }

    async fn keep(&self, id: &str, dispute: Option<Dispute>) -> Result<(), Error> {
        let body = dispute.as_ref().map(serde_json::to_vec).transpose()?;
        let entries = vec![Entry { kind: KIND, id: id.to_owned(), body }];
        self.store.commit(Batch { entries, ..Batch::default() }).await?;
        match dispute {
            Some(dispute) => self.disputes().insert(id.to_owned(), dispute),
            None => self.disputes().remove(id),
        };
        Ok(())
    }

    fn disputes(&self) -> MutexGuard<'_, HashMap<String, Dispute>> {
        self.disputes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway {
    /// Appends the reminders that are due. One that was appended right before a crash is known by its id.
    ///
    /// # Errors
    /// When the log or the store failed.
    pub(super) async fn remind(&self, deadlines: &Deadlines) -> Result<(), Error> {
        let now_s = self.clock.wall().div_euclid(1000);
        let due: Vec<_> = {
            let disputes = deadlines.disputes();
            let due = disputes.iter().filter_map(|(id, dispute)| {
                let days = dispute.due(now_s);
                (days.is_some() || dispute.is_over(now_s)).then(|| (id.clone(), dispute.clone(), days))
            });
            due.collect()
        };
        for (id, dispute, days) in due {
            let next = match days {
                Some(days) => {
                    if let Some(account) = self.accounts.resolve(&dispute.alias) {
                        self.remind_of(account, &id, (&dispute, days), now_s).await?;
                    }
                    Some(Dispute { told_days: Some(days), ..dispute })
                }
                None => None,
            };
            deadlines.keep(&id, next).await?;
        }
        Ok(())
    }

    async fn remind_of(
        &self,
        account: &Account,
        id: &str,
        (dispute, days): (&Dispute, i64),
        now_s: i64,
    ) -> Result<(), Error> {
        // Retention may have taken it; the reminder then names the dispute alone.
        let told = self.feed.get(account.log_alias(), &dispute.event_id).await?.map(LogEvent::from);
        let envelope = told.as_ref().and_then(LogEvent::envelope);
        let object = told.as_ref().and_then(|logged| snapshot(&logged.event.json)).map(str::to_owned);
        let object = object.unwrap_or_else(|| json!({"id": id, "object": "dispute"}).to_string());
        let connected = envelope.map(|envelope| envelope.connected_account.clone()).unwrap_or_default();
        let belongs = self.accounts.belonging_to(account);
        let made = Made {
            id: format!("{ID_PREFIX}{days}_{id}_{}", dispute.due_by_s),
            object: "event",
            api_version: told.map(|logged| logged.event.api_version).unwrap_or_default(),
            account: Some(connected).filter(|connected| !connected.is_empty()),
            created: now_s,
            data: Data { object: RawValue::from_string(object)? },
            livemode: belongs.livemode,
            kind: RESPONSE_DUE,
            request: None,
            tollgate: json!({"days": days, "due_by": dispute.due_by_s, "told_by": dispute.event_id}),
        };
        let json = serde_json::to_string(&made)?;
        let arrival = Arrival {
            envelope: Envelope::parse(&json)?,
            account: account.log_alias().to_owned(),
            source: EventSource::Synthetic,
            json,
            cause: Cause::default(),
        };
        self.intake.take(&belongs, arrival).await?;
        Ok(())
    }
}

/// An event of the gateway's own, in the form of Stripe's.
#[derive(Serialize)]
pub(super) struct Made<'a> {
    pub(super) id: String,
    pub(super) object: &'static str,
    pub(super) api_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) account: Option<String>,
    pub(super) created: i64,
    pub(super) data: Data,
    pub(super) livemode: bool,
    #[serde(rename = "type")]
    pub(super) kind: &'a str,
    pub(super) request: Option<Value>,
    /// What Stripe's events do not have.
    pub(super) tollgate: Value,
}

#[derive(Serialize)]
pub(super) struct Data {
    pub(super) object: Box<RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUE: i64 = 100 * DAY_S;

    fn dispute(created_s: i64, waits: bool) -> Dispute {
        let event_id = format!("evt_{created_s}_{waits}");
        Dispute { alias: String::new(), event_id, created_s, due_by_s: DUE, waits, told_days: None }
    }

    #[test]
    fn a_reminder_is_due_once_at_each_of_its_days() {
        let mut waiting = dispute(1, true);
        let mut told = Vec::new();
        for hour in 0..200 {
            let now_s = DUE - 8 * DAY_S + hour * 3_600;
            if let Some(days) = waiting.due(now_s) {
                told.push((days, (DUE - now_s) / 3_600));
                waiting.told_days = Some(days);
            }
        }
        assert_eq!(told, [(7, 168), (3, 72), (1, 24)]);
    }

    #[test]
    fn after_a_pause_only_the_most_urgent_one_is_told() {
        let waiting = dispute(1, true);
        assert_eq!(waiting.due(DUE - 2 * DAY_S), Some(3));
        assert_eq!(waiting.due(DUE), None, "it is too late");
        assert_eq!(dispute(1, false).due(DUE - 2 * DAY_S), None, "it was answered");
    }

    #[test]
    fn the_latest_state_counts_whatever_the_order_of_arrival() {
        let (opened, answered) = (dispute(10, true), dispute(10, false));
        assert_eq!(opened.followed_by(answered.clone()), Some(answered.clone()));
        assert_eq!(answered.followed_by(opened.clone()), None);
        assert_eq!(opened.followed_by(dispute(9, false)), None);
        let reopened = Dispute { due_by_s: DUE + DAY_S, ..dispute(11, true) };
        let told = Dispute { told_days: Some(1), ..opened };
        assert_eq!(
            told.followed_by(reopened.clone()),
            Some(reopened),
            "a new deadline has its own reminders"
        );
        assert_eq!(told.followed_by(dispute(11, true)).unwrap().told_days, Some(1));
    }
}
