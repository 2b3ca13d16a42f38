//! The gRPC face: codec, callers, deadlines, statuses and the services. It decides nothing about money or events; it
//! hands calls to the pipeline and puts its answers on the wire.

pub mod api;
pub mod by_hand;
mod carried;
pub mod codec;
pub mod deadline;
pub mod layer;
pub mod load;
pub mod status;
mod told;

pub use api::{Api, Peer, too_slow};
pub use generated::{SERVICES, add_services};

/// What `build.rs` wrote.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
mod generated {
    use super::{Api, by_hand};
    use crate::domain::limits::{MESSAGE_BYTES_MAX, RESPONSE_BYTES_MAX};

    include!(concat!(env!("OUT_DIR"), "/services.rs"));
}
