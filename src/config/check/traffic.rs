//! Reads how much may go to Stripe.

use super::Reader;
use crate::config::Traffic;

impl Reader<'_> {
    pub(super) fn traffic(&mut self) -> Option<Traffic> {
        let requests_per_s = self.optional_number("traffic.requests_per_s");
        let endpoint_requests_per_s = self.number("traffic.endpoint_requests_per_s");
        let requests_at_once_max = self.number("traffic.requests_at_once_max");
        Some(Traffic {
            requests_per_s: requests_per_s?,
            endpoint_requests_per_s: endpoint_requests_per_s?,
            requests_at_once_max: requests_at_once_max?,
        })
    }
}
