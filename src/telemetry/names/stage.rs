//! The stages of a call that take time, for metrics, spans and the log line alike.

use tracing::Span;

/// A stage of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The ledger decides, and makes durable what is intended.
    Begin,
    /// Everything between the gateway and Stripe: the queue, each attempt and the pauses between them.
    Send,
    /// The ledger makes durable what came of it.
    Settle,
}

impl Stage {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Begin, Self::Send, Self::Settle];

    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Send => "send",
            Self::Settle => "settle",
        }
    }

    /// A span for it, a child of the current one.
    #[must_use]
    pub fn span(self) -> Span {
        match self {
            Self::Begin => tracing::info_span!("ledger begin"),
            Self::Send => tracing::info_span!("send"),
            Self::Settle => tracing::info_span!("ledger settle"),
        }
    }
}
