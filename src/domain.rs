//! The words of the product, as types: no I/O, no dependency on any other room.

pub mod account;
pub mod caller;
pub mod clock;
pub mod cursor;
pub mod drain;
pub mod fingerprint;
pub mod identifier;
pub mod limits;
pub mod operation;
pub mod planted;
pub mod secret;
