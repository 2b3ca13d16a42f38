//! The only place that reads time; nothing else in the gateway may ask the system for it.

use std::fmt::Debug;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, the form in which instants are stored.
pub type UnixMillis = i64;

/// Where Linux tells the name of the machine's current run (`random(4)`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Source of time. Real in a running gateway, set by hand in tests and in the sandbox's test clock.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Wall-clock time. May jump when somebody sets the machine's clock.
    fn wall(&self) -> UnixMillis;

    /// Time since the machine was started. Never goes back, and goes on while the machine sleeps or a process is stopped.
    fn monotonic(&self) -> Duration;

    /// Which run of the machine [`Clock::monotonic`] counts from; times of different runs cannot be compared.
    fn boot_id(&self) -> u64;

    /// What both clocks show.
    fn now(&self) -> Moment {
        let ms = i64::try_from(self.monotonic().as_millis()).unwrap_or(i64::MAX);
        Moment { wall_ms: self.wall(), boot: BootTime { boot_id: self.boot_id(), ms } }
    }
}

/// One moment by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// By the wall clock.
    pub wall_ms: UnixMillis,
    /// By the clock that nobody can set.
    pub boot: BootTime,
}

/// Time since the machine was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootTime {
    /// Which run of the machine.
    pub boot_id: u64,
    /// Milliseconds since its start, sleep included.
    pub ms: i64,
}

impl BootTime {
    /// Milliseconds from `earlier` until this; `None` when they are of different runs of the machine.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<i64> {
        (self.boot_id == earlier.boot_id).then(|| self.ms.saturating_sub(earlier.ms))
    }
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    boot_id: u64,
}

impl SystemClock {
    /// The clocks of the machine's current run.
    #[must_use]
    pub fn new() -> Self {
        // Where the system does not name its run, a name of this process's own: then no other can rely on its times.
        let named = std::fs::read_to_string(BOOT_ID).ok().and_then(|text| boot_id(&text));
        Self { boot_id: named.unwrap_or_else(|| RandomState::new().hash_one(BOOT_ID)) }
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
        read(ClockId::Boottime)
    }

    fn boot_id(&self) -> u64 {
        self.boot_id
    }
}

/// Time since the machine was started, without the time that it slept: what a service manager compares times by
/// (`CLOCK_MONOTONIC`).
#[must_use]
pub fn awake() -> Duration {
    read(ClockId::Monotonic)
}

fn read(clock: ClockId) -> Duration {
    let since = clock_gettime(clock);
    let seconds = Duration::from_secs(since.tv_sec.unsigned_abs());
    seconds.saturating_add(Duration::from_nanos(since.tv_nsec.unsigned_abs()))
}

/// A second opinion on the wall clock, which a dead battery can put years ahead: the time as far as something that was
/// kept vouches for it too. The time that a process stood still is left out until its next start, so whoever throws away
/// what is old keeps it longer rather than shorter.
#[derive(Clone, Copy, Debug)]
pub struct Vouched {
    since_ms: UnixMillis,
    at: Duration,
}

impl Vouched {
    /// From now on, by what was kept last, which is of the time `newest_ms`; without it the wall clock is believed.
    #[must_use]
    pub fn new(clock: &dyn Clock, newest_ms: Option<UnixMillis>) -> Self {
        Self { since_ms: newest_ms.unwrap_or_else(|| clock.wall()), at: clock.monotonic() }
    }

    /// The time by both.
    #[must_use]
    pub fn now(self, clock: &dyn Clock) -> UnixMillis {
        let passed = clock.monotonic().saturating_sub(self.at);
        let passed_ms = UnixMillis::try_from(passed.as_millis()).unwrap_or(UnixMillis::MAX);
        clock.wall().min(self.since_ms.saturating_add(passed_ms))
    }
}

/// The first half of the machine's boot id, which is random.
fn boot_id(text: &str) -> Option<u64> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    (digits.len() == 16).then(|| u64::from_str_radix(&digits, 16).ok()).flatten()
}

/// A clock that stands still until it is moved, for tests and simulated time.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<Moved>,
}

#[derive(Clone, Copy, Debug)]
struct Moved {
    wall: UnixMillis,
    boot: Duration,
    boot_id: u64,
}

impl ManualClock {
    /// A clock that shows `wall`.
    #[must_use]
    pub fn at(wall: UnixMillis) -> Self {
        Self { state: Mutex::new(Moved { wall, boot: Duration::ZERO, boot_id: 1 }) }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let mut state = self.lock();
        state.wall =
            state.wall.saturating_add(UnixMillis::try_from(by.as_millis()).unwrap_or(UnixMillis::MAX));
        state.boot = state.boot.saturating_add(by);
    }

    /// Sets the wall clock, forward or back, as an operator or NTP would; monotonic time is unmoved.
    pub fn set_wall(&self, wall: UnixMillis) {
        self.lock().wall = wall;
    }

    /// Starts the machine anew: monotonic time begins again, and the wall clock shows what it showed.
    pub fn reboot(&self) {
        let mut state = self.lock();
        *state = Moved { boot: Duration::ZERO, boot_id: state.boot_id.wrapping_add(1), ..*state };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Moved> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> UnixMillis {
        self.lock().wall
    }

    fn monotonic(&self) -> Duration {
        self.lock().boot
    }

    fn boot_id(&self) -> u64 {
        self.lock().boot_id
    }

    fn now(&self) -> Moment {
        let Moved { wall, boot, boot_id } = *self.lock();
        let ms = i64::try_from(boot.as_millis()).unwrap_or(i64::MAX);
        Moment { wall_ms: wall, boot: BootTime { boot_id, ms } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_different_runs_of_the_machine_cannot_be_compared() {
        let clock = ManualClock::at(1_000);
        let first = clock.now();
        clock.advance(Duration::from_millis(5));
        clock.set_wall(7);
        assert_eq!((clock.now().wall_ms, clock.now().boot.since(first.boot)), (7, Some(5)));
        clock.reboot();
        assert_eq!((clock.now().wall_ms, clock.now().boot.since(first.boot)), (7, None));
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_not_believed_and_one_that_goes_is() {
        let clock = ManualClock::at(1_000);
        let (fresh, kept) = (Vouched::new(&clock, None), Vouched::new(&clock, Some(400)));
        clock.advance(Duration::from_millis(50));
        assert_eq!((fresh.now(&clock), kept.now(&clock)), (1_050, 450));
        clock.set_wall(9_000_000);
        assert_eq!((fresh.now(&clock), kept.now(&clock)), (1_050, 450));
        clock.set_wall(7);
        assert_eq!((fresh.now(&clock), kept.now(&clock)), (7, 7));
    }

    #[test]
    fn the_machines_run_has_a_name_that_two_clocks_agree_on() {
        assert_eq!(boot_id("0cf9e5a4-6f5c-4b5b-9d0d-0a1b2c3d4e5f\n"), Some(0x0cf9_e5a4_6f5c_4b5b));
        assert_eq!(boot_id("gone"), None);
        let (one, other) = (SystemClock::new(), SystemClock::new());
        if std::fs::read_to_string(BOOT_ID).is_ok() {
            assert_eq!(one.boot_id(), other.boot_id());
        }
        let first = one.now();
        assert!(other.now().boot.since(first.boot).is_none_or(|passed| passed >= 0));
    }
}
