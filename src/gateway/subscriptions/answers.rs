//! What consumers say of the events that they were given.

use std::sync::Arc;

use tracing::Instrument as _;

use super::super::admin::Errand;
use super::super::call::Gateway;
use super::super::context::Context;
use super::super::fault::Fault;
use super::super::outcome;
use super::message::{not_found, refused};
use super::{checked, named_by};
use crate::contract::{FieldPath, Sensitivity, Violations};
use crate::events::subscriptions::{AckId, Verdict};
use crate::proto::v1::reject_request::Verdict as Said;
use crate::proto::v1::{AcknowledgeRequest, AcknowledgeResponse, RejectRequest, RejectResponse};

const ACKNOWLEDGE: &str = "tollgate.v1.SubscriptionService/Acknowledge";
const REJECT: &str = "tollgate.v1.SubscriptionService/Reject";

impl Gateway {
    /// Acknowledges deliveries, durably. The record of the call follows with a later write, as that of a read does, whether
    /// its consumer waits for the answer or not.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for what is no ack id, NOT_FOUND, FAILED_PRECONDITION for a stale one, UNAVAILABLE when it cannot
    /// be made durable.
    pub async fn acknowledge(
        self: &Arc<Self>,
        context: Context,
        request: AcknowledgeRequest,
    ) -> Result<AcknowledgeResponse, Fault> {
        let gateway = Arc::clone(self);
        let work = async move { gateway.take_acknowledgement(&context, &request).await };
        tokio::spawn(work.in_current_span()).await.unwrap_or_else(|_| Err(outcome::broken()))
    }

    async fn take_acknowledgement(
        &self,
        context: &Context,
        request: &AcknowledgeRequest,
    ) -> Result<AcknowledgeResponse, Fault> {
        let mut params = named_by(&request.name);
        params.push("events", request.ack_ids.len().to_string(), Sensitivity::Public);
        let (found, alias) = self.own_subscription(context, &request.name);
        let acknowledge = async |_: &mut Errand| {
            let ids = ack_ids("ack_ids", &request.ack_ids, Violations::of(request))?;
            let named = found.ok_or_else(|| not_found(&request.name))?;
            let head = *self.feed.head().borrow();
            named
                .acknowledge(&ids, head)
                .await
                .map_err(|error| refused(&error, &request.name, &request.ack_ids))
        };
        let ((), call) = self.errand_at(context, (ACKNOWLEDGE, Some(&alias)), params, acknowledge).await?;
        Ok(AcknowledgeResponse { call: Some(call) })
    }

    /// Rejects a delivery, durably and on record.
    ///
    /// # Errors
    /// As for [`Gateway::acknowledge`].
    pub async fn reject(&self, context: &Context, request: &RejectRequest) -> Result<RejectResponse, Fault> {
        let mut params = named_by(&request.name);
        let verdict = verdict(request);
        params.push("verdict", verdict.map_or("", word), Sensitivity::Public);
        params.push("reason", request.reason.as_str(), Sensitivity::Public);
        let (found, alias) = self.own_subscription(context, &request.name);
        let reject = async |errand: &mut Errand| {
            let mut violations = Violations::of(request);
            if let Some(Said::RetryAfterS(after_s)) = &request.verdict {
                let at = FieldPath::root().field("retry_after_s");
                violations.range(&at, Some(i64::from(*after_s)), Some(0), Some(3600));
            }
            violations.required(&FieldPath::root().field("verdict"), verdict.is_some());
            let ack_id = std::slice::from_ref(&request.ack_id);
            let ids = ack_ids("ack_id", ack_id, violations)?;
            let named = found.ok_or_else(|| not_found(&request.name))?;
            let (Some(id), Some(verdict)) = (ids.first(), verdict) else { return Ok(false) };
            let (said, audit) = ((verdict, request.reason.as_str()), vec![errand.row()?]);
            let rejected = named.reject((*id, self.clock.now()), said, audit).await;
            let parked = rejected.map_err(|error| refused(&error, &request.name, ack_id))?;
            errand.kept = true;
            Ok(parked)
        };
        let (parked, call) = self.errand_at(context, (REJECT, Some(&alias)), params, reject).await?;
        Ok(RejectResponse { parked, call: Some(call) })
    }
}

fn verdict(request: &RejectRequest) -> Option<Verdict> {
    match request.verdict.as_ref()? {
        Said::RetryAfterS(after_s) => Some(Verdict::RetryAfter(i64::from(*after_s).saturating_mul(1000))),
        Said::Park(true) => Some(Verdict::Park),
        Said::Skip(true) => Some(Verdict::Skip),
        Said::Park(false) | Said::Skip(false) => None,
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::RetryAfter(_) => "retry",
        Verdict::Park => "park",
        Verdict::Skip => "skip",
    }
}

/// The names of deliveries, if nothing is wrong with them nor with the rest.
fn ack_ids(field: &'static str, texts: &[String], mut violations: Violations) -> Result<Vec<AckId>, Fault> {
    let mut ids = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match AckId::decode(text) {
            Ok(id) => ids.push(id),
            Err(error) => violations.add(&FieldPath::root().field(field).index(index), error.to_string()),
        }
    }
    checked(violations)?;
    Ok(ids)
}
