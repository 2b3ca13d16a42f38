//! What budgets say to callers: that one is used up, and how far each is. What counts is the ledger's business.

use std::time::Duration;

use super::call::{Done, Gateway};
use super::context::Context;
use super::fault::{Code, Fault, Reason, Retry};
use super::operation::instant;
use super::outcome;
use crate::audit::Phase;
use crate::config::BudgetWindow;
use crate::contract::{Params, Sensitivity, Violations};
use crate::domain::clock::UnixMillis;
use crate::domain::operation::order;
use crate::ledger::{Asker, Exceeded, Use};
use crate::policy::READ_EVERY_NAMESPACE;
use crate::proto::v1::{self, BudgetUse, CallInfo, ListBudgetsRequest, ListBudgetsResponse};

const LIST: &str = "tollgate.v1.BudgetService/ListBudgets";
/// Stands for every caller (google.aip.dev/159).
const EVERY_CALLER: &str = "-";

impl Gateway {
    /// How far the budgets are used that concern a caller.
    ///
    /// # Errors
    /// PERMISSION_DENIED for another caller than the one who asks, unless it may see every namespace; INVALID_ARGUMENT for a faulty
    /// question, UNAVAILABLE when the store cannot be read.
    pub async fn list_budgets(
        &self,
        context: &Context,
        request: &ListBudgetsRequest,
    ) -> Result<ListBudgetsResponse, Fault> {
        let mut record = self.plain_record(Phase::Read, context, LIST, Some(&request.account));
        let mut params = Params::default();
        params.push("caller", request.caller.as_str(), Sensitivity::Public);
        params.push("order_id", request.order_id.as_str(), Sensitivity::Public);
        record.params = self.auditor.params(params.pairs());
        let line = self.line(context, None, &record);
        let answer = match self.judge_own(context, Some(&request.account), &mut record) {
            Ok(()) => self.attended(&record, self.budget_uses(context, request)).await,
            Err(fault) => Err(fault),
        };
        record.latency_ms = Some(self.millis_since(line.started));
        record.conclude(answer.as_ref().map_or_else(Fault::reason_name, |_| "succeeded"));
        let call = CallInfo { audit_id: record.id.clone(), ..CallInfo::default() };
        self.keep(&record);
        let answer = answer.map(|budgets| ListBudgetsResponse { budgets, call: Some(call) });
        let done = |response| Done { response, replayed: false, attempts: 0, stripe_request_id: None };
        self.account_for(&line, answer.map(done))
    }

    async fn budget_uses(
        &self,
        context: &Context,
        request: &ListBudgetsRequest,
    ) -> Result<Vec<BudgetUse>, Fault> {
        let violations = Violations::of(request).into_vec();
        if !violations.is_empty() {
            return Err(Fault::invalid(violations));
        }
        let account = self.accounts.named(&request.account)?;
        let mode = account.mode;
        let own = context.caller.name.as_str();
        let caller = if request.caller.is_empty() { own } else { request.caller.as_str() };
        if caller != own && !self.sight(&context.caller).every_of(Some(&account.id), Some(mode)) {
            return Err(another());
        }
        let order =
            (!request.order_id.is_empty()).then(|| order(&context.caller.namespace, mode, &request.order_id));
        let asker = Asker { caller: Some(caller).filter(|caller| *caller != EVERY_CALLER), mode, order };
        let uses = self.ledger.budgets().uses(asker, self.clock.wall()).await;
        Ok(uses.map_err(|error| outcome::unrecorded(&error))?.iter().map(message).collect())
    }
}

/// Whoever asks may not see what others do.
fn another() -> Fault {
    let message = format!("the budgets of other callers are for those who may `{READ_EVERY_NAMESPACE}`");
    Fault::new(Code::PermissionDenied, Reason::PolicyDenied, message)
        .with("action", READ_EVERY_NAMESPACE)
        .retry(Retry::Never)
}

fn message(used: &Use) -> BudgetUse {
    let Use { budget, caller, spent, held, starts_ms, ends_ms } = used;
    let window = match budget.window {
        BudgetWindow::RollingDay => v1::BudgetWindow::RollingDay,
        BudgetWindow::CalendarMonth => v1::BudgetWindow::CalendarMonth,
        BudgetWindow::Order => v1::BudgetWindow::Order,
    };
    BudgetUse {
        budget: budget.name.clone(),
        caller: caller.clone(),
        currency: budget.currency.clone(),
        window: window.into(),
        limit: budget.amount,
        used: shown(spent - held),
        held: shown(*held),
        remaining: shown(used.left()),
        window_start: starts_ms.and_then(instant),
        window_end: ends_ms.and_then(instant),
    }
}

/// A sum as it goes over the wire, whose numbers are smaller than ours.
fn shown(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(i64::MAX)
}

/// The change does not fit into a budget; nothing was written or sent.
pub(super) fn exceeded(exceeded: &Exceeded, now_ms: UnixMillis) -> Fault {
    let Exceeded { budget, caller, asked, currency, held, frees_at_ms, .. } = exceeded;
    let left = exceeded.left();
    let what = if *currency == budget.currency {
        let of = match budget.window {
            BudgetWindow::RollingDay => "for 24 hours",
            BudgetWindow::CalendarMonth => "for this month",
            BudgetWindow::Order => "for this order",
        };
        format!("{left} of {} {currency} are left {of}", budget.amount)
    } else {
        format!("it is of `{}`, and no budget of the caller is of `{currency}`", budget.currency)
    };
    let message = format!(
        "{asked} {currency} do not fit into the budget `{}`: {what} (in the smallest unit); nothing was sent",
        budget.name
    );
    let frees_in_ms = frees_at_ms.and_then(|at| u64::try_from(at.saturating_sub(now_ms)).ok());
    let retry = frees_in_ms.map_or(Retry::Never, |ms| Retry::After(Duration::from_millis(ms)));
    let mut fault = Fault::new(Code::ResourceExhausted, Reason::BudgetExceeded, message)
        .with("budget", &budget.name)
        .with("window", budget.window.as_str())
        .with("currency", currency)
        .with("limit", budget.amount.to_string())
        .with("left", left.to_string())
        .with("held", held.to_string())
        .with("asked", asked.to_string())
        .retry(retry);
    fault.quota = Some(format!("caller:{caller}/budget:{}", budget.name));
    fault
}
