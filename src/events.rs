//! The event feed: what a reader wants, where it stands, and what comes next. It keeps nothing itself; the log is the
//! store's.

mod bookmark;
mod cause;
pub mod envelope;
mod feed;
pub mod filter;
mod head;
mod listing;
mod log_event;
mod notes;
mod recent;
mod retention;
mod subscription;
pub mod subscriptions;
mod terms;

pub use bookmark::Bookmark;
pub use cause::{Call, Cause, Share, Viewer};
pub use envelope::{BadEnvelope, Envelope, snapshot};
pub use feed::{Arrival, Error, Feed, Start};
pub use filter::{BadPattern, Filter, Types};
pub use listing::{Page, Query};
pub use log_event::{LogEvent, View};
pub use retention::{Departure, Hold, Limits, Loss, Read};
pub use subscription::{Checkpoint, Item, Subscription};
pub use terms::terms;
