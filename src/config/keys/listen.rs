//! The keys of `[listen]`: where the gateway is reached, how much it takes at once and how it ends.

use super::{Key, Shape};

pub(super) const GRPC: Key = Key {
    path: "listen.grpc",
    variable: "TOLLGATE_LISTEN_GRPC",
    shape: Shape::Address,
    default: "127.0.0.1:7400",
    since: "0.1.0",
    about: "Where callers connect. Beyond the loopback address only with TLS and callers.",
};

pub(super) const WEBHOOK: Key = Key {
    path: "listen.webhook",
    variable: "TOLLGATE_LISTEN_WEBHOOK",
    shape: Shape::Address,
    default: "127.0.0.1:7401",
    since: "0.1.0",
    about: "Where Stripe delivers webhooks: `POST /webhooks/stripe`.",
};

pub(super) const OPS: Key = Key {
    path: "listen.ops",
    variable: "TOLLGATE_LISTEN_OPS",
    shape: Shape::Address,
    default: "127.0.0.1:7402",
    since: "0.1.0",
    about: "Where operators look: `/livez`, `/readyz`, `/metrics`.",
};

pub(super) const CONNECTIONS_MAX: Key = Key {
    path: "listen.connections_max",
    variable: "TOLLGATE_LISTEN_CONNECTIONS_MAX",
    shape: Shape::Count(1, 100_000),
    default: "1000",
    since: "0.1.0",
    about: "Open connections on each port. A further one takes the place of the one that has been unused the longest, and is refused where all are in use.",
};

pub(super) const CONNECTIONS_PER_ADDRESS_MAX: Key = Key {
    path: "listen.connections_per_address_max",
    variable: "TOLLGATE_LISTEN_CONNECTIONS_PER_ADDRESS_MAX",
    shape: Shape::Count(1, 100_000),
    default: "256",
    since: "0.1.0",
    about: "Open connections on each port from one IPv4 address or IPv6 /64 network; a further one is refused. Raise it where a balancer stands in front that hides the callers' addresses.",
};

pub(super) const CALLS_IN_FLIGHT_MAX: Key = Key {
    path: "listen.calls_in_flight_max",
    variable: "TOLLGATE_LISTEN_CALLS_IN_FLIGHT_MAX",
    shape: Shape::Count(1, 100_000),
    default: "1024",
    since: "0.1.0",
    about: "Calls that may be under way at once. A further one is refused at the door with when to come back; so is one of a caller who already has four times as many under way as are free, but each caller may always have 4. While the machine is behind the gateway takes fewer, down to 256.",
};

pub(super) const LAME_DUCK_S: Key = Key {
    path: "listen.lame_duck_s",
    variable: "TOLLGATE_LISTEN_LAME_DUCK_S",
    shape: Shape::Seconds(0, 300),
    default: "5",
    since: "0.1.0",
    about: "How long a gateway that is told to stop still takes calls after it says that it is going: as long as a balancer takes to hear that.",
};

pub(super) const GRACE_S: Key = Key {
    path: "listen.grace_s",
    variable: "TOLLGATE_LISTEN_GRACE_S",
    shape: Shape::Seconds(1, 600),
    default: "85",
    since: "0.1.0",
    about: "How long calls that were accepted may take to finish after that: one attempt at Stripe and a little more. What is still open then is cut; a change that was cut may have taken effect, and the next start finds out.",
};
