//! The changes of the load: what is asked for, how it goes out, and what an answer means to a careful caller.

use std::time::Duration;

use tollgate::proto::v1::customer_service_client::CustomerServiceClient;
use tollgate::proto::v1::dispute_service_client::DisputeServiceClient;
use tollgate::proto::v1::payment_method_service_client::PaymentMethodServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::{
    AttachPaymentMethodRequest, CreateCustomerRequest, CreateRefundRequest, DisputeEvidenceParams,
    OperationRef, StageDisputeEvidenceRequest, UpdateCustomerRequest,
};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::random::Random;
use crate::rig::Wire;

/// More than any seeded payment has, so that Stripe refuses it.
const TOO_MUCH: i64 = 5_000_000;

/// What the sandbox has before the load begins.
pub(crate) struct Stock {
    pub(crate) payments: Vec<String>,
    pub(crate) customers: Vec<String>,
    pub(crate) disputes: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Refund { payment: String, amount: i64 },
    CreateCustomer { name: String },
    UpdateCustomer { customer: String, description: String },
    Attach { customer: String },
    Stage { dispute: String, text: String },
}

/// A change under its reference.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) order: String,
    pub(crate) id: String,
    pub(crate) change: Change,
}

/// How a call goes out.
#[derive(Clone, Copy)]
pub(crate) struct Sending<'a> {
    /// How long its caller waits.
    pub(crate) wait: Duration,
    /// The trace that it is part of, 32 hexadecimal digits; empty for none.
    pub(crate) trace: &'a str,
}

/// What a caller learns of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It took effect.
    Done { object: String, amount: Option<i64> },
    /// Stripe refused it.
    Refused,
    /// The reference names another change.
    Reused,
    /// Not known; the same is to be sent again.
    Later { reason: String, unknown: bool },
    /// Nothing that a gateway in order says.
    Wrong(String),
}

impl Change {
    pub(crate) fn by_chance(random: &mut Random, stock: &Stock, number: usize) -> Self {
        match random.below(20) {
            0 => Self::Refund { payment: random.pick(&stock.payments).clone(), amount: TOO_MUCH },
            1..=10 => {
                let amount = 1 + i64::try_from(random.below(3)).unwrap();
                Self::Refund { payment: random.pick(&stock.payments).clone(), amount }
            }
            11..=13 => Self::CreateCustomer { name: format!("Customer {number}") },
            14..=15 => Self::UpdateCustomer {
                customer: random.pick(&stock.customers).clone(),
                description: format!("Order {number}"),
            },
            16..=17 => Self::Attach { customer: random.pick(&stock.customers).clone() },
            _ => Self::Stage {
                dispute: random.pick(&stock.disputes).clone(),
                text: format!("Delivered with parcel {number}"),
            },
        }
    }

    /// The same change with another parameter.
    pub(crate) fn altered(&self, stock: &Stock) -> Self {
        match self.clone() {
            Self::Refund { payment, amount } => Self::Refund { payment, amount: amount + 1 },
            Self::CreateCustomer { name } => Self::CreateCustomer { name: format!("{name} junior") },
            Self::UpdateCustomer { customer, description } => {
                Self::UpdateCustomer { customer, description: format!("{description}, again") }
            }
            Self::Attach { customer } => {
                let other = stock.customers.iter().find(|other| **other != customer).unwrap();
                Self::Attach { customer: other.clone() }
            }
            Self::Stage { dispute, text } => Self::Stage { dispute, text: format!("{text}, signed for") },
        }
    }

    /// The object whose fields it sets: of two such changes the later stands, so that the earlier is not sent again.
    pub(crate) fn sets(&self) -> Option<&str> {
        match self {
            Self::UpdateCustomer { customer, .. } => Some(customer),
            Self::Stage { dispute, .. } => Some(dispute),
            Self::Attach { .. } | Self::Refund { .. } | Self::CreateCustomer { .. } => None,
        }
    }

    /// The RPC as `GetOperation` wants it.
    pub(crate) fn rpc(&self) -> &'static str {
        match self {
            Self::Refund { .. } => "RefundService/CreateRefund",
            Self::CreateCustomer { .. } => "CustomerService/CreateCustomer",
            Self::UpdateCustomer { .. } => "CustomerService/UpdateCustomer",
            Self::Attach { .. } => "PaymentMethodService/AttachPaymentMethod",
            Self::Stage { .. } => "DisputeService/StageDisputeEvidence",
        }
    }
}

impl Operation {
    pub(crate) fn reference(&self) -> Option<OperationRef> {
        Some(OperationRef {
            order_id: self.order.clone(),
            operation_id: self.id.clone(),
            retry_refused: false,
        })
    }

    /// Sends it once.
    pub(crate) async fn send(&self, wire: Wire, wait: Duration) -> Answer {
        match Box::pin(self.exchange(wire, Sending { wait, trace: "" })).await {
            Ok((object, _)) if object.is_empty() => Answer::Wrong("a success without an object".to_owned()),
            Ok((object, amount)) => Answer::Done { object, amount },
            Err(status) => meaning(&status),
        }
    }

    /// The same, with the object and its amount, or the status as it came.
    pub(crate) async fn exchange(
        &self,
        wire: Wire,
        sending: Sending<'_>,
    ) -> Result<(String, Option<i64>), Status> {
        let operation = self.reference();
        match self.change.clone() {
            Change::Refund { payment, amount } => {
                let request = CreateRefundRequest {
                    operation,
                    payment_intent: Some(payment),
                    amount: Some(amount),
                    ..Default::default()
                };
                let answer = RefundServiceClient::new(wire).create_refund(sending.request(request)).await?;
                let refund = answer.into_inner().refund.unwrap_or_default();
                Ok((refund.id, Some(refund.amount)))
            }
            Change::CreateCustomer { name } => {
                let request = CreateCustomerRequest { operation, name: Some(name), ..Default::default() };
                let answer =
                    CustomerServiceClient::new(wire).create_customer(sending.request(request)).await?;
                Ok((answer.into_inner().customer.unwrap_or_default().id, None))
            }
            Change::UpdateCustomer { customer, description } => {
                let request = UpdateCustomerRequest {
                    operation,
                    id: customer,
                    description: Some(description),
                    ..Default::default()
                };
                let answer =
                    CustomerServiceClient::new(wire).update_customer(sending.request(request)).await?;
                Ok((answer.into_inner().customer.unwrap_or_default().id, None))
            }
            Change::Attach { customer } => {
                let request = AttachPaymentMethodRequest {
                    operation,
                    id: "pm_card_visa".to_owned(),
                    customer: Some(customer),
                    ..Default::default()
                };
                let answer = PaymentMethodServiceClient::new(wire)
                    .attach_payment_method(sending.request(request))
                    .await?;
                Ok((answer.into_inner().payment_method.unwrap_or_default().id, None))
            }
            Change::Stage { dispute, text } => {
                let evidence = DisputeEvidenceParams { uncategorized_text: Some(text), ..Default::default() };
                let request = StageDisputeEvidenceRequest {
                    operation,
                    id: dispute,
                    evidence: Some(evidence),
                    ..Default::default()
                };
                let mut client = DisputeServiceClient::new(wire);
                let answer = Box::pin(client.stage_dispute_evidence(sending.request(request))).await?;
                Ok((answer.into_inner().dispute.unwrap_or_default().id, None))
            }
        }
    }
}

impl Sending<'_> {
    pub(crate) fn request<T>(self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.wait);
        if !self.trace.is_empty() {
            let parent = format!("00-{}-00f067aa0ba902b7-01", self.trace);
            request.metadata_mut().insert("traceparent", parent.parse().unwrap());
        }
        request
    }
}

/// What a careful caller makes of a status: whatever the gateway itself did not decide is to be sent again.
pub(crate) fn meaning(status: &Status) -> Answer {
    let told = format!("{:?}: {}", status.code(), status.message());
    let Some(info) = status.get_details_error_info() else {
        return Answer::Later { reason: "transport".to_owned(), unknown: false };
    };
    match (status.code(), info.reason.as_str()) {
        (Code::AlreadyExists, "OPERATION_REUSED") => Answer::Reused,
        (_, "STRIPE_STATE" | "STRIPE_INVALID_PARAMETER" | "CARD_DECLINED") => Answer::Refused,
        (_, "GATEWAY_CREDENTIAL_REJECTED") => Answer::Later { reason: info.reason, unknown: false },
        (_, "OPERATION_NEEDS_OPERATOR") => Answer::Later { reason: info.reason, unknown: true },
        (
            Code::Unavailable
            | Code::Aborted
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Cancelled,
            reason,
        ) => Answer::Later { reason: reason.to_owned(), unknown: reason == "OUTCOME_UNKNOWN" },
        (_, reason) => Answer::Wrong(format!("{reason}: {told}")),
    }
}
