//! How long calls took, in a figure.

use std::time::Duration;

/// So many per cent took no longer, in milliseconds; 0 where there are none.
pub(crate) fn percentile_ms(times: &[Duration], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, Duration::as_secs_f64) * 1_000.0
}
