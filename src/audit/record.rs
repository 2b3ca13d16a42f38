//! One audit record, with its fields in the order in which they are stored. It holds nothing that is secret.

use serde::{Deserialize, Serialize};

use crate::domain::caller::Caller;
use crate::domain::clock::UnixMillis;
use crate::domain::operation::{Mode, Operation};

/// Version of the stored form.
const VERSION: u8 = 1;

/// What happened, or is about to. Members that do not apply are left out of the stored form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u8,
    /// Its name, `aud_...`.
    pub id: String,
    /// When it was made.
    pub at_ms: UnixMillis,
    /// Which moment of a call it is about.
    pub phase: Phase,
    /// Who called, by its name in the configuration; empty when that is not known.
    pub caller: String,
    /// The caller's namespace.
    pub namespace: String,
    /// The credential that proved who called, such as `token tok_...`; nothing where none was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// For whom the caller says it acts; taken down and never trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Address the call came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The full gRPC method.
    pub rpc: String,
    /// The Stripe account, `acct_...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Test or live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The caller's order id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<String>,
    /// The caller's operation id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
    /// The operation's hash, which the object at Stripe carries as its stamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Which try of the operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// The idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The path at Stripe of a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
    /// The rule that permitted or denied the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Stripe's names of the requests that were answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stripe_request_ids: Vec<String>,
    /// HTTP requests to Stripe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// What came of each of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tries: Vec<Try>,
    /// Id of the object that was made or changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_id: Option<String>,
    /// The object's amount, in the smallest unit of its currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_minor: Option<i64>,
    /// The object's currency, three lower-case letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// How long the call had taken by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// The trace it belongs to (W3C, 32 hexadecimal digits).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The event that brought it about, `evt_...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// What an operator gave as the reason, or what else has to be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How many calls the record stands for, where it is a sum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// One HTTP request to Stripe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Try {
    /// Stripe's name of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Why there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Which moment of a call a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A change is about to be sent to Stripe.
    Intent,
    /// A change was sent, and this came of it.
    Outcome,
    /// A change was answered without sending anything: from memory, or because its reference stands for another.
    Answered,
    /// No rule permitted the call, or one forbade it.
    Denied,
    /// The call was faulty.
    Refused,
    /// Something was read.
    Read,
    /// The gateway itself was changed or operated.
    Admin,
}

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Param {
    /// Its name on the wire.
    pub name: String,
    /// What may be known of its value.
    #[serde(flatten)]
    pub shown: Shown,
}

/// What a record shows of a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// The value.
    Value(String),
    /// A keyed hash of name and value, with the key's version.
    Hash(String),
    /// Nothing.
    Withheld,
}

/// What came of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// One lower-case word, such as `succeeded` or `unknown`.
    pub result: String,
    /// HTTP status of Stripe's last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Stripe's error code, or its type where it gave no code; or the gateway's own reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Record {
    pub(super) fn new(id: String, at_ms: UnixMillis, phase: Phase, caller: &Caller, rpc: String) -> Self {
        Self {
            version: VERSION,
            id,
            at_ms,
            phase,
            caller: caller.name.clone(),
            namespace: caller.namespace.clone(),
            identity: caller.credential.describe(),
            actor: None,
            peer: None,
            rpc,
            account: None,
            mode: None,
            order_id: None,
            operation_id: None,
            operation: None,
            generation: None,
            idempotency_key: None,
            path: None,
            params: Vec::new(),
            decision: None,
            outcome: None,
            stripe_request_ids: Vec::new(),
            attempts: None,
            tries: Vec::new(),
            object_id: None,
            amount_minor: None,
            currency: None,
            latency_ms: None,
            trace_id: None,
            event_id: None,
            note: None,
            count: None,
        }
    }

    /// Names the operation that the record is about.
    pub fn concern(&mut self, operation: &Operation) {
        self.account = Some(operation.account.clone());
        self.mode = Some(operation.mode);
        self.order_id = Some(operation.order_id.clone());
        self.operation_id = Some(operation.operation_id.clone());
        self.operation = Some(operation.hash().to_string());
    }

    /// Says in one word what came of it.
    pub fn conclude(&mut self, result: &str) {
        self.outcome.get_or_insert_default().result = result.to_owned();
    }
}
