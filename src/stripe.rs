//! Everything that is said to and heard from Stripe over HTTP. It knows nothing of operations, callers or storage, and
//! judges nothing: what an attempt proves is the ledger's to say.

mod account;
pub mod answer;
mod client;
pub mod error;
mod key;
mod keyring;
pub mod outgoing;
pub mod retry;
pub mod rights;
#[cfg(test)]
mod script;
pub mod signature;
mod transport;
pub mod webhook_endpoints;

pub use account::{AccountError, OwnAccount};
pub use answer::{Answer, Attempt, Sent, Trouble};
pub use client::{Client, Options};
pub use error::StripeError;
pub use key::{Key, KeyError};
pub use outgoing::{AccountHeader, Body, Outgoing, STRIPE_VERSION};
pub use transport::SetupError;
