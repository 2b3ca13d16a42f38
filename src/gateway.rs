//! The pipeline: what happens to a call between the wire and Stripe, step by step, the same for every method. It knows
//! no transport of callers and no method by name.

mod accounts;
mod admin;
mod audit;
mod budget;
mod call;
mod context;
mod events;
mod fault;
mod freezes;
mod guard;
mod judge;
mod lookup;
mod money;
mod mutate;
mod operation;
mod outcome;
mod prepare;
mod read;
mod redact;
mod refusal;
mod resolve;
mod resolver;
mod settler;
mod trail;
mod upload;
mod wait;

pub use accounts::{Account, Accounts};
pub use audit::Export;
pub use call::Gateway;
pub use context::Context;
pub use events::EventStream;
pub use fault::{Code, Fault, Reason, Retry};
pub use freezes::{Error as FreezesError, Freezes};
pub use judge::Changes;
pub use redact::without_client_secrets;
pub use resolver::Resolver;
pub use settler::Settler;
pub use upload::Upload;
