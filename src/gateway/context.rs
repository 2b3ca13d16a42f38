//! What the pipeline knows of a call besides its message.

use tokio::time::Instant;

use crate::domain::caller::Caller;

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
