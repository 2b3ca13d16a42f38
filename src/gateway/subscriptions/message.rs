//! What subscriptions say, as the contract's messages and faults.

use super::super::call::Gateway;
use super::super::events::{fault, message::timestamp};
use super::super::fault::{Code, Fault, Reason, Retry};
use super::super::operation::instant;
use super::super::outcome;
use crate::domain::limits::SUBSCRIPTIONS_PER_NAMESPACE_MAX;
use crate::events::Feed;
use crate::events::subscriptions::{Delivering, Error, Named, Refused, Stale, Standing, Unkept};
use crate::proto::v1::{DeliveryOptions, LostRange, Subscription, SubscriptionStatus};
use crate::store;

impl Gateway {
    /// A subscription with how it is doing.
    pub(super) async fn subscription_message(&self, named: &Named) -> Result<Subscription, Fault> {
        let standing = named.standing(&self.feed, self.clock.now()).await.map_err(|error| fault(&error))?;
        let terms = named.terms();
        Ok(Subscription {
            name: terms.name.clone(),
            account: terms.account.clone(),
            types: terms.types.clone(),
            presets: terms.presets.clone(),
            filter: terms.filter(),
            options: Some(options(terms.delivering)),
            created: instant(terms.created_ms),
            created_by: terms.created_by.clone(),
            status: Some(status(&standing, &self.feed)),
        })
    }
}

pub(super) fn status(standing: &Standing, feed: &Feed) -> SubscriptionStatus {
    let count = |of: usize| u32::try_from(of).unwrap_or(u32::MAX);
    SubscriptionStatus {
        position: standing.position,
        cursor: feed.cursor(standing.position).encode(),
        head_position: standing.head,
        head_time: standing.head_received_ms.map(timestamp),
        lag_events: standing.lag,
        lag_s: standing.lag_s,
        in_flight: count(standing.in_flight),
        parked: count(standing.parked),
        consumers: count(standing.consumers),
        paused: standing.paused,
        lost: standing.lost.map(|lost| LostRange { first_position: lost.first, last_position: lost.last }),
    }
}

fn options(delivering: Delivering) -> DeliveryOptions {
    let count = |of: usize| i32::try_from(of).unwrap_or(i32::MAX);
    DeliveryOptions {
        lease_s: i32::try_from(delivering.lease_ms / 1000).unwrap_or(i32::MAX),
        max_in_flight: count(delivering.in_flight_max),
        max_in_flight_bytes: i64::try_from(delivering.in_flight_bytes_max).unwrap_or(i64::MAX),
        max_attempts: i32::try_from(delivering.attempts_max).unwrap_or(i32::MAX),
    }
}

pub(super) fn not_found(name: &str) -> Fault {
    let message = "the caller's namespace has no subscription of this name";
    let mut fault = Fault::new(Code::NotFound, Reason::SubscriptionNotFound, message);
    fault.resource = Some(("subscription".to_owned(), name.to_owned()));
    fault.retry(Retry::Never)
}

/// Why a subscription was not created, or not deleted.
pub(super) fn creation_refused(error: &Error, name: &str) -> Fault {
    match error {
        Error::Exists => {
            let mut fault = Fault::new(Code::AlreadyExists, Reason::SubscriptionExists, error.to_string());
            fault.resource = Some(("subscription".to_owned(), name.to_owned()));
            fault.retry(Retry::Never)
        }
        Error::TooMany => {
            let mut fault = Fault::new(Code::ResourceExhausted, Reason::Overloaded, error.to_string());
            fault.quota = Some("SUBSCRIPTIONS_PER_NAMESPACE_MAX".to_owned());
            fault.with("limit", SUBSCRIPTIONS_PER_NAMESPACE_MAX.to_string()).retry(Retry::Never)
        }
        Error::Ended => not_found(name),
        Error::Store(error) => store_failed(error),
        Error::Damaged { .. } => Fault::new(Code::Internal, Reason::Internal, error.to_string()),
    }
}

/// Why a change of a subscription does not count, or may not.
pub(super) fn unkept(error: &Unkept, name: &str) -> Fault {
    match error {
        Unkept::Ended => not_found(name),
        Unkept::Store(error) => store_failed(error),
    }
}

fn store_failed(error: &store::Error) -> Fault {
    outcome::store_down(error, "it may not have been put on record; say it again")
}

/// Why an answer to the subscription of this name does not count; `ack_ids` are those that were answered with.
pub(super) fn refused(error: &Refused, name: &str, ack_ids: &[String]) -> Fault {
    match error {
        Refused::Unkept(error) => unkept(error, name),
        Refused::Stale(index, stale) => {
            let cause = match stale {
                Stale::Generation => "generation",
                Stale::DeliveredAgain => "delivered_again",
                Stale::Parked => "parked",
                Stale::Answered => "answered",
            };
            let ack_id = ack_ids.get(*index).cloned().unwrap_or_default();
            let message = format!("the answer is stale: {stale}");
            let mut fault = Fault::new(Code::FailedPrecondition, Reason::AckStale, message)
                .with("ack_id", ack_id.as_str())
                .with("cause", cause)
                .retry(Retry::Never);
            fault.precondition = Some(("ACK_FRESH".to_owned(), ack_id));
            fault
        }
    }
}
