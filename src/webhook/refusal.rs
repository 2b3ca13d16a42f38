//! Why a delivery is not taken, and what its sender is told: enough for an operator who reads it in Stripe's dashboard,
//! nothing for anybody else.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::events::BadEnvelope;
use crate::stripe::signature::SignatureError;
use crate::telemetry::names::Webhook;

/// Why a delivery is refused. Stripe tries again after any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// As many deliveries as may be are under way.
    #[error("too many deliveries at once; try again")]
    Busy,
    /// The body has too many bytes.
    #[error("the body is too large")]
    TooLarge,
    /// The body took too long to come.
    #[error("the body took too long to arrive")]
    TooSlow,
    /// The body broke off.
    #[error("the body broke off")]
    Broken,
    /// Nobody whom we trust signed it, or not now.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Signed, but not UTF-8.
    #[error("the body is not UTF-8")]
    NotText,
    /// Signed, but not an event.
    #[error(transparent)]
    Envelope(#[from] BadEnvelope),
    /// The log did not take it.
    #[error("the event could not be stored; deliver it again")]
    NotStored,
}

impl Refusal {
    /// What it counts as.
    pub(super) fn counted(self) -> Webhook {
        match self {
            Self::Busy => Webhook::Busy,
            Self::TooLarge => Webhook::TooLarge,
            Self::TooSlow | Self::Broken => Webhook::Incomplete,
            Self::Signature(SignatureError::TooOld) => Webhook::Stale,
            Self::Signature(SignatureError::TooNew) => Webhook::Future,
            Self::Signature(_) => Webhook::BadSignature,
            Self::NotText | Self::Envelope(_) => Webhook::NotJson,
            Self::NotStored => Webhook::StoreError,
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Busy | Self::NotStored => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken | Self::Signature(_) | Self::NotText | Self::Envelope(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status(), format!("{self}\n")).into_response()
    }
}
