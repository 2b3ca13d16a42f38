//! Sweeps of an operator's asking. How they are made is [`super::sweep`]'s.

use std::sync::Arc;

use tracing::Instrument as _;

use super::accounts::Account;
use super::admin::Errand;
use super::call::Gateway;
use super::context::Context;
use super::fault::{Code, Fault, Reason, Retry};
use super::operation::instant;
use super::outcome;
use super::sweep::{Standing, Stop};
use crate::contract::{Params, Sensitivity, Violations};
use crate::proto::v1::{BackfillRequest, BackfillResponse, Completeness};
use crate::stripe::events::{EVENTS_LISTED_S, ReadError};

const BACKFILL: &str = "tollgate.v1.FeedService/Backfill";

impl Gateway {
    /// Reads a span of Stripe's list and adds what the log lacks.
    ///
    /// # Errors
    /// PERMISSION_DENIED for a caller that is no operator, INVALID_ARGUMENT for a span that Stripe does not list,
    /// RESOURCE_EXHAUSTED when the reads of the day are used up, UNAVAILABLE when Stripe or the store does not answer.
    pub async fn backfill(
        self: Arc<Self>,
        context: Context,
        request: BackfillRequest,
    ) -> Result<BackfillResponse, Fault> {
        // A task of its own: when the caller leaves, what it began is still done and on record.
        let work = async move {
            let params = asked(&request);
            let read = async |errand: &mut Errand| {
                let (account, span_s) = self.asked_span(&request)?;
                self.begin_errand(errand).await?;
                self.backfilled(account, &request.connected_account, span_s).await
            };
            let place = (BACKFILL, Some(request.account.as_str()));
            let (answer, call) = self.errand_at(&context, place, params, read).await?;
            Ok(BackfillResponse { call: Some(call), ..answer })
        };
        // A task fails only by a panic.
        tokio::spawn(work.in_current_span()).await.unwrap_or_else(|_| Err(outcome::broken()))
    }

    /// The account that a request names, and the seconds from which to which it wants the list read.
    fn asked_span(&self, request: &BackfillRequest) -> Result<(&Arc<Account>, (i64, i64)), Fault> {
        let violations = Violations::of(request).into_vec();
        if !violations.is_empty() {
            return Err(Fault::invalid(violations));
        }
        let account = self.accounts.named(&request.account)?;
        let now_s = self.clock.wall().div_euclid(1000);
        let to_s = request.to.as_ref().map_or(now_s, |to| to.seconds.min(now_s));
        let from_s = request.from.as_ref().map_or(i64::MIN, |from| from.seconds);
        if from_s < now_s.saturating_sub(EVENTS_LISTED_S) {
            return Err(Fault::invalid_field(
                "from",
                "must lie within the 30 days that Stripe lists events for",
            ));
        }
        if from_s > to_s {
            return Err(Fault::invalid_field("from", "must not lie behind `to` or in the future"));
        }
        Ok((account, (from_s, to_s)))
    }

    async fn backfilled(
        &self,
        account: &Account,
        connected: &str,
        span_s: (i64, i64),
    ) -> Result<BackfillResponse, Fault> {
        let swept = self.sweep_on_demand(account, connected, span_s).await;
        let (tally, standing) = swept.map_err(|stop| fault(&stop))?;
        Ok(BackfillResponse {
            added: tally.added,
            known: tally.known,
            left_out: tally.left_out,
            reads: tally.reads,
            completeness: Some(self.completeness_of(connected, &standing)),
            call: None,
        })
    }

    /// How the accounts that go by an alias compare with Stripe's list.
    pub(super) fn completeness(&self, log_alias: &str) -> Vec<Completeness> {
        let standings = self.sweeps.of(log_alias);
        standings.iter().map(|(connected, standing)| self.completeness_of(connected, standing)).collect()
    }

    fn completeness_of(&self, connected: &str, standing: &Standing) -> Completeness {
        let at = |seconds: i64| instant(seconds.saturating_mul(1000));
        Completeness {
            connected_account: connected.to_owned(),
            swept_from: standing.swept.and_then(|(from_s, _)| at(from_s)),
            swept_to: standing.swept.and_then(|(_, to_s)| at(to_s)),
            last_sweep: Some(standing.last_ms).filter(|at_ms| *at_ms != 0).and_then(instant),
            last_error: standing.last_error.clone(),
            repaired: standing.repaired,
            reads_today: self.sweeps.reads_today(self.clock.wall().div_euclid(1000)),
            reads_per_day: self.sweep_reads_per_day(),
        }
    }
}

/// What is asked for, for the audit record.
fn asked(request: &BackfillRequest) -> Params {
    let mut params = Params::default();
    for (name, at) in [("from", &request.from), ("to", &request.to)] {
        if let Some(at) = at {
            params.push(name, at.to_string(), Sensitivity::Public);
        }
    }
    params.push("connected_account", request.connected_account.as_str(), Sensitivity::Public);
    params
}

fn fault(stop: &Stop) -> Fault {
    let (code, reason) = match stop {
        Stop::Allotment => (Code::ResourceExhausted, Reason::Overloaded),
        Stop::Read(ReadError::NoAnswer(_)) => (Code::Unavailable, Reason::StripeUnreachable),
        Stop::Read(ReadError::Limited) => (Code::Unavailable, Reason::StripeRateLimited),
        Stop::Read(ReadError::KeyRefused) => (Code::FailedPrecondition, Reason::GatewayCredentialRejected),
        Stop::Read(ReadError::NoPermission(_)) => {
            (Code::FailedPrecondition, Reason::GatewayKeyLacksPermission)
        }
        Stop::Read(ReadError::Foreign) => (Code::Internal, Reason::StripeAnswerUndecodable),
        Stop::Read(ReadError::Missing | ReadError::Refused(_)) => {
            (Code::Unavailable, Reason::StripeUnavailable)
        }
        Stop::Feed(_) | Stop::Store(_) => (Code::Unavailable, Reason::StoreUnavailable),
    };
    let message = format!("{stop}; what was found until then is in the log, and the same call goes on");
    Fault::new(code, reason, message).retry(Retry::Never)
}
