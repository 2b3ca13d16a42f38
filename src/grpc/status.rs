//! The one table from faults to gRPC statuses with their details (AIP-193), and the pushback trailer that agrees with
//! them (gRPC proposal A6).

use std::time::Duration;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code as GrpcCode, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::gateway::{Code, Fault, Retry};

/// `ErrorInfo.domain` of the gateway's own faults.
pub const OWN_DOMAIN: &str = "tollgate";
/// `ErrorInfo.domain` where Stripe's answer decided.
pub const STRIPE_DOMAIN: &str = "stripe.com";
/// The trailer that native gRPC retries obey; in milliseconds, -1 for "do not".
pub const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// A fault as a status.
#[must_use]
pub fn of(fault: &Fault) -> Status {
    let mut details = ErrorDetails::new();
    let domain = if fault.by_stripe { STRIPE_DOMAIN } else { OWN_DOMAIN };
    let mut metadata: std::collections::HashMap<String, String> =
        fault.metadata.clone().into_iter().collect();
    if let Some(id) = &fault.audit_id {
        metadata.insert("audit_id".to_owned(), id.clone());
    }
    details.set_error_info(fault.reason_name(), domain, metadata);
    for violation in &fault.violations {
        details.add_bad_request_violation(&violation.field, &violation.description);
    }
    if let Some((kind, subject)) = &fault.precondition {
        details.add_precondition_failure_violation(kind, subject, &fault.message);
    }
    if let Some(subject) = &fault.quota {
        details.add_quota_failure_violation(subject, &fault.message);
    }
    if let Some((kind, name)) = &fault.resource {
        details.set_resource_info(kind, name, "", &fault.message);
    }
    if let Some(id) = &fault.stripe_request_id {
        details.set_request_info(id, "");
    }
    if let Some(url) = &fault.help {
        details.add_help_link("Stripe's page on this error", url);
    }
    if let Retry::After(delay) = fault.retry {
        details.set_retry_info(Some(delay));
    }
    let mut status = Status::with_error_details(code(fault.code), fault.message.clone(), details);
    push_back(status.metadata_mut(), fault.retry);
    status
}

fn push_back(metadata: &mut MetadataMap, retry: Retry) {
    let value = match retry {
        Retry::Unsaid => return,
        Retry::Never => "-1".to_owned(),
        Retry::After(delay) => millis(delay).to_string(),
    };
    if let Ok(value) = MetadataValue::try_from(value) {
        metadata.insert(PUSHBACK, value);
    }
}

fn millis(delay: Duration) -> u128 {
    delay.as_millis()
}

fn code(code: Code) -> GrpcCode {
    match code {
        Code::InvalidArgument => GrpcCode::InvalidArgument,
        Code::DeadlineExceeded => GrpcCode::DeadlineExceeded,
        Code::NotFound => GrpcCode::NotFound,
        Code::AlreadyExists => GrpcCode::AlreadyExists,
        Code::PermissionDenied => GrpcCode::PermissionDenied,
        Code::ResourceExhausted => GrpcCode::ResourceExhausted,
        Code::FailedPrecondition => GrpcCode::FailedPrecondition,
        Code::Aborted => GrpcCode::Aborted,
        Code::OutOfRange => GrpcCode::OutOfRange,
        Code::Unimplemented => GrpcCode::Unimplemented,
        Code::Internal => GrpcCode::Internal,
        Code::Unavailable => GrpcCode::Unavailable,
        Code::Unauthenticated => GrpcCode::Unauthenticated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Reason;

    #[test]
    fn retry_info_and_the_pushback_trailer_agree() {
        let fault = Fault::new(Code::Unavailable, Reason::OutcomeUnknown, "unknown");
        let status = of(&fault.clone().retry(Retry::After(Duration::from_millis(1500))));
        let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
        assert_eq!(delay, Some(Duration::from_millis(1500)));
        assert_eq!(status.metadata().get(PUSHBACK).unwrap(), "1500");

        let status = of(&fault.clone().retry(Retry::Never));
        assert!(status.get_details_retry_info().is_none());
        assert_eq!(status.metadata().get(PUSHBACK).unwrap(), "-1");
        assert!(of(&fault).metadata().get(PUSHBACK).is_none());
    }

    #[test]
    fn there_is_exactly_one_error_info_with_the_reason_by_name() {
        let status = of(&Fault::invalid_field("amount", "is 0; must be at least 1"));
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_REQUEST", "tollgate"));
        assert_eq!(status.get_details_bad_request().unwrap().field_violations.len(), 1);
    }
}
