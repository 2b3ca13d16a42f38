//! How a process is told to stop; what it does then is the command's business.

use tokio::signal::unix::{Signal, SignalKind, signal};

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
