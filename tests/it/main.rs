//! The integration tests: gateway and sandbox in one process.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test fails by panicking and may print"
)]

mod abuse;
mod accounts;
mod audit;
mod budgets;
mod canary;
mod cause;
mod commands;
mod conformance;
mod consumers;
mod crash;
mod disk;
mod doctor;
mod drain;
mod edge;
mod events;
mod fanout;
mod files;
mod follow_up;
mod freeze;
mod golden;
mod guards;
mod identity;
mod jwt;
mod layers;
mod log;
mod metrics;
mod neighbours;
mod organisation;
mod outage;
mod overload;
mod policy;
mod power;
mod prove;
mod readme;
mod refunds;
mod reload;
mod resolve;
mod restore;
mod retention;
mod rig;
mod signs;
mod start;
mod stream;
mod subscriptions;
mod supervision;
mod sweep;
mod sweep_limits;
mod tls;
mod trace;
mod traffic;
mod trouble;
mod wait;
mod webhook;
mod wire;
mod wrong_callers;
