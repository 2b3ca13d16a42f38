//! Everything that is said to and heard from Stripe over HTTP. It knows nothing of operations, callers or storage, and
//! judges nothing: what an attempt proves is the ledger's to say.

mod account;
pub mod answer;
mod breaker;
mod client;
pub mod error;
pub mod events;
mod health;
mod key;
mod keyring;
pub mod outgoing;
pub mod retry;
mod retry_budget;
pub mod rights;
#[cfg(test)]
mod script;
pub mod signature;
pub mod traffic;
mod transport;
pub mod webhook_endpoints;

pub use account::{AccountError, OwnAccount};
pub use answer::{Answer, Attempt, Sent, Trouble};
pub use client::{Client, Options};
pub use error::StripeError;
pub use key::{Key, KeyError};
pub use outgoing::{AccountHeader, Body, Outgoing, STRIPE_VERSION};
pub use traffic::Sender;
pub use transport::SetupError;
