//! Reads of the event log: the same checks, audit and log line as every other call has. Which events there are and in
//! what order is the feed's to say.

pub(super) mod message;
pub(super) mod stream;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use prost_types::Timestamp;

pub use self::stream::EventStream;
use super::accounts::Account;
use super::call::{Done, Gateway};
use super::context::Context;
use super::fault::{Code, Fault, Reason, Retry};
use crate::audit::Phase;
use crate::contract::page::{BadToken, Binding};
use crate::contract::{FieldPath, Params, Sensitivity, Violation, Violations};
use crate::domain::clock::UnixMillis;
use crate::domain::cursor::Cursor;
use crate::domain::limits::{PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX};
use crate::events::{Error, Filter, LogEvent, Query, Start, Types};
use crate::proto::v1::subscribe_request::Start as Wanted;
use crate::proto::v1::{
    CallInfo, CauseFilter, EventFilter, EventPreset, GetEventRequest, GetEventResponse, ListEventsRequest,
    ListEventsResponse, SubscribeRequest, TimeRange,
};
use crate::store::StoredEvent;

const SUBSCRIBE: &str = "tollgate.v1.EventService/Subscribe";
const LIST: &str = "tollgate.v1.EventService/ListEvents";
const GET: &str = "tollgate.v1.EventService/GetEvent";
/// Nanoseconds of a second.
const NANOS: i32 = 1_000_000_000;
/// Advice on when to come back after a failure of the store, or to another gateway.
const RETRY_SOON: Duration = Duration::from_secs(1);

impl Gateway {
    /// Opens a stream of events.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a faulty question, OUT_OF_RANGE for a cursor that the log does not reach back to,
    /// UNAVAILABLE when the store cannot be read.
    pub async fn subscribe(
        &self,
        context: &Context,
        request: &SubscribeRequest,
    ) -> Result<EventStream, Fault> {
        let params = asked(&request.types, request.presets(), request.filter.as_ref());
        let open = async {
            let (start, types, account) = self.question(request)?;
            let viewer = self.viewer(&context.caller, &account);
            let filter =
                Filter::new(account.log_alias(), types).about(request.filter.as_ref(), viewer.clone());
            let subscription = self.feed.subscribe(start, filter).await.map_err(|error| fault(&error))?;
            Ok(EventStream::new((SUBSCRIBE, subscription), (context.clone(), account), viewer))
        };
        let (stream, _) = self.read_own(context, (SUBSCRIBE, Some(&request.account)), params, open).await?;
        Ok(stream)
    }

    /// Reads a page of events.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a faulty question, UNAVAILABLE when the store cannot be read.
    pub async fn list_events(
        &self,
        context: &Context,
        request: &ListEventsRequest,
    ) -> Result<ListEventsResponse, Fault> {
        let params = asked(&request.types, request.presets(), request.filter.as_ref());
        let (page, call) = self
            .read_own(context, (LIST, Some(&request.account)), params, self.page(context, request))
            .await?;
        Ok(ListEventsResponse { call: Some(call), ..page })
    }

    /// Reads one event.
    ///
    /// # Errors
    /// NOT_FOUND when the log does not have it, UNAVAILABLE when the store cannot be read.
    pub async fn event(
        &self,
        context: &Context,
        request: &GetEventRequest,
    ) -> Result<GetEventResponse, Fault> {
        let mut params = Params::default();
        params.push("id", request.id.as_str(), Sensitivity::Public);
        let read = async {
            let account = self.asked_account(&request.account, Violations::of(request).into_vec())?;
            let found =
                self.feed.get(account.log_alias(), &request.id).await.map_err(|error| fault(&error))?;
            // What may not be shown is not there, so that nobody learns that it is.
            let may = |stored: &StoredEvent| self.may_receive(&context.caller, account, &stored.event.kind);
            let stored = found.filter(may).ok_or_else(|| not_found(&request.id))?;
            let viewer = self.viewer(&context.caller, account);
            Ok(message::event(&stored.into(), &self.feed, &viewer))
        };
        let (event, call) = self.read_own(context, (GET, Some(&request.account)), params, read).await?;
        Ok(GetEventResponse { event: Some(event), call: Some(call) })
    }

    /// Carries out a read of the gateway's own for the account that `alias` means, with its audit record and its log line,
    /// and tells about the call.
    pub(super) async fn read_own<R>(
        &self,
        context: &Context,
        (rpc, alias): (&str, Option<&str>),
        params: Params,
        read: impl Future<Output = Result<R, Fault>>,
    ) -> Result<(R, CallInfo), Fault> {
        let mut record = self.plain_record(Phase::Read, context, rpc, alias);
        record.params = self.auditor.params(params.pairs());
        let line = self.line(context, None, &record);
        let answer = match self.judge_own(context, alias, &mut record) {
            Ok(()) => self.attended(&record, read).await,
            Err(fault) => Err(fault),
        };
        record.latency_ms = Some(self.millis_since(line.started));
        record.conclude(answer.as_ref().map_or_else(Fault::reason_name, |_| "succeeded"));
        self.keep(&record);
        let done = |response| Done { response, replayed: false, attempts: 0, stripe_request_id: None };
        let response = self.account_for(&line, answer.map(done))?;
        Ok((response, CallInfo { audit_id: record.id, ..CallInfo::default() }))
    }

    async fn page(
        &self,
        context: &Context,
        request: &ListEventsRequest,
    ) -> Result<ListEventsResponse, Fault> {
        let mut violations = Violations::of(request).into_vec();
        let types = types(&request.types, request.presets(), &mut violations);
        let filters = ListEventsRequest { page_size: 0, page_token: String::new(), ..request.clone() };
        let binding = Binding::new(LIST, &filters.encode_to_vec());
        let before = match request.page_token.as_str() {
            "" => None,
            token => binding.open(token).ok().and_then(|position| position.parse().ok()).or_else(|| {
                violations.push(violation("page_token", &BadToken));
                None
            }),
        };
        let account = self.asked_account(&request.account, violations)?;
        let size =
            if request.page_size == 0 { PAGE_ITEMS_DEFAULT } else { request.page_size.min(PAGE_ITEMS_MAX) };
        let viewer = self.viewer(&context.caller, account);
        let query = Query {
            filter: Filter::new(account.log_alias(), types).about(request.filter.as_ref(), viewer.clone()),
            created_s: seconds(request.created.as_ref()),
            before,
            events_max: usize::try_from(size).unwrap_or_default(),
        };
        let page = self.feed.list(&query).await.map_err(|error| fault(&error))?;
        let may = |logged: &LogEvent| self.may_receive(&context.caller, account, &logged.event.kind);
        Ok(ListEventsResponse {
            events: page
                .events
                .into_iter()
                .filter(may)
                .map(|logged| message::event(&logged, &self.feed, &viewer))
                .collect(),
            next_page_token: page.next.map(|before| binding.seal(&before.to_string())).unwrap_or_default(),
            call: None,
        })
    }

    /// Where to start, and which types of which account to send, as a subscriber asks for it.
    pub(super) fn question(&self, request: &SubscribeRequest) -> Result<(Start, Types, Arc<Account>), Fault> {
        let mut violations = Violations::of(request);
        let start = match &request.start {
            Some(Wanted::Earliest(true)) => Start::Earliest,
            Some(Wanted::AtTime(instant)) => {
                if !(0..NANOS).contains(&instant.nanos) {
                    let at = FieldPath::root().field("at_time");
                    violations.add(&at, "has nanoseconds outside 0 to 999999999");
                }
                Start::At(millis(instant))
            }
            Some(Wanted::AfterCursor(text)) => match Cursor::decode(text) {
                Ok(cursor) => Start::After(cursor),
                Err(error) => {
                    violations.add(&FieldPath::root().field("after_cursor"), error.to_string());
                    Start::Latest
                }
            },
            Some(Wanted::Latest(_) | Wanted::Earliest(false)) | None => Start::Latest,
        };
        let mut violations = violations.into_vec();
        let types = types(&request.types, request.presets(), &mut violations);
        let account = self.asked_account(&request.account, violations)?;
        Ok((start, types, Arc::clone(account)))
    }

    /// The account that a question names, once nothing else is wrong with the question.
    pub(super) fn asked_account(
        &self,
        alias: &str,
        violations: Vec<Violation>,
    ) -> Result<&Arc<Account>, Fault> {
        if violations.is_empty() { self.accounts.named(alias) } else { Err(Fault::invalid(violations)) }
    }
}

/// The filters of a question, for its audit record.
pub(super) fn asked(
    types: &[String],
    presets: impl Iterator<Item = EventPreset>,
    filter: Option<&EventFilter>,
) -> Params {
    let mut params = Params::default();
    types.iter().for_each(|pattern| params.push("types[]", pattern.as_str(), Sensitivity::Public));
    presets.for_each(|preset| params.push("presets[]", preset.as_str_name(), Sensitivity::Public));
    let Some(filter) = filter else { return params };
    let cause = filter.cause();
    for (name, value) in [
        ("object_id", filter.object_id.as_str()),
        ("object_type", &filter.object_type),
        ("customer", &filter.customer),
        ("connected_account", &filter.connected_account),
        ("order_id", &filter.order_id),
        ("cause", if cause == CauseFilter::Unspecified { "" } else { cause.as_str_name() }),
    ] {
        if !value.is_empty() {
            params.push(format!("filter[{name}]"), value, Sensitivity::Public);
        }
    }
    params
}

fn types(
    patterns: &[String],
    presets: impl Iterator<Item = EventPreset>,
    violations: &mut Vec<Violation>,
) -> Types {
    Types::new(patterns, &presets.collect::<Vec<_>>()).unwrap_or_else(|bad| {
        violations.push(violation(&format!("types[{}]", bad.index), &bad));
        Types::default()
    })
}

pub(super) fn violation(field: &str, error: &dyn std::error::Error) -> Violation {
    Violation { field: field.to_owned(), description: error.to_string() }
}

/// The seconds within a range, whose bounds have been checked to be whole seconds.
fn seconds(range: Option<&TimeRange>) -> RangeInclusive<i64> {
    let range = range.cloned().unwrap_or_default();
    let bound = |at: Option<Timestamp>, by: i64| at.map(|at| at.seconds.saturating_add(by));
    let lower = bound(range.gt, 1).max(bound(range.gte, 0)).unwrap_or(i64::MIN);
    let upper = [bound(range.lt, -1), bound(range.lte, 0)].into_iter().flatten().min().unwrap_or(i64::MAX);
    lower..=upper
}

/// The first millisecond at or after an instant.
fn millis(instant: &Timestamp) -> UnixMillis {
    let below = i64::from(instant.nanos).saturating_add(999_999).div_euclid(1_000_000);
    instant.seconds.saturating_mul(1000).saturating_add(below)
}

pub(super) fn not_found(id: &str) -> Fault {
    let mut fault = Fault::new(Code::NotFound, Reason::EventNotFound, "the event log has no such event");
    fault.resource = Some(("event".to_owned(), id.to_owned()));
    fault.retry(Retry::Never)
}

/// What a failure of the feed means to the caller.
pub(super) fn fault(error: &Error) -> Fault {
    match error {
        Error::Expired { oldest } | Error::Foreign { oldest } => {
            let message = format!(
                "{error}; start at `oldest_cursor` or at `earliest`, and expect to have missed events"
            );
            Fault::new(Code::OutOfRange, Reason::CursorExpired, message)
                .with("oldest_cursor", oldest.encode())
                .retry(Retry::Never)
        }
        Error::Store(error) => Fault::new(Code::Unavailable, Reason::StoreUnavailable, error.to_string())
            .retry(Retry::After(RETRY_SOON)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instant() -> impl Strategy<Value = Option<Timestamp>> {
        prop::option::of((0_i64..6).prop_map(|seconds| Timestamp { seconds, nanos: 0 }))
    }

    proptest! {
        #[test]
        fn a_second_is_in_the_range_when_it_keeps_to_all_bounds(
            gt in instant(), gte in instant(), lt in instant(), lte in instant(), second in -1_i64..8,
        ) {
            let kept = gt.is_none_or(|at| second > at.seconds)
                && gte.is_none_or(|at| second >= at.seconds)
                && lt.is_none_or(|at| second < at.seconds)
                && lte.is_none_or(|at| second <= at.seconds);
            prop_assert_eq!(seconds(Some(&TimeRange { gt, gte, lt, lte })).contains(&second), kept);
        }
    }

    #[test]
    fn an_instant_between_two_milliseconds_counts_as_the_later() {
        for (nanos, millisecond) in [(0, 7000), (1, 7001), (1_000_000, 7001), (999_999_999, 8000)] {
            assert_eq!(millis(&Timestamp { seconds: 7, nanos }), millisecond);
        }
    }
}
