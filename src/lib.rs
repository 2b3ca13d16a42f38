//! Tollgate: a gRPC gateway in front of Stripe. `ARCHITECTURE.md` has the map of the rooms and which may import which.

pub mod audit;
pub mod cli;
pub mod config;
pub mod contract;
pub mod domain;
pub mod events;
pub mod gateway;
pub mod grpc;
pub mod identity;
pub mod ledger;
pub mod ops;
pub mod policy;
pub mod proto;
pub mod sandbox;
pub mod server;
pub mod store;
pub mod stripe;
pub mod telemetry;
pub mod webhook;
