//! The words of the product, as types: no I/O, no dependency on any other room.

pub mod clock;
