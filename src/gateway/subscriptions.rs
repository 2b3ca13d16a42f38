//! Named subscriptions as callers manage them: each belongs to the namespace of the caller that created it, and whatever
//! changes one is durable and on record before it is answered. What a subscription does is the events' business.

mod answers;
mod message;
mod parked;
mod stream;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use prost::Message as _;

use self::message::{creation_refused, not_found, unkept};
pub use self::stream::Deliveries;
use super::admin::Errand;
use super::call::Gateway;
use super::context::Context;
use super::events::{asked, fault};
use super::fault::Fault;
use crate::contract::{FieldPath, Params, Sensitivity, Violations};
use crate::domain::limits::{
    SUBSCRIPTION_ATTEMPTS_DEFAULT, SUBSCRIPTION_IN_FLIGHT_BYTES_DEFAULT, SUBSCRIPTION_IN_FLIGHT_DEFAULT,
    SUBSCRIPTION_LEASE_MS_DEFAULT,
};
use crate::events::Start;
use crate::events::subscriptions::{Delivering, Named, Terms};
use crate::proto::v1::create_subscription_request::Start as CreateAt;
use crate::proto::v1::seek_subscription_request::To;
use crate::proto::v1::subscribe_request::Start as Wanted;
use crate::proto::v1::{
    self, CallInfo, CreateSubscriptionRequest, CreateSubscriptionResponse, DeleteSubscriptionRequest,
    DeleteSubscriptionResponse, DeliveryOptions, EventFilter, GetSubscriptionRequest,
    GetSubscriptionResponse, ListSubscriptionsRequest, ListSubscriptionsResponse, PauseSubscriptionRequest,
    PauseSubscriptionResponse, ResumeSubscriptionRequest, ResumeSubscriptionResponse,
    SeekSubscriptionRequest, SeekSubscriptionResponse, SubscribeRequest,
};

const CREATE: &str = "tollgate.v1.SubscriptionService/CreateSubscription";
const GET: &str = "tollgate.v1.SubscriptionService/GetSubscription";
const LIST: &str = "tollgate.v1.SubscriptionService/ListSubscriptions";
const PAUSE: &str = "tollgate.v1.SubscriptionService/PauseSubscription";
const RESUME: &str = "tollgate.v1.SubscriptionService/ResumeSubscription";
const SEEK: &str = "tollgate.v1.SubscriptionService/SeekSubscription";
const DELETE: &str = "tollgate.v1.SubscriptionService/DeleteSubscription";

impl Gateway {
    /// Creates a subscription.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a faulty question, ALREADY_EXISTS for a name that stands for another, OUT_OF_RANGE for a
    /// start that the log does not reach back to, RESOURCE_EXHAUSTED when there are too many.
    pub async fn create_subscription(
        &self,
        context: &Context,
        request: &CreateSubscriptionRequest,
    ) -> Result<CreateSubscriptionResponse, Fault> {
        let mut params = asked(&request.types, request.presets(), request.filter.as_ref());
        params.push("name", request.name.as_str(), Sensitivity::Public);
        let create = async |errand: &mut Errand| {
            let (start, terms) = self.asked_subscription(context, request)?;
            // One that is there stands, also when the log does not reach back any more to where it was to begin.
            let there = self.subscriptions.find(&terms.namespace, &terms.name);
            if let Some(named) = there.filter(|named| named.terms().is_like(&terms)) {
                return self.subscription_message(&named).await;
            }
            let place = self.feed.place(start).await.map_err(|error| fault(&error))?;
            let id = terms.id;
            let made = self.subscriptions.create(terms, place, vec![errand.row()?]).await;
            let named = made.map_err(|error| creation_refused(&error, &request.name))?;
            // One that was made meanwhile has put nothing on record.
            errand.kept = named.terms().id == id;
            self.subscription_message(&named).await
        };
        let (subscription, call) =
            self.errand_at(context, (CREATE, Some(&request.account)), params, create).await?;
        Ok(CreateSubscriptionResponse { subscription: Some(subscription), call: Some(call) })
    }

    /// Shows a subscription.
    ///
    /// # Errors
    /// NOT_FOUND, and UNAVAILABLE when the store cannot be read.
    pub async fn subscription(
        &self,
        context: &Context,
        request: &GetSubscriptionRequest,
    ) -> Result<GetSubscriptionResponse, Fault> {
        let (found, alias) = self.own_or_orphaned(context, &request.name);
        let read = async {
            checked(Violations::of(request))?;
            let named = found.ok_or_else(|| not_found(&request.name))?;
            self.subscription_message(&named).await
        };
        let (subscription, call) =
            self.read_own(context, (GET, Some(&alias)), named_by(&request.name), read).await?;
        Ok(GetSubscriptionResponse { subscription: Some(subscription), call: Some(call) })
    }

    /// Lists the subscriptions of the caller's namespace.
    ///
    /// # Errors
    /// UNAVAILABLE when the store cannot be read.
    pub async fn list_subscriptions(
        &self,
        context: &Context,
        _request: &ListSubscriptionsRequest,
    ) -> Result<ListSubscriptionsResponse, Fault> {
        let read = async {
            let mut subscriptions = Vec::new();
            for named in self.subscriptions.of(&context.caller.namespace) {
                let account = self.accounts.resolve(&named.terms().account);
                let account = account.unwrap_or_else(|| self.accounts.default_account());
                if self.permits(&context.caller, GET, account) {
                    subscriptions.push(self.subscription_message(&named).await?);
                }
            }
            Ok(subscriptions)
        };
        let (subscriptions, call) = self.read_own(context, (LIST, None), Params::default(), read).await?;
        Ok(ListSubscriptionsResponse { subscriptions, call: Some(call) })
    }

    /// Stops deliveries.
    ///
    /// # Errors
    /// NOT_FOUND, and UNAVAILABLE when it cannot be made durable.
    pub async fn pause_subscription(
        &self,
        context: &Context,
        request: &PauseSubscriptionRequest,
    ) -> Result<PauseSubscriptionResponse, Fault> {
        let rules = Violations::of(request);
        let (subscription, call) = self.set_paused(context, (PAUSE, &request.name), rules, true).await?;
        Ok(PauseSubscriptionResponse { subscription: Some(subscription), call: Some(call) })
    }

    /// Goes on with deliveries.
    ///
    /// # Errors
    /// As for [`Gateway::pause_subscription`].
    pub async fn resume_subscription(
        &self,
        context: &Context,
        request: &ResumeSubscriptionRequest,
    ) -> Result<ResumeSubscriptionResponse, Fault> {
        let rules = Violations::of(request);
        let (subscription, call) = self.set_paused(context, (RESUME, &request.name), rules, false).await?;
        Ok(ResumeSubscriptionResponse { subscription: Some(subscription), call: Some(call) })
    }

    /// Moves a subscription's place.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a faulty question, NOT_FOUND, OUT_OF_RANGE for a place that the log does not reach back to.
    pub async fn seek_subscription(
        &self,
        context: &Context,
        request: &SeekSubscriptionRequest,
    ) -> Result<SeekSubscriptionResponse, Fault> {
        let mut params = named_by(&request.name);
        params.push("to", destination(request), Sensitivity::Public);
        params.push("reason", request.reason.as_str(), Sensitivity::Public);
        let (found, alias) = self.own_subscription(context, &request.name);
        let seek = async |errand: &mut Errand| {
            let start = self.asked_place(request)?;
            let named = found.ok_or_else(|| not_found(&request.name))?;
            let (position, since_ms) = self.feed.place(start).await.map_err(|error| fault(&error))?;
            let moved =
                named.manage(vec![errand.row()?], move |progress| progress.seek(position, since_ms)).await;
            moved.map_err(|error| unkept(&error, &request.name))?;
            errand.kept = true;
            self.subscription_message(&named).await
        };
        let (subscription, call) = self.errand_at(context, (SEEK, Some(&alias)), params, seek).await?;
        Ok(SeekSubscriptionResponse { subscription: Some(subscription), call: Some(call) })
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// NOT_FOUND, and UNAVAILABLE when it cannot be made durable.
    pub async fn delete_subscription(
        &self,
        context: &Context,
        request: &DeleteSubscriptionRequest,
    ) -> Result<DeleteSubscriptionResponse, Fault> {
        let (found, alias) = self.own_or_orphaned(context, &request.name);
        let delete = async |errand: &mut Errand| {
            checked(Violations::of(request))?;
            let named = found.ok_or_else(|| not_found(&request.name))?;
            let deleted = self.subscriptions.delete(named, vec![errand.row()?]).await;
            deleted.map_err(|error| creation_refused(&error, &request.name))?;
            errand.kept = true;
            Ok(())
        };
        let params = named_by(&request.name);
        let ((), call) = self.errand_at(context, (DELETE, Some(&alias)), params, delete).await?;
        Ok(DeleteSubscriptionResponse { call: Some(call) })
    }

    async fn set_paused(
        &self,
        context: &Context,
        (rpc, name): (&str, &str),
        rules: Violations,
        paused: bool,
    ) -> Result<(v1::Subscription, CallInfo), Fault> {
        let (found, alias) = self.own_subscription(context, name);
        let set = async |errand: &mut Errand| {
            checked(rules)?;
            let named = found.ok_or_else(|| not_found(name))?;
            let set = named.manage(vec![errand.row()?], move |progress| progress.pause(paused)).await;
            set.map_err(|error| unkept(&error, name))?;
            errand.kept = true;
            self.subscription_message(&named).await
        };
        self.errand_at(context, (rpc, Some(&alias)), named_by(name), set).await
    }

    /// The subscription of this name in the caller's namespace, and the alias of the account that it is about.
    fn own_subscription(&self, context: &Context, name: &str) -> (Option<Arc<Named>>, String) {
        let found = self.subscriptions.find(&context.caller.namespace, name);
        let alias = found.as_ref().map(|named| named.terms().account.clone()).unwrap_or_default();
        (found, alias)
    }

    /// The same for what shows no event. Where the account is not configured any more, the default stands for it, so that
    /// the subscription can be seen and deleted.
    fn own_or_orphaned(&self, context: &Context, name: &str) -> (Option<Arc<Named>>, String) {
        let (found, alias) = self.own_subscription(context, name);
        let alias = if self.accounts.resolve(&alias).is_some() { alias } else { String::new() };
        (found, alias)
    }

    /// What is to be created, and where it starts.
    fn asked_subscription(
        &self,
        context: &Context,
        request: &CreateSubscriptionRequest,
    ) -> Result<(Start, Terms), Fault> {
        let mut violations = Violations::of(request);
        if !is_name(&request.name) {
            let form = "must consist of lower-case ASCII letters, digits, `-`, `_` and `.`";
            violations.add(&FieldPath::root().field("name"), form);
        }
        checked(violations)?;
        let start = request.start.clone().map(|start| match start {
            CreateAt::Earliest(set) => Wanted::Earliest(set),
            CreateAt::Latest(set) => Wanted::Latest(set),
            CreateAt::AfterCursor(cursor) => Wanted::AfterCursor(cursor),
            CreateAt::AtTime(time) => Wanted::AtTime(time),
        });
        let question = SubscribeRequest {
            account: request.account.clone(),
            start,
            types: request.types.clone(),
            presets: request.presets.clone(),
            filter: request.filter.clone(),
        };
        let (start, _, account) = self.question(&question)?;
        let filter = request.filter.as_ref().filter(|filter| **filter != EventFilter::default());
        let terms = Terms {
            id: RandomState::new().hash_one(&request.name),
            namespace: context.caller.namespace.clone(),
            name: request.name.clone(),
            account: account.log_alias().to_owned(),
            types: request.types.clone(),
            presets: request.presets.clone(),
            filter: filter.map(EventFilter::encode_to_vec).unwrap_or_default(),
            delivering: delivering(request.options.unwrap_or_default()),
            created_ms: self.clock.wall(),
            created_by: context.caller.name.clone(),
        };
        Ok((start, terms))
    }

    /// Where to move a subscription.
    fn asked_place(&self, request: &SeekSubscriptionRequest) -> Result<Start, Fault> {
        let mut violations = Violations::of(request);
        let start = match request.to.clone() {
            Some(To::Earliest(true)) => Some(Wanted::Earliest(true)),
            Some(To::Latest(true)) => Some(Wanted::Latest(true)),
            Some(To::AfterCursor(cursor)) => Some(Wanted::AfterCursor(cursor)),
            Some(To::AtTime(time)) => Some(Wanted::AtTime(time)),
            Some(To::Earliest(false) | To::Latest(false)) | None => None,
        };
        violations.required(&FieldPath::root().field("to"), start.is_some());
        checked(violations)?;
        self.question(&SubscribeRequest { start, ..SubscribeRequest::default() }).map(|(start, ..)| start)
    }
}

fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    name.bytes().all(is_part)
}

fn delivering(options: DeliveryOptions) -> Delivering {
    let of = |asked: i64, default: usize| {
        usize::try_from(asked).ok().filter(|asked| *asked > 0).unwrap_or(default)
    };
    let lease_ms = i64::from(options.lease_s) * 1000;
    Delivering {
        lease_ms: if lease_ms == 0 { SUBSCRIPTION_LEASE_MS_DEFAULT } else { lease_ms },
        in_flight_max: of(options.max_in_flight.into(), SUBSCRIPTION_IN_FLIGHT_DEFAULT),
        in_flight_bytes_max: of(options.max_in_flight_bytes, SUBSCRIPTION_IN_FLIGHT_BYTES_DEFAULT),
        attempts_max: u32::try_from(options.max_attempts)
            .ok()
            .filter(|asked| *asked > 0)
            .unwrap_or(SUBSCRIPTION_ATTEMPTS_DEFAULT),
    }
}

/// Where to, as the audit record has it.
fn destination(request: &SeekSubscriptionRequest) -> String {
    match &request.to {
        Some(To::Earliest(_)) => "earliest".to_owned(),
        Some(To::Latest(_)) => "latest".to_owned(),
        Some(To::AfterCursor(cursor)) => cursor.clone(),
        Some(To::AtTime(time)) => time.to_string(),
        None => String::new(),
    }
}

fn named_by(name: &str) -> Params {
    let mut params = Params::default();
    params.push("name", name, Sensitivity::Public);
    params
}

fn checked(violations: Violations) -> Result<(), Fault> {
    let violations = violations.into_vec();
    if violations.is_empty() { Ok(()) } else { Err(Fault::invalid(violations)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_takes_the_default() {
        let all = delivering(DeliveryOptions::default());
        assert_eq!((all.lease_ms, all.in_flight_max, all.attempts_max), (30_000, 100, 10));
        let asked = DeliveryOptions { lease_s: 2, max_in_flight: 3, max_in_flight_bytes: 4, max_attempts: 5 };
        let expected =
            Delivering { lease_ms: 2_000, in_flight_max: 3, in_flight_bytes_max: 4, attempts_max: 5 };
        assert_eq!(delivering(asked), expected);
    }

    #[test]
    fn a_name_has_no_slash_and_nothing_that_has_to_be_escaped() {
        assert!(is_name("orders-eu.v2_a") && !is_name("a/b") && !is_name("A") && !is_name("ä"));
    }
}
