//! Amounts of bytes as settings write them: a whole number, perhaps with a unit of IEC 80000-13.

/// Units, the largest first, with what they count by as a power of two.
const UNITS: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("", 0)];

/// The bytes that a text names; `None` if it names none, or more than can be counted.
pub(super) fn parse(text: &str) -> Option<u64> {
    let (digits, shift) = UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|_| plain)?.checked_mul(1 << shift)
}

/// A number of bytes in the largest unit that it is whole in.
pub(super) fn shown(bytes: u64) -> String {
    let whole = UNITS.iter().find(|(_, shift)| bytes.is_multiple_of(1 << shift)).unwrap_or(&("", 0));
    format!("{}{}", bytes >> whole.1, whole.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_may_have_a_unit_and_nothing_else() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("2KiB", Some(2048)),
            ("3MiB", Some(3 << 20)),
            ("10GiB", Some(10 << 30)),
        ] {
            assert_eq!(parse(text), bytes, "{text}");
        }
        for text in ["", "KiB", "1 KiB", "1kb", "-1", "+1", "1.5GiB", "1TiB", "18446744073709551615GiB"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_means_the_same(bytes: u64) {
            prop_assert_eq!(parse(&shown(bytes)), Some(bytes));
        }
    }
}
