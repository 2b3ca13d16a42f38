//! Holds what the generator writes for one service against a committed copy, so that a change of the generator shows as
//! a change of its output.

use std::fs;

const GOLDEN: &str = "tests/golden/refund_service.rs";
const WRITTEN: &str = include_str!(concat!(env!("OUT_DIR"), "/contract/refund_service.rs"));

/// Refreshed with `UPDATE_GOLDEN=1 cargo test golden`.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the flag that refreshes golden files comes from the environment"
)]
fn the_generator_writes_the_refund_service_as_reviewed() {
    if std::env::var("UPDATE_GOLDEN").is_ok() {
        fs::write(GOLDEN, WRITTEN).unwrap();
    }
    let reviewed = fs::read_to_string(GOLDEN).unwrap();
    for (at, (written, reviewed)) in WRITTEN.lines().zip(reviewed.lines()).enumerate() {
        assert_eq!(written, reviewed, "line {} differs; see the opening comment to accept it", at + 1);
    }
    assert_eq!(WRITTEN.lines().count(), reviewed.lines().count());
}
