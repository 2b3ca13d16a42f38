//! The event feed: what a reader wants, where it stands, and what comes next. It keeps nothing itself; the log is the
//! store's.

pub mod envelope;
pub mod filter;
