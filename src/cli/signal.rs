//! How a process is told to stop, or to read its settings again; what it does then is the command's business.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// SIGINT and SIGTERM. Once it exists none of them is lost, and none ends the process by itself: whoever says that the
/// process is ready makes it before.
pub(super) struct StopSignals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

impl StopSignals {
    /// Begins to take them. Where the system lets nobody, a signal ends the process by itself.
    pub(super) fn take() -> Self {
        Self {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
        }
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            () = one(&mut self.interrupt) => {}
            () = one(&mut self.terminate) => {}
        }
    }
}

async fn one(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Is notified at each SIGHUP from now on.
pub(super) fn reload_signal() -> Arc<Notify> {
    let again = Arc::new(Notify::new());
    let notified = Arc::clone(&again);
    // Without a handler the signal would end the process, so it is there before anybody can know of the process.
    if let Ok(mut hangups) = signal(SignalKind::hangup()) {
        tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                notified.notify_one();
            }
        });
    }
    again
}
