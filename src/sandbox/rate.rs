//! The request limiter, a token bucket for the whole account. It must not read the clock.
//! Source: <https://docs.stripe.com/rate-limits>.

use std::time::Duration;

/// Tokens in billionths, so that no part of one is lost between requests, however close they come.
const TOKEN: u64 = 1_000_000_000;

/// A bucket that holds one second's worth of requests.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: Option<u32>,
    tokens: u64,
    at: Duration,
}

impl Bucket {
    pub(super) fn new(per_second: Option<u32>, now: Duration) -> Self {
        Self { per_second, tokens: u64::from(per_second.unwrap_or_default()) * TOKEN, at: now }
    }

    /// Whether one more request is let in at the given monotonic time.
    pub(super) fn admit(&mut self, now: Duration) -> bool {
        let Some(per_second) = self.per_second else { return true };
        let full = u64::from(per_second) * TOKEN;
        let passed = u64::try_from(now.saturating_sub(self.at).as_nanos()).unwrap_or(u64::MAX);
        let gained = passed.saturating_mul(u64::from(per_second));
        self.tokens = self.tokens.saturating_add(gained).min(full);
        self.at = self.at.max(now);
        let admitted = self.tokens >= TOKEN;
        if admitted {
            self.tokens -= TOKEN;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Bucket;

    #[test]
    fn a_full_bucket_lets_one_second_of_requests_in_and_refills() {
        let mut bucket = Bucket::new(Some(25), Duration::ZERO);
        assert_eq!((0..30).filter(|_| bucket.admit(Duration::ZERO)).count(), 25);
        assert!(!bucket.admit(Duration::from_millis(39)));
        assert!(bucket.admit(Duration::from_millis(80)));
        assert!((0..1000).all(|_| Bucket::new(None, Duration::ZERO).admit(Duration::ZERO)));
    }
}
