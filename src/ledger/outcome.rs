//! What an operation can come to, in the form in which it is stored and told. It decides nothing.

use serde::{Deserialize, Serialize};

use crate::stripe::StripeError;

/// A proven outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// The change took effect, for good.
    Succeeded(Success),
    /// Nothing happened: Stripe says so.
    Refused(Refusal),
    /// Nothing happened: somebody else than Stripe's answer says so.
    NotExecuted(Witness),
}

/// Who found out that nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Witness {
    /// A look at Stripe, when the change could not take effect any more.
    Look,
    /// A person.
    Operator,
}

/// A change that took effect.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// The object as Stripe gave it; `None` once it is no longer kept, or was never seen in the form of the pinned
    /// version. Then it is to be read anew.
    #[serde(default)]
    pub json: Option<String>,
    /// `Request-Id` of the attempt that brought it.
    pub request_id: Option<String>,
    /// Id of the object; `None` for the few that have none.
    pub object_id: Option<String>,
    /// The event that changed the object afterwards, if one did: `json` is the object as that event has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turned_by: Option<String>,
    /// When Stripe made that event, in seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turned_s: Option<i64>,
}

/// Stripe's answer to a change that it refused.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The error as it came; once answers are no longer kept, its type and codes alone.
    pub body: String,
    /// `Request-Id` of the attempt that brought it.
    pub request_id: Option<String>,
}

/// Why an unknown outcome is not found out by sending again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stuck {
    /// Stripe may have forgotten the key, and would carry the change out again.
    Expired,
    /// Stripe knows the key with other bytes.
    KeyConflict,
    /// It carries no key and names what it removes by its place alone: sent again, it could remove what came after.
    Keyless,
    /// The wall clock was set back, so that nobody can tell whether Stripe may have forgotten the key.
    ClockSetBack,
    /// A later change of the same object was sent, which a resend would undo.
    Superseded,
    /// It was looked for and not found, and may still come.
    Absent,
    /// It was looked for, and what was found decides nothing.
    Undecided,
    /// It could not be looked for during the time that the ledger waits.
    Overdue,
}

/// What a person has to decide about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Why.
    pub why: Stuck,
    /// The same in the words of whoever looked; empty when there is nothing to add.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// What the last look found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<Found>,
}

/// An object at Stripe that may or may not be what an operation made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its id.
    pub object_id: String,
    /// What speaks for and against it, as a JSON object.
    pub summary: String,
}

impl Stuck {
    /// One word for audit records and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::KeyConflict => "key_conflict",
            Self::Keyless => "keyless",
            Self::ClockSetBack => "clock_set_back",
            Self::Superseded => "superseded",
            Self::Absent => "absent",
            Self::Undecided => "undecided",
            Self::Overdue => "overdue",
        }
    }
}

impl From<Stuck> for Case {
    fn from(why: Stuck) -> Self {
        Self { why, note: String::new(), found: Vec::new() }
    }
}

impl Refusal {
    /// The error that the body carries.
    #[must_use]
    pub fn error(&self) -> StripeError {
        StripeError::parse(self.body.as_bytes()).unwrap_or_default()
    }
}

/// Answers hold personal data, so `Debug` leaves them out.
impl std::fmt::Debug for Success {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { json, request_id, object_id, turned_by, .. } = self;
        let bytes = json.as_ref().map(String::len);
        write!(out, "Success({bytes:?} bytes, {request_id:?}, {object_id:?}, {turned_by:?})")
    }
}

impl std::fmt::Debug for Refusal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, body, request_id } = self;
        write!(out, "Refusal({status}, {} bytes, {request_id:?})", body.len())
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Found({}, {} bytes)", self.object_id, self.summary.len())
    }
}
