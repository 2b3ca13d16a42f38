//! Named subscriptions: what each has still to deliver, kept so that nothing is skipped and nothing that was acknowledged
//! comes again, whatever dies in between. Who may do what is not decided here.

mod ack;
mod consumer;
mod named;
mod progress;
mod registry;
mod terms;

pub use ack::{AckId, BadAckId};
pub use consumer::{Consumer, Error as ConsumerError, Supply};
pub use named::{Named, Refused, Standing, Unkept, known};
pub use progress::{Delivering, Known, Lost, Parked, Progress, Saved, Stale, Taken, Taker, Verdict};
pub use registry::{Error, Lag, Subscriptions};
pub use terms::Terms;
