//! What a subscription has set aside, and deliveries that somebody asks for.

use std::sync::Arc;

use super::super::admin::Errand;
use super::super::call::Gateway;
use super::super::context::Context;
use super::super::events::{self, fault, message::event, message::timestamp, violation};
use super::super::fault::{Code, Fault, Reason, Retry};
use super::message::{not_found, unkept};
use super::{checked, named_by};
use crate::contract::page::{BadToken, Binding};
use crate::contract::{Sensitivity, Violations};
use crate::domain::limits::{
    EVENT_PAGE_BYTES_MAX, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX, SUBSCRIPTION_OPEN_EVENTS_MAX,
};
use crate::events::LogEvent;
use crate::events::subscriptions::{Named, Parked, known};
use crate::proto::v1::{
    ListParkedEventsRequest, ListParkedEventsResponse, ParkedEvent, ReplayEventsRequest,
    ReplayEventsResponse, ReplayParkedEventsRequest, ReplayParkedEventsResponse,
};

const LIST: &str = "tollgate.v1.SubscriptionService/ListParkedEvents";
const REPLAY_PARKED: &str = "tollgate.v1.SubscriptionService/ReplayParkedEvents";
const REPLAY: &str = "tollgate.v1.SubscriptionService/ReplayEvents";

impl Gateway {
    /// Lists what is parked.
    ///
    /// # Errors
    /// NOT_FOUND, and UNAVAILABLE when the store cannot be read.
    pub async fn parked_events(
        &self,
        context: &Context,
        request: &ListParkedEventsRequest,
    ) -> Result<ListParkedEventsResponse, Fault> {
        let (found, alias) = self.own_subscription(context, &request.name);
        let read = async {
            let mut violations = Violations::of(request).into_vec();
            let binding = Binding::new(LIST, request.name.as_bytes());
            let after: u64 = match request.page_token.as_str() {
                "" => 0,
                token => binding.open(token).ok().and_then(|place| place.parse().ok()).unwrap_or_else(|| {
                    violations.push(violation("page_token", &BadToken));
                    0
                }),
            };
            if !violations.is_empty() {
                return Err(Fault::invalid(violations));
            }
            let named = found.ok_or_else(|| not_found(&request.name))?;
            let size = if request.page_size == 0 { PAGE_ITEMS_DEFAULT } else { request.page_size };
            let size = usize::try_from(size.min(PAGE_ITEMS_MAX)).unwrap_or_default();
            let parked = named.parked();
            let mut rest = parked.range(after.saturating_add(1)..);
            let mut page = ListParkedEventsResponse::default();
            let mut bytes = 0;
            for (position, parked) in rest.by_ref().take(size) {
                let parked = self.parked_event(context, &alias, (*position, parked)).await?;
                bytes += parked.event.as_ref().map_or(0, |event| event.json.len());
                page.events.push(parked);
                if bytes > EVENT_PAGE_BYTES_MAX {
                    break;
                }
            }
            if let (Some(last), Some(_)) = (page.events.last(), rest.next()) {
                page.next_page_token = binding.seal(&last.position.to_string());
            }
            Ok(page)
        };
        let (page, call) =
            self.read_own(context, (LIST, Some(&alias)), named_by(&request.name), read).await?;
        Ok(ListParkedEventsResponse { call: Some(call), ..page })
    }

    /// Delivers parked events again.
    ///
    /// # Errors
    /// NOT_FOUND, FAILED_PRECONDITION when too much is unanswered, UNAVAILABLE when it cannot be made durable.
    pub async fn replay_parked_events(
        &self,
        context: &Context,
        request: &ReplayParkedEventsRequest,
    ) -> Result<ReplayParkedEventsResponse, Fault> {
        let (found, alias) = self.own_subscription(context, &request.name);
        let replay = async |errand: &mut Errand| {
            checked(Violations::of(request))?;
            let named = found.ok_or_else(|| not_found(&request.name))?;
            let mut chosen = Vec::new();
            for position in named.parked().into_keys() {
                if request.positions.is_empty() || request.positions.contains(&position) {
                    // What has left the log cannot be delivered.
                    chosen.extend(self.logged(position).await?.map(|logged| (position, known(&logged))));
                }
            }
            has_room(&named, chosen.len())?;
            let replay = move |progress: &mut crate::events::subscriptions::Progress| {
                let replayed = chosen
                    .into_iter()
                    .filter_map(|(position, known)| progress.replay_parked(position, known).then_some(()));
                replayed.count()
            };
            let replayed = named
                .manage(vec![errand.row()?], replay)
                .await
                .map_err(|error| unkept(&error, &request.name))?;
            errand.kept = true;
            Ok(u32::try_from(replayed).unwrap_or(u32::MAX))
        };
        let params = named_by(&request.name);
        let (replayed, call) = self.errand_at(context, (REPLAY_PARKED, Some(&alias)), params, replay).await?;
        Ok(ReplayParkedEventsResponse { replayed, call: Some(call) })
    }

    /// Delivers chosen events.
    ///
    /// # Errors
    /// As for [`Gateway::replay_parked_events`], and NOT_FOUND for an event that the log does not have.
    pub async fn replay_events(
        &self,
        context: &Context,
        request: &ReplayEventsRequest,
    ) -> Result<ReplayEventsResponse, Fault> {
        let mut params = named_by(&request.name);
        let ids = request.event_ids.iter();
        ids.for_each(|id| params.push("event_ids[]", id.as_str(), Sensitivity::Public));
        params.push("reason", request.reason.as_str(), Sensitivity::Public);
        let (found, alias) = self.own_subscription(context, &request.name);
        let replay = async |errand: &mut Errand| {
            checked(Violations::of(request))?;
            let named = found.ok_or_else(|| not_found(&request.name))?;
            let account = self.accounts.named(&alias)?;
            let mut chosen = Vec::new();
            for id in &request.event_ids {
                let found = self.feed.get(&named.terms().account, id).await.map_err(|error| fault(&error))?;
                let found = found.filter(|one| self.may_receive(&context.caller, account, &one.event.kind));
                let logged: LogEvent = found.ok_or_else(|| events::not_found(id))?.into();
                chosen.push((logged.position, known(&logged)));
            }
            has_room(&named, chosen.len())?;
            let replay = move |progress: &mut crate::events::subscriptions::Progress| progress.replay(chosen);
            let number = named
                .manage(vec![errand.row()?], replay)
                .await
                .map_err(|error| unkept(&error, &request.name))?;
            errand.kept = true;
            Ok(replay_name(number))
        };
        let (replay, call) = self.errand_at(context, (REPLAY, Some(&alias)), params, replay).await?;
        Ok(ReplayEventsResponse { replay, call: Some(call) })
    }

    async fn parked_event(
        &self,
        context: &Context,
        alias: &str,
        (position, parked): (u64, &Parked),
    ) -> Result<ParkedEvent, Fault> {
        let account = self.accounts.named(alias)?;
        let viewer = self.viewer(&context.caller, account);
        let logged = self.logged(position).await?;
        let may = |logged: &Arc<LogEvent>| self.may_receive(&context.caller, account, &logged.event.kind);
        let logged = logged.filter(may);
        Ok(ParkedEvent {
            event: logged.map(|logged| event(&logged, &self.feed, &viewer)),
            position,
            attempts: parked.attempts,
            reason: parked.reason.clone(),
            parked: Some(timestamp(parked.at_ms)),
        })
    }

    /// The event at a position, if the log still has it.
    async fn logged(&self, position: u64) -> Result<Option<Arc<LogEvent>>, Fault> {
        let found = self.feed.after(position.saturating_sub(1), 1, 1).await.map_err(|error| fault(&error))?;
        Ok(found.into_iter().next().filter(|logged| logged.position == position))
    }
}

/// The name of a replay, unique in its subscription; empty for none.
pub(super) fn replay_name(number: u32) -> String {
    if number == 0 { String::new() } else { format!("rpl_{number}") }
}

fn has_room(named: &Named, count: usize) -> Result<(), Fault> {
    if named.has_room_for(count) {
        return Ok(());
    }
    let message = "too many events of the subscription are unanswered to take in more; answer some first";
    let fault = Fault::new(Code::FailedPrecondition, Reason::SubscriptionFull, message);
    Err(fault.with("limit", SUBSCRIPTION_OPEN_EVENTS_MAX.to_string()).retry(Retry::Never))
}
