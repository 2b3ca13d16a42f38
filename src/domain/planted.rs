//! Deliberate faults, with which the proofs show that they would notice a real one. It is empty in a shipped build.

/// The environment variable that names the fault to make, in builds with the feature `planted`. It is no setting, so it
/// does not begin like one: a `TOLLGATE_` variable that is no setting is refused.
#[cfg(feature = "planted")]
const VARIABLE: &str = "PLANTED_FAULT";

/// Whether the fault `name` is to be made; never without the feature `planted`.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn active(name: &str) -> bool {
    _ = name;
    false
}

/// Whether the fault `name` is to be made.
#[cfg(feature = "planted")]
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "a planted fault is no configuration and exists in no shipped build"
)]
pub fn active(name: &str) -> bool {
    std::env::var(VARIABLE).is_ok_and(|value| value == name)
}
