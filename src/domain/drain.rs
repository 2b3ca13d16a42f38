//! The word that it is time to go, from the one who decides to everybody who has to finish something.

use tokio::sync::watch;

/// The end that decides. Dropping it is a decision too.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// The end that listens; cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<bool>);

impl Drain {
    /// A pair of ends.
    #[must_use]
    pub fn channel() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (Trigger(sender), Self(receiver))
    }

    /// Whether it is time.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until it is time.
    pub async fn begun(&self) {
        // An error means that the deciding end is gone, which decides it.
        self.0.clone().wait_for(|begun| *begun).await.map(drop).ok();
    }
}

impl Trigger {
    /// Says that it is time.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}
