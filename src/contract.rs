//! What the contract says, as Rust: the method table, form encoding, checks and decoding. It holds rules by type only;
//! which method does what stands in `proto/`.

mod decode;
pub mod field_path;
mod form;
mod method;
pub mod page;
mod sent;
pub mod unknown;
mod violations;

pub use decode::{FromStripe, Object, Reply, Undecodable};
pub use field_path::FieldPath;
pub use form::{Form, Name, Pair, Params, Sensitivity, StripeEnum, decode_form};
pub use generated::*;
pub use method::{
    Effect, Guard, Host, Local, Lookup, LookupBy, Method, Money, MoneyRead, Paging, Spec, Stages, Verb,
};
pub use sent::Sent;
pub use unknown::Received;
pub use violations::{Check, Format, TextRule, Violation, Violations};

/// What `build.rs` wrote.
#[allow(
    clippy::all,
    clippy::redundant_clone,
    clippy::too_many_lines,
    clippy::wildcard_imports,
    clippy::allow_attributes_without_reason,
    unused_qualifications,
    reason = "generated code"
)]
mod generated {
    use serde_json::Value;

    use super::method::fill;
    use super::*;

    include!(concat!(env!("OUT_DIR"), "/contract.rs"));
}

/// The annotated RPC that is called `service`/`rpc`, if there is one.
#[must_use]
pub fn find(service: &str, rpc: &str) -> Option<&'static Spec> {
    METHODS.iter().copied().find(|spec| spec.service == service && spec.rpc == rpc)
}

/// The annotated RPC with this permanent name in the ledger, if there is one.
#[must_use]
pub fn by_ledger_name(name: &str) -> Option<&'static Spec> {
    METHODS.iter().copied().find(|spec| spec.mutates() && spec.ledger_name == name)
}
