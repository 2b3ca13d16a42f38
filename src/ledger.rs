//! The memory of every change: what was asked, what was sent, what came of it. It sends nothing itself.

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod laws;
pub mod proof;
pub mod state;
pub mod transition;
