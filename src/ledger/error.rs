//! What can go wrong in the ledger, and what each failure says about the change.

use super::state::Unreadable;
use crate::{audit, store};

/// Why a call got no answer from the ledger.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operation's entry could not be read. Nothing was sent.
    #[error("the memory of this operation cannot be read, so nothing was sent")]
    Unread(#[source] store::Error),
    /// The operation's entry makes no sense to this build. Nothing was sent.
    #[error("the memory of this operation cannot be understood, so nothing was sent")]
    Unreadable(#[from] Unreadable),
    /// The intent is not on record, for certain. Nothing was sent.
    #[error("the change could not be put on record, so nothing was sent")]
    NotRecorded(#[source] store::Error),
    /// The intent may or may not be on record. Nothing was sent; the next call of the operation reads again.
    #[error("it is uncertain whether the change is on record, so nothing was sent")]
    Uncertain,
    /// Too many calls wait for this operation already. This one changed nothing.
    #[error("too many calls wait for this operation")]
    Crowded,
    /// The audit record could not be made. Nothing was sent.
    #[error("the audit record could not be made, so nothing was sent")]
    Audit(#[from] audit::Error),
    /// The change was sent and what came of it is not on record, so it counts as unknown.
    #[error("what came of the change could not be put on record; the same operation is safe to resend")]
    Unsettled(#[source] Box<Error>),
}

impl Error {
    /// Whether the change may have taken effect. Every other failure came before anything was sent.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Unsettled(_))
    }
}
