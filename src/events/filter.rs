//! Which events a reader wants; pure rules, no reading.

use std::collections::BTreeSet;

use crate::domain::limits::{EVENT_PATTERNS_MAX, EVENT_TYPE_CHARS_MAX};
use crate::proto::v1::EventPreset;

/// Types by exact name and by prefix, of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    account: String,
    types: Types,
}

/// Which types of events a reader wants; by default, every type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Types(Kinds);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Kinds {
    #[default]
    Every,
    Some {
        exact: BTreeSet<String>,
        /// Without the star, with the dot.
        prefixes: BTreeSet<String>,
    },
}

/// A pattern that can match nothing as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an event type such as `charge.refunded`, a prefix such as `charge.*`, or `*`")]
pub struct BadPattern {
    /// Which of the patterns, from 0.
    pub index: usize,
}

impl Types {
    /// The types that any of `patterns` or of `presets` names; all of them when there is neither.
    ///
    /// # Errors
    /// When a pattern is malformed, or is one too many.
    pub fn new(patterns: &[String], presets: &[EventPreset]) -> Result<Self, BadPattern> {
        if let Some(index) = patterns.iter().position(|pattern| !sound(pattern)) {
            return Err(BadPattern { index });
        }
        if patterns.len() > EVENT_PATTERNS_MAX {
            return Err(BadPattern { index: EVENT_PATTERNS_MAX });
        }
        let preset = presets.iter().flat_map(|preset| recommended(*preset)).map(|kind| (*kind).to_owned());
        let nothing_named =
            patterns.is_empty() && presets.iter().all(|preset| recommended(*preset).is_empty());
        if nothing_named || patterns.iter().any(|pattern| pattern == "*") {
            return Ok(Self::default());
        }
        let (wild, exact): (Vec<_>, Vec<_>) = patterns.iter().partition(|pattern| pattern.ends_with('*'));
        Ok(Self(Kinds::Some {
            exact: exact.into_iter().cloned().chain(preset).collect(),
            prefixes: wild.into_iter().map(|pattern| pattern.trim_end_matches('*').to_owned()).collect(),
        }))
    }

    fn have(&self, kind: &str) -> bool {
        match &self.0 {
            Kinds::Every => true,
            Kinds::Some { exact, prefixes } => {
                exact.contains(kind) || prefixes.iter().any(|prefix| kind.starts_with(prefix.as_str()))
            }
        }
    }
}

impl Filter {
    /// The filter for the events of `account`, an alias as the log has it, that are of `types`.
    #[must_use]
    pub fn new(account: &str, types: Types) -> Self {
        Self { account: account.to_owned(), types }
    }

    /// Whether an event of type `kind` that `account` received passes.
    #[must_use]
    pub fn matches(&self, account: &str, kind: &str) -> bool {
        self.account == account && self.types.have(kind)
    }
}

/// The event types of a preset, by what they are good for: money that came in or failed to, went back, or went out to
/// the bank, and disputes with their early warnings (docs.stripe.com/api/events/types).
#[must_use]
pub fn recommended(preset: EventPreset) -> &'static [&'static str] {
    match preset {
        EventPreset::Unspecified => &[],
        EventPreset::Charges => &["charge.succeeded", "charge.failed", "charge.refunded"],
        EventPreset::Refunds => &["refund.created", "refund.failed"],
        EventPreset::Payouts => &["payout.created", "payout.paid", "payout.failed"],
        EventPreset::PaymentIntents => {
            &["payment_intent.succeeded", "payment_intent.payment_failed", "payment_intent.canceled"]
        }
        EventPreset::Disputes => {
            &["radar.early_fraud_warning.created", "charge.dispute.created", "charge.dispute.closed"]
        }
    }
}

/// `*`, or dotted words of which the last may be a star.
fn sound(pattern: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let named = pattern.strip_suffix(".*").unwrap_or(pattern);
    pattern.len() <= EVENT_TYPE_CHARS_MAX && (pattern == "*" || named.split('.').all(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(patterns: &[&str], presets: &[EventPreset]) -> Result<Filter, BadPattern> {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        Types::new(&patterns, presets).map(|types| Filter::new("", types))
    }

    #[test]
    fn malformed_patterns_are_named_by_their_place() {
        for bad in [
            "",
            ".",
            "charge.",
            "charge*",
            "*.created",
            "charge.*.created",
            "Charge.created",
            "a b",
            "charge..x",
        ] {
            assert_eq!(filter(&["charge.*", bad], &[]), Err(BadPattern { index: 1 }), "{bad}");
        }
    }

    #[test]
    fn one_pattern_too_many_is_refused() {
        let patterns = vec!["charge.*".to_owned(); EVENT_PATTERNS_MAX + 1];
        assert_eq!(Types::new(&patterns, &[]), Err(BadPattern { index: EVENT_PATTERNS_MAX }));
    }

    #[test]
    fn a_prefix_ends_at_a_dot() {
        let charges = filter(&["charge.*"], &[]).unwrap();
        assert!(charges.matches("", "charge.refunded") && charges.matches("", "charge.dispute.created"));
        assert!(!charges.matches("", "charge") && !charges.matches("", "charges.x"));
    }

    #[test]
    fn an_unset_preset_does_not_narrow() {
        assert!(filter(&[], &[EventPreset::Unspecified]).unwrap().matches("", "anything.at_all"));
    }

    fn kind() -> impl Strategy<Value = String> {
        prop::collection::vec("[ab]{1,2}", 1..4).prop_map(|words| words.join("."))
    }

    fn pattern() -> impl Strategy<Value = String> {
        (kind(), any::<bool>()).prop_map(|(kind, wild)| if wild { format!("{kind}.*") } else { kind })
    }

    fn preset() -> impl Strategy<Value = EventPreset> {
        (1..=5_i32).prop_map(|number| EventPreset::try_from(number).unwrap())
    }

    proptest! {
        #[test]
        fn a_filter_is_the_union_of_its_parts(
            patterns in prop::collection::vec(pattern(), 1..5),
            presets in prop::collection::vec(preset(), 0..3),
            kind in kind(),
        ) {
            let whole = Types::new(&patterns, &presets).unwrap();
            let mut parts = patterns.iter().map(|pattern| Types::new(std::slice::from_ref(pattern), &[]).unwrap());
            let preset = presets.iter().any(|preset| recommended(*preset).contains(&kind.as_str()));
            prop_assert_eq!(whole.have(&kind), preset || parts.any(|part| part.have(&kind)));
            for named in presets.iter().flat_map(|preset| recommended(*preset)) {
                prop_assert!(whole.have(named));
            }
        }

        #[test]
        fn a_star_and_no_pattern_match_everything_of_their_account(kind in kind(), account in "[a-z]{0,2}") {
            for patterns in [vec![], vec!["*".to_owned()], vec!["zz".to_owned(), "*".to_owned()]] {
                let filter = Filter::new("a", Types::new(&patterns, &[]).unwrap());
                prop_assert_eq!(filter.matches(&account, &kind), account == "a");
            }
        }

        #[test]
        fn an_exact_pattern_matches_itself_alone(pattern in kind(), kind in kind()) {
            let exact = filter(&[&pattern], &[]).unwrap();
            prop_assert_eq!(exact.matches("", &kind), pattern == kind);
        }
    }
}
