//! An open stream of a subscription: each event is judged before it goes out, and the stream itself whenever callers or
//! policies change.

use std::sync::Arc;

use super::super::accounts::Account;
use super::super::call::Gateway;
use super::super::context::Context;
use super::super::events::{
    fault, message,
    stream::{Decisions, Reader},
};
use super::super::fault::{Code, Fault, Reason, Retry};
use super::message::{not_found, status};
use super::parked::replay_name;
use super::{checked, named_by};
use crate::contract::{Sensitivity, Sent, Violations};
use crate::domain::caller::Caller;
use crate::events::subscriptions::{Consumer, ConsumerError, Supply, Terms};
use crate::proto::v1::{ConsumeRequest, ConsumeResponse, Delivery};

const CONSUME: &str = "tollgate.v1.SubscriptionService/Consume";

/// A stream of events to be dealt with, and who takes them.
#[derive(Debug)]
pub struct Deliveries {
    consumer: Consumer,
    reader: Reader,
    /// What the subscription's creator may be shown.
    created_by: Decisions,
}

impl Deliveries {
    /// What the subscription is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.consumer.named().terms().name
    }
}

impl Gateway {
    /// Opens a stream of a subscription.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a faulty question, NOT_FOUND, UNAVAILABLE when the store cannot be read.
    pub async fn consume(&self, context: &Context, request: &ConsumeRequest) -> Result<Deliveries, Fault> {
        let mut params = named_by(&request.name);
        params.push("consumer", request.consumer.as_str(), Sensitivity::Public);
        let (found, alias) = self.own_subscription(context, &request.name);
        let open = async {
            checked(Violations::of(request))?;
            let named = found.ok_or_else(|| not_found(&request.name))?;
            let account = Arc::clone(self.accounts.named(&alias)?);
            let viewer = self.viewer(&context.caller, &account);
            let asked = usize::try_from(request.max_in_flight).ok().filter(|asked| *asked > 0);
            let consumer = self.subscriptions.consume(named, &request.consumer, asked.unwrap_or(usize::MAX));
            let reader = Reader::new(CONSUME, (context.clone(), account), viewer);
            Ok(Deliveries { consumer, reader, created_by: Decisions::default() })
        };
        let (deliveries, _) = self.read_own(context, (CONSUME, Some(&alias)), params, open).await?;
        Ok(deliveries)
    }

    /// The next message of a stream.
    ///
    /// # Errors
    /// NOT_FOUND once the subscription is deleted, ABORTED once another stream has taken the consumer's name, UNAVAILABLE
    /// when the store cannot be used.
    pub async fn next_delivery(&self, deliveries: &mut Deliveries) -> Result<Sent<ConsumeResponse>, Fault> {
        let Deliveries { consumer, reader, created_by } = deliveries;
        let named = Arc::clone(consumer.named());
        let Reader { context, account, shown, viewer, .. } = reader;
        let (caller, account) = (&context.caller, &**account);
        let is_shown =
            |kind: &str| shown.on(kind, self.policies.epoch(), || self.may_receive(caller, account, kind));
        let is_wanted = |kind: &str| self.is_wanted(named.terms(), created_by, (caller, account), kind);
        let next = consumer.next(is_shown, is_wanted).await;
        match next {
            Ok(Supply::Checkpoint(standing)) => {
                let checkpoint = Some(status(&standing, &self.feed));
                Ok(ConsumeResponse { checkpoint, ..ConsumeResponse::default() }.into())
            }
            Ok(Supply::Event { logged, taken, ack_id }) => {
                let delivery = Some(Delivery {
                    ack_id: ack_id.encode(),
                    attempt: taken.attempt,
                    lease_end: Some(message::timestamp(taken.lease_end_ms)),
                    replay: replay_name(taken.replay),
                });
                // The event is field 1 of this message too.
                let shared = message::shared(&logged, &self.feed, viewer);
                Ok(Sent { message: ConsumeResponse { delivery, ..ConsumeResponse::default() }, shared })
            }
            Err(ConsumerError::Ended) => Err(not_found(deliveries.name())),
            Err(ConsumerError::Replaced) => Err(replaced()),
            Err(ConsumerError::Feed(error)) => Err(fault(&error)),
        }
    }

    /// Judges an open stream anew, after a change of callers or policies.
    ///
    /// # Errors
    /// UNAUTHENTICATED when its consumer's credential is nobody's any more, PERMISSION_DENIED when no rule permits the
    /// stream any more.
    pub fn deliveries_again(&self, deliveries: &mut Deliveries) -> Result<(), Fault> {
        deliveries.created_by = Decisions::default();
        self.reader_again(&mut deliveries.reader)
    }

    /// Whether events of a type that a consumer may not be shown are left for others: the creator may be shown them, or it
    /// is not configured any more, so that nobody knows. Others are passed over, and counted.
    fn is_wanted(
        &self,
        terms: &Terms,
        decisions: &mut Decisions,
        (consumer, account): (&Caller, &Account),
        kind: &str,
    ) -> bool {
        let is_wanted = decisions.on(kind, self.policies.epoch(), || {
            let creator = self.registry.by_name(&terms.created_by, consumer);
            let is_wanted = terms.created_by != consumer.name
                && creator.is_none_or(|creator| self.may_receive(&creator, account, kind));
            if !is_wanted {
                let (subscription, consumer) = (terms.key(), &consumer.name);
                let said =
                    "events of a type are passed over: neither the consumer nor the creator may receive it";
                tracing::warn!(subscription, consumer, kind, "{said}");
            }
            is_wanted
        });
        if !is_wanted {
            self.metrics.event_passed_over();
        }
        is_wanted
    }
}

fn replaced() -> Fault {
    let message = "another stream has taken the consumer's name; only the latest goes on";
    Fault::new(Code::Aborted, Reason::ConsumerReplaced, message).retry(Retry::Never)
}
