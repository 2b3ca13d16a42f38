//! Whose fault a failed call is: one table over all reasons, so that a new reason cannot be forgotten.

use super::{OTHER, is_server_fault};
use crate::proto::v1::ErrorReason as Reason;

/// On whose side the cause of a failed call lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The caller's: another request, another right or another moment would do.
    Caller,
    /// Stripe's, or the way's to it.
    Stripe,
    /// This gateway's: its operators can do something about it.
    Gateway,
}

impl Side {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Caller, Self::Stripe, Self::Gateway];

    /// The label value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Stripe => "stripe",
            Self::Gateway => "gateway",
        }
    }

    /// The side that a reason stands for. A deadline counts as Stripe's: that is where the time of a call goes.
    #[must_use]
    pub fn of(reason: Reason) -> Self {
        match reason {
            Reason::InvalidRequest
            | Reason::UnknownField
            | Reason::MessageTooLarge
            | Reason::Unauthenticated
            | Reason::PolicyDenied
            | Reason::AccountUnknown
            | Reason::OperationReused
            | Reason::OperationInFlight
            | Reason::OperationNotFound
            | Reason::StripeInvalidParameter
            | Reason::StripeState
            | Reason::CardDeclined
            | Reason::ResourceNotFound
            | Reason::StripeConflict
            | Reason::CursorExpired
            | Reason::EventNotFound
            | Reason::FileTypeUnsupported
            | Reason::FileTooLarge
            | Reason::Unimplemented
            | Reason::NotExecuted
            | Reason::OperationNotUnresolved
            | Reason::NotTheEffect
            | Reason::GuardRefused
            | Reason::BudgetExceeded
            | Reason::AmountUnknown
            | Reason::AuditRecordNotFound
            | Reason::AuditKeyInUse
            | Reason::Frozen
            | Reason::FreezeNotFound
            | Reason::TokenUnknown
            | Reason::TokenEnded
            | Reason::CallerUnknown
            | Reason::SubscriptionNotFound
            | Reason::SubscriptionExists
            | Reason::AckStale
            | Reason::SubscriptionFull
            | Reason::ConsumerReplaced => Self::Caller,
            Reason::OutcomeUnknown
            | Reason::DeadlineExceeded
            | Reason::StripeUnreachable
            | Reason::StripeUnavailable
            | Reason::StripeRateLimited
            | Reason::StripeAnswerUndecodable => Self::Stripe,
            Reason::Unspecified
            | Reason::OperationNeedsOperator
            | Reason::StoreUnavailable
            | Reason::GatewayCredentialRejected
            | Reason::GatewayKeyLacksPermission
            | Reason::ShuttingDown
            | Reason::Overloaded
            | Reason::StripeCrowded
            | Reason::Internal
            | Reason::DataRolledBack => Self::Gateway,
        }
    }
}

/// The label values for an answer with this status, whose `ErrorInfo` names this reason; the empty one where it has none.
#[must_use]
pub fn failure(code: i32, reason: &str) -> (Side, &'static str) {
    let known = Reason::from_str_name(&format!("{PREFIX}{reason}"));
    match known {
        Some(reason) => (Side::of(reason), reason.as_str_name().trim_start_matches(PREFIX)),
        None if is_server_fault(code) => (Side::Gateway, OTHER),
        None => (Side::Caller, OTHER),
    }
}

/// What the names of reasons begin with in the contract, and not in `ErrorInfo`.
const PREFIX: &str = "ERROR_REASON_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_counted_by_the_reason_that_the_caller_reads() {
        assert_eq!(failure(8, "OVERLOADED"), (Side::Gateway, "OVERLOADED"));
        assert_eq!(failure(3, "INVALID_REQUEST"), (Side::Caller, "INVALID_REQUEST"));
    }

    #[test]
    fn what_names_no_reason_of_the_contract_makes_no_series_of_its_own() {
        assert_eq!(failure(13, "MADE_UP"), (Side::Gateway, OTHER));
        assert_eq!(failure(1, ""), (Side::Caller, OTHER));
    }
}
