//! Which texts are names of things, and so worth finding again. It knows forms only, not what they name.

/// Longest text that counts as a name, in characters.
const CHARS_MAX: usize = 255;

/// Whether a text has the form of a Stripe id: lower-case letters, `_`, and letters and digits with at least one digit
/// among them, such as `re_3Pz` (docs.stripe.com/api: ids are opaque beyond their prefix).
#[must_use]
pub fn is_stripe_id(text: &str) -> bool {
    let Some((prefix, rest)) = text.split_once('_') else { return false };
    text.len() <= CHARS_MAX
        && prefix.len() >= 2
        && prefix.bytes().all(|byte| byte.is_ascii_lowercase())
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && rest.bytes().any(|byte| byte.is_ascii_digit())
}

/// Whether a text can serve as a name at all: printable ASCII without spaces, and not too long.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripe_ids_are_told_from_words() {
        for id in ["re_1", "pi_3PzAbc", "evt_test_2", "req_h2Kw", "ch_1a_2", "acct_1Sandbox"] {
            assert!(is_stripe_id(id), "{id}");
        }
        for word in [
            "",
            "_1",
            "r_1",
            "charge_already_refunded",
            "requested_by_customer",
            "usd",
            "1001",
            "Re_1",
            "re_1 2",
        ] {
            assert!(!is_stripe_id(word), "{word}");
        }
        assert!(is_name("1001") && !is_name("") && !is_name("a b") && !is_name(&"a".repeat(256)));
    }
}
