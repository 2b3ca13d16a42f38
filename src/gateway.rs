//! The pipeline: what happens to a call between the wire and Stripe, step by step, the same for every method. It knows
//! no transport of callers and no method by name.

mod call;
mod context;
mod events;
mod fault;
mod mutate;
mod operation;
mod outcome;
mod prepare;
mod read;
mod redact;
mod refusal;
mod trail;
mod upload;

pub use call::Gateway;
pub use context::{Account, Context};
pub use fault::{Code, Fault, Reason, Retry};
pub use redact::without_client_secrets;
pub use upload::Upload;
