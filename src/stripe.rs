//! Everything that is said to and heard from Stripe over HTTP. It knows nothing of operations, callers or storage, and
//! judges nothing: what an attempt proves is the ledger's to say.

pub mod answer;
pub mod error;
pub mod outgoing;

pub use answer::{Answer, Attempt, Sent, Trouble};
pub use error::StripeError;
pub use outgoing::{AccountHeader, Body, Outgoing};
