//! Which events a reader wants, as far as it may know of what it asks for; pure rules, no reading.

use std::collections::BTreeSet;

use super::cause::Viewer;
use super::log_event::LogEvent;
use super::terms::of_order;
use crate::domain::identifier::is_name;
use crate::domain::limits::{EVENT_PATTERNS_MAX, EVENT_TYPE_CHARS_MAX};
use crate::proto::v1::{CauseFilter, CauseKind, EventFilter, EventPreset};

/// Types by exact name and by prefix, of one account, and what else an event has to be like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    account: String,
    types: Types,
    /// Absent where nothing else is asked for.
    about: Option<EventFilter>,
    viewer: Viewer,
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
        Self { account: account.to_owned(), types, ..Self::default() }
    }

    /// The same, narrowed to the events that `about` asks for. Nobody learns of a call by asking for it that `viewer` may not
    /// know.
    #[must_use]
    pub fn about(self, about: Option<&EventFilter>, viewer: Viewer) -> Self {
        let about = about.filter(|about| **about != EventFilter::default()).cloned();
        Self { about, viewer, ..self }
    }

    /// From now on asks for another viewer, whose rights have changed.
    pub fn seen_by(&mut self, viewer: Viewer) {
        self.viewer = viewer;
    }

    /// What is asked for by which events can be found: see [`terms`](super::terms()). An order is known in one namespace.
    pub(super) fn term(&self) -> Option<String> {
        let EventFilter { object_id, customer, order_id, .. } = self.about.as_ref()?;
        if let Some(id) = [object_id, customer].into_iter().find(|id| is_name(id)) {
            return Some(id.clone());
        }
        let known = !order_id.is_empty() && !self.viewer.every;
        known.then(|| of_order(&self.viewer.namespace, order_id))
    }

    /// Whether an event passes. It is read no further than the question goes.
    #[must_use]
    pub fn matches(&self, logged: &LogEvent) -> bool {
        let event = &logged.event;
        self.account == event.account
            && self.types.have(&event.kind)
            && self.about.as_ref().is_none_or(|about| self.fits(about, logged))
    }

    fn fits(&self, about: &EventFilter, logged: &LogEvent) -> bool {
        let Some(envelope) = logged.envelope() else { return false };
        let same = |asked: &str, found: &str| asked.is_empty() || asked == found;
        let mut known = logged.cause().known_to(&self.viewer);
        same(&about.object_id, &envelope.object_id)
            && same(&about.object_type, &envelope.object_type)
            && same(&about.customer, &envelope.customer)
            && same(&about.connected_account, &envelope.connected_account)
            && (about.order_id.is_empty() || known.any(|call| call.order_id == about.order_id))
            && match about.cause() {
                CauseFilter::Unspecified => true,
                CauseFilter::Mine => self.viewer.is_one_of(logged.cause()),
                CauseFilter::Outside => logged.cause_kind() == CauseKind::Outside,
            }
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
    use crate::events::notes::Notes;
    use crate::events::{Call, Cause};
    use crate::store::{NewEvent, StoredEvent};

    /// An event of a charge of `cus_1` on `acct_9`, which a request made.
    const CHARGE: &str = r#"{"id":"evt_1","object":"event","created":1,"type":"a.b","livemode":false,"account":"acct_9",
        "data":{"object":{"id":"ch_1","object":"charge","customer":"cus_1"}},"request":{"id":"req_1"}}"#;

    fn event(account: &str, kind: &str, json: &str, cause: &Cause) -> LogEvent {
        let event = NewEvent {
            account: account.to_owned(),
            kind: kind.to_owned(),
            json: json.to_owned(),
            cause: Notes::from(cause.clone()).encode(),
            ..NewEvent::default()
        };
        StoredEvent { position: 1, event }.into()
    }

    fn passes(filter: &Filter, account: &str, kind: &str) -> bool {
        filter.matches(&event(account, kind, "", &Cause::default()))
    }

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
        assert!(passes(&charges, "", "charge.refunded") && passes(&charges, "", "charge.dispute.created"));
        assert!(!passes(&charges, "", "charge") && !passes(&charges, "", "charges.x"));
    }

    #[test]
    fn an_unset_preset_does_not_narrow() {
        assert!(passes(&filter(&[], &[EventPreset::Unspecified]).unwrap(), "", "anything.at_all"));
    }

    fn about(about: EventFilter, namespace: &str, every: bool, cause: &Cause) -> bool {
        let viewer = Viewer { namespace: namespace.to_owned(), every };
        Filter::default().about(Some(&about), viewer).matches(&event("", "a.b", CHARGE, cause))
    }

    fn call(namespace: &str, order_id: &str) -> Option<Call> {
        Some(Call { namespace: namespace.into(), order_id: order_id.into(), ..Call::default() })
    }

    #[test]
    fn every_part_that_is_set_has_to_match() {
        let whole = EventFilter {
            object_id: "ch_1".into(),
            object_type: "charge".into(),
            customer: "cus_1".into(),
            connected_account: "acct_9".into(),
            ..EventFilter::default()
        };
        let parts: [fn(&mut EventFilter) -> &mut String; 4] = [
            |about| &mut about.object_id,
            |about| &mut about.object_type,
            |about| &mut about.customer,
            |about| &mut about.connected_account,
        ];
        assert!(about(whole.clone(), "", false, &Cause::default()));
        for part in parts {
            let (mut other, mut unset) = (whole.clone(), whole.clone());
            part(&mut other).push('0');
            part(&mut unset).clear();
            assert!(!about(other, "", false, &Cause::default()));
            assert!(about(unset, "", false, &Cause::default()));
        }
    }

    #[test]
    fn an_order_is_found_by_those_who_may_know_its_call() {
        let cause = Cause { call: call("shop", "1"), origin: call("mill", "2") };
        let order = |order: &str| EventFilter { order_id: order.into(), ..EventFilter::default() };
        for (asked, namespace, every, found) in [
            ("1", "shop", false, true),
            ("2", "shop", false, false),
            ("2", "mill", false, true),
            ("1", "", true, true),
            ("3", "", true, false),
        ] {
            assert_eq!(about(order(asked), namespace, every, &cause), found, "{asked} {namespace}");
        }
    }

    #[test]
    fn mine_is_what_my_calls_did_and_what_became_of_what_they_made() {
        let mine = EventFilter { cause: CauseFilter::Mine.into(), ..EventFilter::default() };
        let outside = EventFilter { cause: CauseFilter::Outside.into(), ..EventFilter::default() };
        for (cause, is_mine, is_outside) in [
            (Cause { call: call("shop", "1"), origin: None }, true, false),
            (Cause { call: call("mill", "1"), origin: call("shop", "1") }, true, false),
            (Cause { call: None, origin: call("shop", "1") }, true, true),
            (Cause { call: call("mill", "1"), origin: None }, false, false),
            (Cause::default(), false, true),
        ] {
            // To see every cause makes none of them one's own.
            for every in [false, true] {
                assert_eq!(about(mine.clone(), "shop", every, &cause), is_mine, "{cause:?}");
                assert_eq!(about(outside.clone(), "shop", every, &cause), is_outside, "{cause:?}");
            }
        }
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
                prop_assert_eq!(passes(&filter, &account, &kind), account == "a");
            }
        }

        #[test]
        fn an_exact_pattern_matches_itself_alone(pattern in kind(), kind in kind()) {
            let exact = filter(&[&pattern], &[]).unwrap();
            prop_assert_eq!(passes(&exact, "", &kind), pattern == kind);
        }
    }
}
