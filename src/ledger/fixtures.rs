//! Values that the ledger's tests share.

use super::state::{Record, Refusal, State, Success};
use crate::contract::{Host, Verb};
use crate::domain::clock::UnixMillis;
use crate::domain::fingerprint::{Fingerprint, HashKey};
use crate::domain::operation::{Mode, Operation};
use crate::stripe::outgoing::STRIPE_VERSION;
use crate::stripe::{AccountHeader, Body, Outgoing};

/// When the tests begin.
pub(super) const NOW: UnixMillis = 1_800_000_000_000;

pub(super) fn operation() -> Operation {
    Operation {
        namespace: "shop".to_owned(),
        account: "acct_1".to_owned(),
        mode: Mode::Test,
        rpc: "RefundService.CreateRefund".to_owned(),
        order_id: "1001".to_owned(),
        operation_id: String::new(),
    }
}

pub(super) fn outgoing(form: &str) -> Outgoing {
    Outgoing {
        verb: Verb::Post,
        host: Host::Api,
        template: "/v1/refunds".to_owned(),
        path: "/v1/refunds".to_owned(),
        query: String::new(),
        body: Body::Form(form.to_owned()),
        idempotency_key: None,
        version: STRIPE_VERSION.to_owned(),
        account: AccountHeader::None,
    }
}

pub(super) fn fingerprint(amount: &str) -> Fingerprint {
    Fingerprint::of(&HashKey::new([1; 32]), "/v1/refunds", "/v1/refunds", [("amount", amount)])
}

pub(super) fn record(generation: u32, state: State) -> Record {
    Record::new(operation(), generation, fingerprint("5"), (NOW, NOW), state)
}

pub(super) fn success() -> Success {
    Success {
        json: r#"{"id":"re_1","object":"refund"}"#.to_owned(),
        request_id: Some("req_1".to_owned()),
        object_id: Some("re_1".to_owned()),
    }
}

pub(super) fn refusal() -> Refusal {
    Refusal {
        status: 402,
        body: r#"{"error":{"type":"card_error","code":"card_declined"}}"#.to_owned(),
        request_id: Some("req_1".to_owned()),
    }
}
