//! How a command fails: what is said on standard error and which exit code tells scripts.

use std::io::{self, Write as _};
use std::process::ExitCode;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::config::Faults;
use crate::policy;
use crate::telemetry::names::rpc_status;

/// Clap's own code for arguments that cannot be understood.
pub(super) const USAGE: u8 = 2;

const FAILED: u8 = 1;
const DATA: u8 = 65;
const NOT_FOUND: u8 = 66;
const UNAVAILABLE: u8 = 69;
const INTERNAL: u8 = 70;
const CANNOT_START: u8 = 71;
const REFUSED: u8 = 73;
const OUTPUT: u8 = 74;
const AGAIN: u8 = 75;
const TAMPERED: u8 = 76;
const NOT_PERMITTED: u8 = 77;
const CONFIG: u8 = 78;

/// For `--help`; the numbers follow sysexits(3) where it has one that fits.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  failed in some other way, or `doctor` found what does not work
   2  the arguments cannot be understood
  65  the request is wrong
  66  there is no such thing
  69  the gateway cannot be reached, or does not serve
  70  the gateway failed
  71  cannot start: an address is in use, or the data folder cannot be used
  73  refused because of the state of something
  74  the output cannot be written
  75  not now, or the outcome is unknown: send the same again, with the same order id
  76  the audit log is not what was signed
  77  not permitted
  78  the configuration is wrong";

/// Why a command ended without doing what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] Faults),
    /// Policies or tables of decisions are wrong.
    #[error(transparent)]
    Policy(#[from] policy::Faults),
    /// Something was found that should not be.
    #[error("{0}")]
    Unexpected(String),
    /// What was given to send is wrong.
    #[error("{0}")]
    Data(String),
    /// Nothing answers.
    #[error("{0}")]
    Unreachable(String),
    /// Something of this process cannot start.
    #[error("{0}")]
    Start(String),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// The audit log is not what was signed.
    #[error("{0}")]
    Tampered(String),
    /// `doctor` found something that does not work.
    #[error("{0}")]
    Unsound(String),
    /// The gateway said no.
    #[error("{}", describe(.0))]
    Status(Box<Status>),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Policy(_) => CONFIG,
            Self::Unexpected(_) => FAILED,
            Self::Data(_) => DATA,
            Self::Unreachable(_) => UNAVAILABLE,
            Self::Start(_) => CANNOT_START,
            // Whoever reads has seen enough, as with `| head`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Output(_) => OUTPUT,
            Self::Tampered(_) => TAMPERED,
            Self::Unsound(_) => FAILED,
            Self::Status(status) => of_status(status),
        }
    }
}

fn of_status(status: &Status) -> u8 {
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => DATA,
        Code::NotFound => NOT_FOUND,
        Code::AlreadyExists | Code::FailedPrecondition => REFUSED,
        Code::Unavailable if status.get_details_error_info().is_none() => UNAVAILABLE,
        Code::Unavailable | Code::Aborted | Code::ResourceExhausted | Code::DeadlineExceeded => AGAIN,
        Code::PermissionDenied | Code::Unauthenticated => NOT_PERMITTED,
        Code::Internal | Code::DataLoss | Code::Unimplemented => INTERNAL,
        Code::Ok | Code::Cancelled | Code::Unknown => FAILED,
    }
}

/// Code, reason and message on the first line, then what the details add.
fn describe(status: &Status) -> String {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| format!(" ({})", info.reason)).unwrap_or_default();
    let mut lines = vec![format!("{}{reason}: {}", rpc_status(status.code().into()), status.message())];
    for violation in details.bad_request().into_iter().flat_map(|bad| &bad.field_violations) {
        lines.push(format!("{}: {}", violation.field, violation.description));
    }
    let mut facts: Vec<_> = details.error_info().into_iter().flat_map(|info| &info.metadata).collect();
    facts.sort();
    lines.extend(facts.into_iter().map(|(name, value)| format!("{name}: {value}")));
    if let Some(info) = details.request_info() {
        lines.push(format!("stripe_request_id: {}", info.request_id));
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        lines.push(format!("retry after {} s", delay.as_secs_f64()));
    }
    lines.join("\n  ")
}

/// Says what went wrong and gives the code to end with.
pub(super) fn report(failure: &Failure) -> ExitCode {
    let code = failure.exit_code();
    if code != 0 {
        say(&format!("error: {failure}"));
    }
    ExitCode::from(code)
}

/// Writes a line for people; there is nobody to tell when even that fails.
pub(super) fn say(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_status_shows_its_reason_violations_and_facts() {
        let mut details = ErrorDetails::new();
        details.set_error_info("INVALID_REQUEST", "tollgate", [("audit_id".to_owned(), "aud_1".to_owned())]);
        details.add_bad_request_violation("amount", "is 0; must be at least 1");
        let status = Status::with_error_details(Code::InvalidArgument, "`amount` is 0", details);
        let failure = Failure::from(status);
        assert_eq!(
            failure.to_string(),
            "INVALID_ARGUMENT (INVALID_REQUEST): `amount` is 0\n  amount: is 0; must be at least 1\n  audit_id: aud_1"
        );
        assert_eq!(failure.exit_code(), DATA);
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_error() {
        assert_eq!(Failure::Output(io::ErrorKind::BrokenPipe.into()).exit_code(), 0);
        assert_eq!(Failure::Output(io::ErrorKind::StorageFull.into()).exit_code(), OUTPUT);
    }

    #[test]
    fn every_exit_code_is_in_the_help() {
        for code in
            [FAILED, USAGE, DATA, NOT_FOUND, UNAVAILABLE, INTERNAL, CANNOT_START, REFUSED, OUTPUT, AGAIN]
        {
            assert!(EXIT_CODES.contains(&format!("\n  {code:>2}  ")), "{code}");
        }
        for code in [TAMPERED, NOT_PERMITTED, CONFIG] {
            assert!(EXIT_CODES.contains(&format!("\n  {code:>2}  ")), "{code}");
        }
    }
    #[test]
    fn the_page_for_operators_has_every_exit_code() {
        let page = std::fs::read_to_string("docs/operations.md").unwrap();
        for (code, meaning) in EXIT_CODES.lines().skip(1).map(|line| line.trim().split_once("  ").unwrap()) {
            assert!(page.contains(&format!("\n| {code} | {meaning} |\n")), "{code}");
        }
    }
}
