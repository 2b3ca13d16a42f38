//! What the pipeline knows of a call besides its message, and of the Stripe account behind it.

use tokio::time::Instant;

use crate::domain::caller::Caller;
use crate::domain::operation::Mode;
use crate::stripe::AccountHeader;

/// Who calls, from where, and until when the caller waits.
#[derive(Clone, Debug)]
pub struct Context {
    /// The identified caller.
    pub caller: Caller,
    /// For whom the caller says it acts; empty when it says nothing. Never trusted.
    pub actor: String,
    /// Address the call came from.
    pub peer: String,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The trace that the call belongs to; empty when nobody traces.
    pub trace_id: String,
}

/// The Stripe account that calls go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Name in requests; the empty alias always means the default account.
    pub alias: String,
    /// The account's id, `acct_...`.
    pub id: String,
    /// Test or live.
    pub mode: Mode,
    /// Which header, if any, names it to Stripe.
    pub header: AccountHeader,
}
