//! The event feed: what a reader wants, where it stands, and what comes next. It keeps nothing itself; the log is the
//! store's.

mod bookmark;
pub mod envelope;
mod feed;
pub mod filter;
mod listing;
mod subscription;
mod terms;

pub use bookmark::Bookmark;
pub use envelope::{BadEnvelope, Envelope, snapshot};
pub use feed::{Arrival, Error, Feed, Start};
pub use filter::{BadPattern, Filter, Types};
pub use listing::{Page, Query};
pub use subscription::{Checkpoint, Item, Subscription};
pub use terms::terms;
