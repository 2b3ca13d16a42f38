//! The keys of `[traffic]`: how much goes to Stripe.

use super::{Key, Shape};

/// More than any account is let through.
const REQUESTS_PER_S_MAX: u32 = 1_000_000;

pub(super) const REQUESTS: Key = Key {
    path: "traffic.requests_per_s",
    variable: "TOLLGATE_TRAFFIC_REQUESTS_PER_S",
    shape: Shape::Count(1, REQUESTS_PER_S_MAX),
    default: "",
    since: "0.1.0",
    about: "Requests a second that go to each account at most; what Stripe lets through when not set: 100 in live mode and 25 in test mode. Less where others use the account too, more where Stripe has raised its limit. A fifth is kept for changes of refunds and disputes while they need it.",
};

pub(super) const ENDPOINT_REQUESTS: Key = Key {
    path: "traffic.endpoint_requests_per_s",
    variable: "TOLLGATE_TRAFFIC_ENDPOINT_REQUESTS_PER_S",
    shape: Shape::Count(1, REQUESTS_PER_S_MAX),
    default: "25",
    since: "0.1.0",
    about: "Requests a second that go to one endpoint of an account at most.",
};

pub(super) const AT_ONCE: Key = Key {
    path: "traffic.requests_at_once_max",
    variable: "TOLLGATE_TRAFFIC_REQUESTS_AT_ONCE_MAX",
    shape: Shape::Count(1, 10_000),
    default: "100",
    since: "0.1.0",
    about: "Requests to one account that are under way at once. Stripe has such a limit and names no number.",
};

pub(super) const WEIGHT: Key = Key {
    path: "callers.*.weight",
    variable: "",
    shape: Shape::Count(1, 1_000),
    default: "",
    since: "0.1.0",
    about: "The caller's part of the requests to Stripe, beside those of others, when all want more than there is; 1 when not set.",
};
