//! Stripe's form encoding of request messages (docs.stripe.com/api): nested names in brackets, lists indexed, absent
//! left out, present-and-empty sent as the empty string that unsets. It decides no rule of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prost_types::Timestamp;

/// Who may see a value; a message's sensitivity covers everything below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sensitivity {
    /// Anybody who may read the audit log.
    #[default]
    Public,
    /// Kept as a keyed hash only.
    Personal,
    /// Kept nowhere.
    Secret,
}

/// A message that is sent to Stripe. All implementations are generated.
pub trait Form {
    /// Adds the message's parameters under `at`.
    fn form(&self, at: &Name, out: &mut Params);
}

/// An enum with Stripe's spelling of its values. All implementations are generated.
pub trait StripeEnum {
    /// Stripe's text and the number of every value but the unspecified one.
    const VALUES: &'static [(&'static str, i32)];

    /// Stripe's text of a number; `None` for unspecified or unknown.
    #[must_use]
    fn text(number: i32) -> Option<&'static str> {
        Self::VALUES.iter().find(|(_, value)| *value == number).map(|(text, _)| *text)
    }

    /// The number of Stripe's text; `None` when this build does not know it.
    #[must_use]
    fn number(text: &str) -> Option<i32> {
        Self::VALUES.iter().find(|(value, _)| *value == text).map(|(_, number)| *number)
    }
}

/// A parameter's name on the wire, such as `evidence[customer_name]`.
#[derive(Clone, Debug, Default)]
pub struct Name(String);

impl Name {
    /// The name above all parameters.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// The name of a member.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}[{name}]", self.0)) }
    }

    /// The same name again, for values that stand directly under their parent.
    #[must_use]
    pub fn inline(&self) -> Self {
        self.clone()
    }

    fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}

/// One parameter as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Name on the wire, brackets included.
    pub name: String,
    /// Value before percent-encoding.
    pub value: String,
    /// Who may see the value.
    pub sensitivity: Sensitivity,
}

/// The parameters of one request, in the order in which they are sent.
#[derive(Clone, Debug, Default)]
pub struct Params {
    pairs: Vec<Pair>,
    above: Sensitivity,
}

impl Params {
    /// The parameters of a message.
    #[must_use]
    pub fn of(message: &impl Form) -> Self {
        let mut params = Self::default();
        message.form(&Name::root(), &mut params);
        params
    }

    /// The parameters, in order.
    #[must_use]
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Adds one parameter.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>, sensitivity: Sensitivity) {
        let sensitivity = sensitivity.max(self.above);
        self.pairs.push(Pair { name: name.into(), value: value.into(), sensitivity });
    }

    /// The form body or query, percent-encoded; brackets stay as they are, as in Stripe's own clients.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut body = String::new();
        for pair in &self.pairs {
            if !body.is_empty() {
                body.push('&');
            }
            encode_into(&mut body, &pair.name, b"[]-._~");
            body.push('=');
            encode_into(&mut body, &pair.value, b"-._~");
        }
        body
    }

    /// Adds a scalar, if it is set.
    pub fn scalar(&mut self, name: &Name, value: &impl Scalar, sensitivity: Sensitivity) {
        if let Some(text) = value.text() {
            self.push(name.0.clone(), text, sensitivity);
        }
    }

    /// Adds a list of scalars.
    pub fn scalars(&mut self, name: &Name, values: &[impl Scalar], sensitivity: Sensitivity) {
        for (index, value) in values.iter().enumerate() {
            self.push(name.index(index).0, value.text().unwrap_or_default(), sensitivity);
        }
    }

    /// Adds an enum value by its name at Stripe, if it is set.
    pub fn enumeration<E: StripeEnum>(&mut self, name: &Name, number: i32, sensitivity: Sensitivity) {
        if let Some(text) = E::text(number) {
            self.push(name.0.clone(), text, sensitivity);
        }
    }

    /// Adds a list of enum values.
    pub fn enums<E: StripeEnum>(&mut self, name: &Name, numbers: &[i32], sensitivity: Sensitivity) {
        for (index, text) in numbers.iter().filter_map(|number| E::text(*number)).enumerate() {
            self.push(name.index(index).0, text, sensitivity);
        }
    }

    /// Adds a map; a key with an empty value is sent too, since that is how Stripe deletes it.
    pub fn map(&mut self, name: &Name, values: &BTreeMap<String, String>, sensitivity: Sensitivity) {
        for (key, value) in values {
            self.push(name.field(key).0, value.clone(), sensitivity);
        }
    }

    /// Adds a message; a present but empty one is sent as the empty string where the field is clearable.
    pub fn message<M: Form>(
        &mut self,
        name: &Name,
        message: Option<&M>,
        clearable: bool,
        sensitivity: Sensitivity,
    ) {
        let Some(message) = message else { return };
        let before = self.pairs.len();
        let above = self.above;
        self.above = above.max(sensitivity);
        message.form(name, self);
        self.above = above;
        if clearable && self.pairs.len() == before {
            self.push(name.0.clone(), "", sensitivity);
        }
    }

    /// Adds a list of messages.
    pub fn messages<M: Form>(&mut self, name: &Name, messages: &[M], sensitivity: Sensitivity) {
        for (index, message) in messages.iter().enumerate() {
            self.message(&name.index(index), Some(message), false, sensitivity);
        }
    }
}

/// The parameters of an encoded body, by name; what is not UTF-8 once decoded is taken as far as it is.
#[must_use]
pub fn decode_form(body: &str) -> Vec<(String, String)> {
    let pairs = body.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name), percent_decode(value))
        })
        .collect()
}

fn percent_decode(text: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (first, digit(after.first()), digit(after.get(1))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A value that Stripe takes as one parameter.
pub trait Scalar {
    /// The value as Stripe reads it; `None` when it is not set.
    fn text(&self) -> Option<String>;
}

impl Scalar for String {
    fn text(&self) -> Option<String> {
        (!self.is_empty()).then(|| self.clone())
    }
}

impl Scalar for bool {
    fn text(&self) -> Option<String> {
        self.then(|| "true".to_owned())
    }
}

impl Scalar for i64 {
    fn text(&self) -> Option<String> {
        (*self != 0).then(|| self.to_string())
    }
}

impl Scalar for i32 {
    fn text(&self) -> Option<String> {
        i64::from(*self).text()
    }
}

impl Scalar for Option<String> {
    fn text(&self) -> Option<String> {
        self.clone()
    }
}

impl Scalar for Option<bool> {
    fn text(&self) -> Option<String> {
        self.map(|value| value.to_string())
    }
}

impl Scalar for Option<i64> {
    fn text(&self) -> Option<String> {
        self.map(|value| value.to_string())
    }
}

impl Scalar for Option<i32> {
    fn text(&self) -> Option<String> {
        self.map(|value| value.to_string())
    }
}

impl Scalar for Option<Timestamp> {
    fn text(&self) -> Option<String> {
        self.map(|instant| instant.seconds.to_string())
    }
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    encode_into(&mut encoded, text, b"-._~");
    encoded
}

fn encode_into(out: &mut String, text: &str, keep: &[u8]) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || keep.contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{CreateRefundRequest, ListRefundsRequest, OperationRef, RefundReason, TimeRange};

    fn body(message: &impl Form) -> String {
        Params::of(message).encode()
    }

    proptest::proptest! {
        #[test]
        fn what_was_encoded_is_read_back(pairs in proptest::collection::vec((".+", ".*"), 0..5)) {
            let mut params = Params::default();
            pairs.iter().for_each(|(name, value): &(String, String)| {
                params.push(name.as_str(), value.as_str(), Sensitivity::Public);
            });
            proptest::prop_assert_eq!(decode_form(&params.encode()), pairs);
        }
    }

    #[test]
    fn a_body_of_any_shape_is_read() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(decode_form("a+b=%41%zz&&c&=d"), [pair("a b", "A%zz"), pair("c", ""), pair("", "d")]);
        assert_eq!(decode_form("a=%"), [pair("a", "%")]);
    }

    #[test]
    fn local_fields_are_never_sent_and_absent_ones_left_out() {
        let request = CreateRefundRequest {
            operation: Some(OperationRef { order_id: "1001".into(), ..Default::default() }),
            account: "eu".into(),
            validate_only: true,
            payment_intent: Some("pi_1".into()),
            amount: Some(500),
            reason: RefundReason::RequestedByCustomer.into(),
            ..Default::default()
        };
        assert_eq!(body(&request), "payment_intent=pi_1&amount=500&reason=requested_by_customer");
    }

    #[test]
    fn present_and_empty_is_sent_as_the_empty_string() {
        let request = CreateRefundRequest {
            instructions_email: Some(String::new()),
            metadata: BTreeMap::from([("old".into(), String::new()), ("k & v".into(), "a=b".into())]),
            refund_application_fee: Some(false),
            ..Default::default()
        };
        assert_eq!(
            body(&request),
            "refund_application_fee=false&instructions_email=&metadata[k%20%26%20v]=a%3Db&metadata[old]="
        );
    }

    #[test]
    fn ranges_and_lists_are_nested_by_brackets() {
        let request = ListRefundsRequest {
            created: Some(TimeRange {
                gte: Some(Timestamp { seconds: 1, nanos: 0 }),
                lt: Some(Timestamp { seconds: 2, nanos: 0 }),
                ..Default::default()
            }),
            expand: vec!["data.charge".into(), "data.payment_intent".into()],
            page_size: 7,
            ..Default::default()
        };
        assert_eq!(
            body(&request),
            "created[gte]=1&created[lt]=2&expand[0]=data.charge&expand[1]=data.payment_intent"
        );
    }
}
