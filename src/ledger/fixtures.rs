//! Values that the ledger's tests share.

use super::lease::Seat;
use super::outcome::{Found, Refusal, Success};
use super::state::{Record, State};
use super::transition::Fresh;
use super::turn::Turn;
use crate::contract::{Host, Verb};
use crate::domain::clock::{BootTime, Moment, UnixMillis};
use crate::domain::fingerprint::{Fingerprint, HashKey};
use crate::domain::operation::{Mode, Operation};
use crate::stripe::outgoing::STRIPE_VERSION;
use crate::stripe::{AccountHeader, Body, Outgoing};

/// When the tests begin.
pub(super) const NOW: UnixMillis = 1_800_000_000_000;

/// The process that the tests are in.
pub(super) const SEAT: Seat = Seat { owner: 1, alone: true };

pub(super) fn operation() -> Operation {
    Operation {
        namespace: "shop".to_owned(),
        account: "acct_1".to_owned(),
        mode: Mode::Test,
        rpc: "refunds.create".to_owned(),
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
    Record::new(operation(), generation, fingerprint("5"), (NOW, at(0)), state)
}

/// This many milliseconds after the beginning, by both clocks.
pub(super) fn at(ms: i64) -> Moment {
    let boot = BootTime { boot_id: 1, ms: ms.saturating_add(1_000_000_000) };
    Moment { wall_ms: NOW.saturating_add(ms), boot }
}

pub(super) fn unknown(conflict: bool) -> State {
    State::Unknown { outgoing: outgoing("a=1"), conflict }
}

pub(super) fn fresh(amount: &str, form: &str) -> Fresh {
    Fresh {
        operation: operation(),
        fingerprint: fingerprint(amount),
        outgoing: outgoing(form),
        audit_before: 3,
    }
}

pub(super) fn found() -> Found {
    Found { object_id: "re_2".to_owned(), summary: r#"{"amount":5}"#.to_owned() }
}

pub(super) fn success() -> Success {
    Success {
        json: Some(r#"{"id":"re_1","object":"refund"}"#.to_owned()),
        request_id: Some("req_1".to_owned()),
        object_id: Some("re_1".to_owned()),
        turned_by: None,
        turned_s: None,
    }
}

/// The refund of [`success`] as an event tells of it.
pub(super) fn turn(event_id: &str, created_s: i64, status: &str) -> Turn {
    Turn {
        event_id: event_id.to_owned(),
        kind: "refund.updated".to_owned(),
        created_s,
        object: format!(r#"{{"id":"re_1","object":"refund","status":"{status}"}}"#),
        api_version: STRIPE_VERSION.to_owned(),
    }
}

pub(super) fn refusal() -> Refusal {
    Refusal {
        status: 402,
        body: r#"{"error":{"type":"card_error","code":"card_declined"}}"#.to_owned(),
        request_id: Some("req_1".to_owned()),
    }
}
