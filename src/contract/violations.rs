//! Checks of a request against the contract's field rules; collects every violation instead of stopping at the first.

use std::collections::BTreeMap;

use prost_types::Timestamp;

use super::field_path::FieldPath;
use super::form::StripeEnum;
use crate::domain::limits::{
    METADATA_KEY_CHARS_MAX, METADATA_KEYS_MAX, METADATA_RESERVED_PREFIX, METADATA_VALUE_CHARS_MAX,
    ORDER_ID_CHARS_MAX, STRIPE_ID_CHARS_MAX, VIOLATIONS_MAX,
};

/// A message that is checked on its way in. All implementations are generated.
pub trait Check {
    /// Adds what is wrong with the message, which stands at `at`.
    fn check(&self, at: &FieldPath, out: &mut Violations);
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
}

/// Everything that is wrong with a request, up to [`VIOLATIONS_MAX`].
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

/// Forms of text that a rule can demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Any text.
    Any,
    /// Printable ASCII without spaces, up to [`ORDER_ID_CHARS_MAX`].
    OrderId,
    /// ASCII letters, digits, `_` and `-`, up to [`STRIPE_ID_CHARS_MAX`].
    StripeId,
    /// Three lower-case ASCII letters.
    Currency,
    /// Upper-case ASCII letters and digits.
    UpperAlphanumeric,
}

/// The rule for one text field; 0 means no limit.
#[derive(Clone, Copy, Debug)]
pub struct TextRule {
    /// Shortest, in characters, when not empty.
    pub chars_min: usize,
    /// Longest, in characters.
    pub chars_max: usize,
    /// Form.
    pub format: Format,
}

impl Violations {
    /// Checks a whole request.
    #[must_use]
    pub fn of(request: &impl Check) -> Self {
        let mut violations = Self::default();
        request.check(&FieldPath::root(), &mut violations);
        violations
    }

    /// The violations found.
    #[must_use]
    pub fn into_vec(self) -> Vec<Violation> {
        self.0
    }

    /// Adds a violation.
    pub fn add(&mut self, at: &FieldPath, description: impl Into<String>) {
        if self.0.len() < VIOLATIONS_MAX {
            self.0.push(Violation { field: at.to_string(), description: description.into() });
        }
    }

    /// A field that must be set.
    pub fn required(&mut self, at: &FieldPath, set: bool) {
        if !set {
            self.add(at, "is required");
        }
    }

    /// A field that the gateway does not take, whatever its value.
    pub fn not_taken(&mut self, at: &FieldPath, set: bool, instead: &str) {
        if set {
            self.add(at, format!("is not taken here: {instead}"));
        }
    }

    /// Text fields; empty ones are not judged, since empty means unset or "unset it".
    pub fn texts(&mut self, at: &FieldPath, values: &[String], rule: &TextRule) {
        for (index, value) in values.iter().enumerate().filter(|(_, value)| !value.is_empty()) {
            let at = if values.len() > 1 { at.index(index) } else { at.clone() };
            let (chars, max) = (value.chars().count(), rule.chars_max);
            if max > 0 && chars > max {
                self.add(&at, format!("has {chars} characters; at most {max} are allowed"));
            }
            if chars < rule.chars_min {
                self.add(&at, format!("has {chars} characters; at least {} are needed", rule.chars_min));
            }
            if let Some(problem) = rule.format.problem(value) {
                self.add(&at, problem);
            }
        }
    }

    /// A number with bounds.
    pub fn range(&mut self, at: &FieldPath, value: Option<i64>, gte: Option<i64>, lte: Option<i64>) {
        let Some(value) = value else { return };
        if let Some(gte) = gte.filter(|gte| value < *gte) {
            self.add(at, format!("is {value}; must be at least {gte}"));
        }
        if let Some(lte) = lte.filter(|lte| value > *lte) {
            self.add(at, format!("is {value}; must be at most {lte}"));
        }
    }

    /// The number of items of a list; an empty list is not judged, 0 as `max` means no limit.
    pub fn items(&mut self, at: &FieldPath, count: usize, min: usize, max: usize) {
        if max > 0 && count > max {
            self.add(at, format!("has {count} items; at most {max} are allowed"));
        }
        if count > 0 && count < min {
            self.add(at, format!("has {count} items; at least {min} are needed"));
        }
    }

    /// Enum values: a number that this build does not know cannot be sent to Stripe.
    pub fn enums<E: StripeEnum>(&mut self, at: &FieldPath, numbers: &[i32]) {
        for number in numbers.iter().filter(|number| **number != 0 && E::text(**number).is_none()) {
            let known: Vec<&str> = E::VALUES.iter().map(|(text, _)| *text).collect();
            self.add(at, format!("has the unknown value {number}; known are: {}", known.join(", ")));
        }
    }

    /// Metadata, by Stripe's limits less the key that the gateway needs (docs.stripe.com/api/metadata).
    pub fn metadata(&mut self, at: &FieldPath, values: &BTreeMap<String, String>) {
        if values.len() > METADATA_KEYS_MAX {
            self.add(at, format!("has {} keys; at most {METADATA_KEYS_MAX} are allowed", values.len()));
        }
        for (key, value) in values {
            let at = at.field(key);
            if key.is_empty() || key.chars().count() > METADATA_KEY_CHARS_MAX || key.contains(['[', ']']) {
                self.add(
                    &at,
                    format!(
                        "the key must have 1 to {METADATA_KEY_CHARS_MAX} characters and no square brackets"
                    ),
                );
            }
            if key.starts_with(METADATA_RESERVED_PREFIX) {
                self.add(&at, format!("keys that begin with `{METADATA_RESERVED_PREFIX}` are reserved"));
            }
            if value.chars().count() > METADATA_VALUE_CHARS_MAX {
                self.add(&at, format!("the value may have at most {METADATA_VALUE_CHARS_MAX} characters"));
            }
        }
    }

    /// An instant; Stripe counts whole seconds.
    pub fn instant(&mut self, at: &FieldPath, instant: Option<&Timestamp>) {
        if let Some(instant) = instant.filter(|instant| instant.seconds < 0 || instant.nanos != 0) {
            let problem = if instant.seconds < 0 { "is before 1970" } else { "has a fraction of a second" };
            self.add(at, format!("{problem}; Stripe counts whole seconds since 1970"));
        }
    }

    /// A message, unless it is the empty one that unsets a clearable field.
    pub fn message<M: Check + Default + PartialEq>(
        &mut self,
        at: &FieldPath,
        message: Option<&M>,
        clearable: bool,
    ) {
        if let Some(message) = message.filter(|message| !clearable || **message != M::default()) {
            message.check(at, self);
        }
    }

    /// A list of messages.
    pub fn messages<M: Check>(&mut self, at: &FieldPath, messages: &[M]) {
        for (index, message) in messages.iter().enumerate() {
            message.check(&at.index(index), self);
        }
    }

    /// Fields of which exactly one must be set.
    pub fn exactly_one(&mut self, at: &FieldPath, fields: &[(&str, bool)], skip: bool) {
        let set = fields.iter().filter(|(_, set)| *set).count();
        if skip || set == 1 {
            return;
        }
        let names: Vec<String> = fields.iter().map(|(name, _)| format!("`{name}`")).collect();
        let names = names.join(" and ");
        for (name, _) in fields.iter().filter(|(_, is_set)| set == 0 || *is_set) {
            let found = if set == 0 { "none is" } else { "more than one is" };
            self.add(&at.field(name), format!("exactly one of {names} must be set; {found}"));
        }
    }
}

impl Format {
    fn problem(self, value: &str) -> Option<String> {
        let chars = value.chars().count();
        match self {
            Self::Any => None,
            Self::OrderId => {
                let fits = chars <= ORDER_ID_CHARS_MAX && value.bytes().all(|byte| byte.is_ascii_graphic());
                (!fits).then(|| {
                    format!("must be 1 to {ORDER_ID_CHARS_MAX} printable ASCII characters without spaces")
                })
            }
            Self::StripeId => {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
                let fits = chars <= STRIPE_ID_CHARS_MAX && value.bytes().all(plain);
                (!fits).then(|| {
                    format!("must be an id of at most {STRIPE_ID_CHARS_MAX} letters, digits, `_` and `-`")
                })
            }
            Self::Currency => {
                let fits = chars == 3 && value.bytes().all(|byte| byte.is_ascii_lowercase());
                (!fits)
                    .then(|| "must be a three-letter currency code in lower case, such as `usd`".to_owned())
            }
            Self::UpperAlphanumeric => {
                let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
                (!value.bytes().all(plain)).then(|| "may hold only A to Z and 0 to 9".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{CreateCustomerRequest, CreateRefundRequest, OperationRef, UpdateCustomerRequest};

    fn fields(request: &CreateRefundRequest) -> Vec<String> {
        Violations::of(request).into_vec().into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn every_violation_is_reported_with_its_path() {
        let request = CreateRefundRequest {
            operation: Some(OperationRef {
                order_id: "a b".into(),
                operation_id: "x".repeat(201),
                ..Default::default()
            }),
            charge: Some("ch_1".into()),
            payment_intent: Some("pi/1".into()),
            amount: Some(-5),
            reason: 99,
            metadata: BTreeMap::from([("tollgate_x".into(), "v".into())]),
            ..Default::default()
        };
        assert_eq!(
            fields(&request),
            [
                "operation.order_id",
                "operation.operation_id",
                "payment_intent",
                "amount",
                "reason",
                "metadata.tollgate_x",
                "charge",
                "payment_intent"
            ]
        );
    }

    #[test]
    fn a_missing_order_and_a_missing_target_are_named() {
        assert_eq!(fields(&CreateRefundRequest::default()), ["operation", "charge", "payment_intent"]);
        let request = CreateRefundRequest { operation: Some(OperationRef::default()), ..Default::default() };
        assert_eq!(fields(&request), ["operation.order_id", "charge", "payment_intent"]);
    }

    #[test]
    fn what_moves_credit_unseen_is_not_taken_and_names_what_is() {
        let operation = Some(OperationRef { order_id: "1".into(), ..Default::default() });
        let balance = Some(0);
        let create = CreateCustomerRequest { operation: operation.clone(), balance, ..Default::default() };
        let update = UpdateCustomerRequest { operation, id: "cus_1".into(), balance, ..Default::default() };
        for violations in [Violations::of(&create), Violations::of(&update)] {
            let [Violation { field, description }] = &violations.into_vec()[..] else { panic!("one fault") };
            assert_eq!(field, "balance");
            assert!(description.contains("CreateCustomerBalanceTransaction"), "{description}");
        }
    }

    #[test]
    fn a_refund_from_another_origin_needs_no_charge() {
        let request = CreateRefundRequest {
            operation: Some(OperationRef { order_id: "1".into(), ..Default::default() }),
            origin: 1,
            ..Default::default()
        };
        assert_eq!(fields(&request), Vec::<String>::new());
    }
}
