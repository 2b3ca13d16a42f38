//! Stripe's JSON as messages. Absent and null are the default, an unknown enum value is kept as text, a value of the
//! wrong type is an error: a guess would be a lie about money.

use std::collections::BTreeMap;

use prost_types::{ListValue, Struct, Timestamp, Value as ProtoValue, value::Kind};
use serde_json::Value;

use super::form::StripeEnum;
use crate::proto::v1::{CallInfo, Preview};

/// Stripe's JSON did not have the shape that the contract knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` in Stripe's answer is {found}, expected {expected}")]
pub struct Undecodable {
    /// Where in the JSON.
    pub path: String,
    /// What the contract knows.
    pub expected: &'static str,
    /// What was there.
    pub found: &'static str,
}

impl Undecodable {
    fn new(expected: &'static str, value: &Value) -> Self {
        Self { path: String::new(), expected, found: kind_of(value) }
    }

    fn under(mut self, name: &str) -> Self {
        self.path = match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{name}.{path}"),
        };
        self
    }
}

/// A value that can be read from Stripe's JSON.
pub trait FromStripe: Sized {
    /// Whether it stands as an object; a plain id in its place then means that it was not expanded.
    const IS_OBJECT: bool = false;

    /// Reads the value.
    ///
    /// # Errors
    /// When the JSON is of another type.
    fn from_stripe(value: &Value) -> Result<Self, Undecodable>;
}

/// A JSON object that is being read.
#[derive(Debug)]
pub struct Object<'a>(&'a serde_json::Map<String, Value>);

impl<'a> Object<'a> {
    /// Takes a value as an object.
    ///
    /// # Errors
    /// When it is none.
    pub fn of(value: &'a Value) -> Result<Self, Undecodable> {
        value.as_object().map(Self).ok_or_else(|| Undecodable::new("an object", value))
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Reads a member; absent and null are the default.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn field<T: FromStripe + Default>(&self, name: &str) -> Result<T, Undecodable> {
        match self.get(name) {
            Some(value) => T::from_stripe(value).map_err(|error| error.under(name)),
            None => Ok(T::default()),
        }
    }

    /// Reads an instant, in seconds since 1970; 0 stands for none.
    ///
    /// # Errors
    /// When it is not a whole number.
    pub fn instant(&self, name: &str) -> Result<Option<Timestamp>, Undecodable> {
        let seconds: i64 = self.field(name)?;
        Ok((seconds != 0).then_some(Timestamp { seconds, nanos: 0 }))
    }

    /// Reads an enum; unknown is 0.
    ///
    /// # Errors
    /// When it is not text.
    pub fn enumeration<E: StripeEnum>(&self, name: &str) -> Result<i32, Undecodable> {
        Ok(E::number(&self.field::<String>(name)?).unwrap_or_default())
    }

    /// Reads an enum's text if this build does not know it; empty otherwise.
    ///
    /// # Errors
    /// When it is not text.
    pub fn unknown_name<E: StripeEnum>(&self, name: &str) -> Result<String, Undecodable> {
        let text: String = self.field(name)?;
        Ok(if E::number(&text).is_some() { String::new() } else { text })
    }

    /// Reads a list of enums; unknown ones are left out.
    ///
    /// # Errors
    /// When it is not a list of texts.
    pub fn enums<E: StripeEnum>(&self, name: &str) -> Result<Vec<i32>, Undecodable> {
        Ok(self.field::<Vec<String>>(name)?.iter().filter_map(|text| E::number(text)).collect())
    }

    /// Reads the texts in a list of enums that this build does not know.
    ///
    /// # Errors
    /// When it is not a list of texts.
    pub fn unknown_names<E: StripeEnum>(&self, name: &str) -> Result<Vec<String>, Undecodable> {
        let mut texts: Vec<String> = self.field(name)?;
        texts.retain(|text| E::number(text).is_none());
        Ok(texts)
    }
}

/// What a response is built from.
#[derive(Debug, Default)]
pub struct Reply<'a> {
    /// Stripe's answer; absent for a preview.
    pub json: Option<&'a Value>,
    /// The answer as it came, where the caller asked for it.
    pub verbatim: Option<&'a str>,
    /// About the call.
    pub call: CallInfo,
    /// For `validate_only`.
    pub preview: Option<Preview>,
    /// Token of the next page.
    pub next_page_token: String,
}

impl Reply<'_> {
    /// The whole answer as one resource.
    ///
    /// # Errors
    /// When a value in it is of another type.
    pub fn object<T: FromStripe>(&self) -> Result<Option<T>, Undecodable> {
        self.json.map(T::from_stripe).transpose()
    }

    /// The items of a list or search answer.
    ///
    /// # Errors
    /// When a value in it is of another type.
    pub fn list<T: FromStripe>(&self) -> Result<Vec<T>, Undecodable> {
        self.member("data")
    }

    /// One member of the answer.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn member<T: FromStripe + Default>(&self, name: &str) -> Result<T, Undecodable> {
        self.json.map_or_else(|| Ok(T::default()), |json| Object::of(json)?.field(name))
    }

    /// The untouched answer, if it was asked for.
    #[must_use]
    pub fn stripe_json(&self) -> String {
        self.verbatim.unwrap_or_default().to_owned()
    }
}

impl FromStripe for String {
    /// Text, or the id of an object that was expanded where the contract has an id.
    fn from_stripe(value: &Value) -> Result<Self, Undecodable> {
        let id = value.as_str().or_else(|| value.get("id").and_then(Value::as_str));
        id.map(str::to_owned).ok_or_else(|| Undecodable::new("text", value))
    }
}

impl FromStripe for bool {
    fn from_stripe(value: &Value) -> Result<Self, Undecodable> {
        value.as_bool().ok_or_else(|| Undecodable::new("true or false", value))
    }
}

impl FromStripe for i64 {
    fn from_stripe(value: &Value) -> Result<Self, Undecodable> {
        value.as_i64().ok_or_else(|| Undecodable::new("a whole number", value))
    }
}

impl FromStripe for i32 {
    fn from_stripe(value: &Value) -> Result<Self, Undecodable> {
        let number = value.as_i64().and_then(|number| Self::try_from(number).ok());
        number.ok_or_else(|| Undecodable::new("a whole number of 32 bits", value))
    }
}

impl FromStripe for f64 {
    fn from_stripe(value: &Value) -> Result<Self, Undecodable> {
        value.as_f64().ok_or_else(|| Undecodable::new("a number", value))
    }
}

impl<T: FromStripe> FromStripe for Option<T> {
    fn from_stripe(value: &Value) -> Result<Self, Undecodable> {
        if value.is_null() || (T::IS_OBJECT && value.is_string()) {
            return Ok(None);
        }
        T::from_stripe(value).map(Some)
    }
}

impl<T: FromStripe> FromStripe for Box<T> {
    const IS_OBJECT: bool = T::IS_OBJECT;

    fn from_stripe(value: &Value) -> Result<Self, Undecodable> {
        T::from_stripe(value).map(Self::new)
    }
}

impl<T: FromStripe> FromStripe for Vec<T> {
    /// A list, or one of Stripe's list envelopes.
    fn from_stripe(value: &Value) -> Result<Self, Undecodable> {
        let items = value.as_array().or_else(|| value.get("data").and_then(Value::as_array));
        let items = items.ok_or_else(|| Undecodable::new("a list", value))?;
        let item = |(index, item)| T::from_stripe(item).map_err(|error| error.under(&format!("[{index}]")));
        items.iter().enumerate().map(item).collect()
    }
}

impl<T: FromStripe> FromStripe for BTreeMap<String, T> {
    fn from_stripe(value: &Value) -> Result<Self, Undecodable> {
        let object = Object::of(value)?;
        let member = |(name, value): (&String, &Value)| {
            Ok((name.clone(), T::from_stripe(value).map_err(|error| error.under(name))?))
        };
        object.0.iter().filter(|(_, value)| !value.is_null()).map(member).collect()
    }
}

impl FromStripe for Struct {
    const IS_OBJECT: bool = true;

    fn from_stripe(value: &Value) -> Result<Self, Undecodable> {
        let object = Object::of(value)?;
        Ok(Self { fields: object.0.iter().map(|(name, value)| (name.clone(), any(value))).collect() })
    }
}

fn any(value: &Value) -> ProtoValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(set) => Kind::BoolValue(*set),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(any).collect() }),
        Value::Object(object) => Kind::StructValue(Struct {
            fields: object.iter().map(|(name, value)| (name.clone(), any(value))).collect(),
        }),
    };
    ProtoValue { kind: Some(kind) }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::proto::v1::{Refund, RefundStatus};

    #[test]
    fn an_expanded_field_is_read_as_its_id_and_as_its_object() {
        let refund = Refund::from_stripe(&json!({
            "id": "re_1", "amount": 5, "charge": {"id": "ch_1", "object": "charge"},
            "balance_transaction": {"id": "txn_1", "object": "balance_transaction", "amount": -5}
        }))
        .unwrap();
        assert_eq!(refund.charge.as_deref(), Some("ch_1"));
        assert_eq!(refund.balance_transaction.as_deref(), Some("txn_1"));
        assert_eq!(refund.balance_transaction_object.unwrap().id, "txn_1");
        let plain = Refund::from_stripe(&json!({"id": "re_1", "balance_transaction": "txn_1"})).unwrap();
        assert_eq!(plain.balance_transaction_object, None);
    }

    #[test]
    fn an_unknown_enum_value_is_kept_as_text() {
        let refund = Refund::from_stripe(&json!({"status": "teleported"})).unwrap();
        assert_eq!((refund.status(), refund.status_raw.as_str()), (RefundStatus::Unspecified, "teleported"));
        let refund = Refund::from_stripe(&json!({"status": "succeeded"})).unwrap();
        assert_eq!((refund.status(), refund.status_raw.as_str()), (RefundStatus::Succeeded, ""));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named() {
        let error = Refund::from_stripe(&json!({"next_action": {"display_details": {"expires_at": "soon"}}}))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`next_action.display_details.expires_at` in Stripe's answer is text, expected a whole number"
        );
    }
}
