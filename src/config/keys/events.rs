//! The keys of `[events]`: how events come in, how long they stay and what is kept in memory.

use super::{Key, Shape};

pub(super) const MODE: Key = Key {
    path: "events.mode",
    variable: "TOLLGATE_EVENTS_MODE",
    shape: Shape::Choice(&["webhook", "poll"]),
    default: "webhook",
    since: "0.1.0",
    about: "How events come in: Stripe delivers them to the webhook endpoint, or the gateway reads Stripe's own list and needs no address that can be reached from outside.",
};

pub(super) const RETENTION_DAYS: Key = Key {
    path: "events.retention_days",
    variable: "TOLLGATE_EVENTS_RETENTION_DAYS",
    shape: Shape::Days(1, 3_650),
    default: "90",
    since: "0.1.0",
    about: "How long events stay in the log. Longer while a named subscription, or the gateway itself, has still to read them.",
};

pub(super) const RETENTION_BYTES: Key = Key {
    path: "events.retention_bytes",
    variable: "TOLLGATE_EVENTS_RETENTION_BYTES",
    shape: Shape::Bytes(1 << 20, 1 << 50),
    default: "10GiB",
    since: "0.1.0",
    about: "Size at which the log loses its oldest events before their time; that which is still to be read stays until the log is twice as large.",
};

pub(super) const RETENTION_HARD_DAYS: Key = Key {
    path: "events.retention_hard_days",
    variable: "TOLLGATE_EVENTS_RETENTION_HARD_DAYS",
    shape: Shape::Days(1, 3_650),
    default: "180",
    since: "0.1.0",
    about: "Age at which events leave the log although a named subscription has not acknowledged them; it is told what it lost. At least `retention_days`.",
};

pub(super) const SWEEP_EVERY: Key = Key {
    path: "events.sweep_every_s",
    variable: "TOLLGATE_EVENTS_SWEEP_EVERY_S",
    shape: Shape::Seconds(1, 86_400),
    default: "300",
    since: "0.1.0",
    about: "Time between two readings of Stripe's own list of events, which find what was not delivered.",
};

pub(super) const SWEEP_OVERLAP: Key = Key {
    path: "events.sweep_overlap_s",
    variable: "TOLLGATE_EVENTS_SWEEP_OVERLAP_S",
    shape: Shape::Seconds(0, 86_400),
    default: "600",
    since: "0.1.0",
    about: "How much of the time that was read before is read again, since Stripe's list may show an event late. At least 60 where the list is the only way in.",
};

pub(super) const SWEEP_TYPES: Key = Key {
    path: "events.sweep_types",
    variable: "TOLLGATE_EVENTS_SWEEP_TYPES",
    shape: Shape::Texts,
    default: "",
    since: "0.1.0",
    about: "Types of events to ask Stripe for; all when not set.",
};

pub(super) const SWEEP_READS: Key = Key {
    path: "events.sweep_reads_per_day",
    variable: "TOLLGATE_EVENTS_SWEEP_READS_PER_DAY",
    shape: Shape::Count(0, 1_000_000),
    default: "5000",
    since: "0.1.0",
    about: "Most requests to Stripe that such readings make in a day, over all accounts: Stripe allots reads. 0 for none, or at least 20 for every 20 types.",
};

pub(super) const THIN: Key = Key {
    path: "events.thin",
    variable: "TOLLGATE_EVENTS_THIN",
    shape: Shape::Choice(&["as_delivered", "fetch"]),
    default: "as_delivered",
    since: "0.1.0",
    about: "What is kept of a thin event, which names its object alone: what was delivered, or also what Stripe answers when asked for it.",
};

pub(super) const MEMORY: Key = Key {
    path: "events.memory_bytes",
    variable: "TOLLGATE_EVENTS_MEMORY_BYTES",
    shape: Shape::Bytes(1 << 16, 1 << 34),
    default: "64MiB",
    since: "0.1.0",
    about: "Recent events that all streams share in memory; older ones are read from the disk.",
};
