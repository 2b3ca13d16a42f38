//! The caller's deadline, from the `grpc-timeout` header (gRPC over HTTP/2, "Requests").

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

/// When the caller stops waiting; absent when it did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadline(pub Option<Instant>);

/// Longest value that the protocol allows, in digits.
const DIGITS_MAX: usize = 8;

impl Deadline {
    /// Takes the deadline from a request's headers; an unreadable one counts as none.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let timeout = headers.get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?));
        Self(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(amount.saturating_mul(60))),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_the_protocol_is_read() {
        for (text, millis) in
            [("1H", 3_600_000), ("2M", 120_000), ("3S", 3000), ("4m", 4), ("5000u", 5), ("6000000n", 6)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn junk_is_no_deadline() {
        for text in ["", "S", "1", "123456789S", "-1S", "1x", "é"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
