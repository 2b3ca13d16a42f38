//! The only place that reads time; nothing else in the gateway may ask the system for it.

use std::fmt::Debug;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, the form in which instants are stored.
pub type UnixMillis = i64;

/// Source of time. Real in a running gateway, set by hand in tests and in the sandbox's test clock.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Wall-clock time. May jump when somebody sets the machine's clock.
    fn wall(&self) -> UnixMillis;

    /// Time since an arbitrary start; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn wall(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis::try_from(since.as_millis()).unwrap_or(UnixMillis::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands still until it is moved, for tests and simulated time.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(UnixMillis, Duration)>,
}

impl ManualClock {
    /// A clock that shows `wall`.
    #[must_use]
    pub fn at(wall: UnixMillis) -> Self {
        Self { state: Mutex::new((wall, Duration::ZERO)) }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let mut state = self.lock();
        state.0 = state.0.saturating_add(UnixMillis::try_from(by.as_millis()).unwrap_or(UnixMillis::MAX));
        state.1 = state.1.saturating_add(by);
    }

    /// Sets the wall clock, forward or back, as an operator or NTP would; monotonic time is unmoved.
    pub fn set_wall(&self, wall: UnixMillis) {
        self.lock().0 = wall;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (UnixMillis, Duration)> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> UnixMillis {
        self.lock().0
    }

    fn monotonic(&self) -> Duration {
        self.lock().1
    }
}
