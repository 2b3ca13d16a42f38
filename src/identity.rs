//! Who is calling: client certificates, API tokens and JWTs, each turned into the one [`Caller`](crate::domain::caller).
//! What the caller may do is not its business, and neither is how tokens are stored.

pub mod certificate;
mod jwks;
mod jwt;
mod registry;
mod settings;
mod stranger;
pub mod token;

pub use registry::{Presented, Registry};
pub use settings::{Error, Settings};
pub use stranger::Stranger;
pub use token::TokenRecord;
