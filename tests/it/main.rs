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
mod commands;
mod conformance;
mod crash;
mod disk;
mod doctor;
mod edge;
mod events;
mod files;
mod freeze;
mod golden;
mod guards;
mod identity;
mod jwt;
mod layers;
mod log;
mod neighbours;
mod policy;
mod power;
mod prove;
mod readme;
mod refunds;
mod reload;
mod resolve;
mod restore;
mod rig;
mod stream;
mod tls;
mod trace;
mod trouble;
mod wait;
mod webhook;
mod wire;
mod wrong_callers;
