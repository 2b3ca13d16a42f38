//! Writes the decoding of Stripe's JSON into response messages.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::model::{Contract, Shape, ident, in_oneof, is_timestamp, rust, shape, stripe_name};

/// The message that holds any of Stripe's objects, each under the name that Stripe has for it.
const ANY_OBJECT: &str = "tollgate.v1.StripeObject";

/// `FromStripe` for every message that is received, and the way from an object of any kind to its message.
pub(crate) fn all(contract: &Contract) -> String {
    let messages: String = contract.received.values().map(message).collect();
    messages + &typed(contract)
}

fn typed(contract: &Contract) -> String {
    let pool = contract.received.values().next().map(MessageDescriptor::parent_pool);
    let any = pool.and_then(|pool| pool.get_message_by_name(ANY_OBJECT));
    let any = any.unwrap_or_else(|| panic!("the contract has no `{ANY_OBJECT}`"));
    let arms: String = any
        .fields()
        .filter_map(|field| match field.kind() {
            Kind::Message(message) => Some(format!(
                "        {:?} => stripe_object::Object::{}(Box::new(FromStripe::from_stripe(value)?)),\n",
                stripe_name(&field),
                message.name()
            )),
            _ => None,
        })
        .collect();
    format!(
        "/// The object in the contract's own terms; `None` for a kind that the contract does not have.\n///\n/// # Errors\n/// When it does not have the shape that the contract knows.\npub fn typed(value: &Value) -> Result<Option<crate::proto::v1::StripeObject>, Undecodable> {{\n    use crate::proto::v1::stripe_object;\n    let object = match value.get(\"object\").and_then(Value::as_str).unwrap_or_default() {{\n{arms}        _ => return Ok(None),\n    }};\n    Ok(Some(crate::proto::v1::StripeObject {{ object: Some(object) }}))\n}}\n"
    )
}

fn message(descriptor: &MessageDescriptor) -> String {
    let fields: String = descriptor
        .fields()
        .filter(|field| !in_oneof(field))
        .map(|field| format!("            {}: {},\n", ident(&field), value(descriptor, &field)))
        .collect();
    format!(
        "impl FromStripe for {} {{\n    const IS_OBJECT: bool = true;\n\n    fn from_stripe(value: &Value) -> Result<Self, Undecodable> {{\n        let object = Object::of(value)?;\n        let _ = &object;\n        Ok(Self {{\n{fields}        }})\n    }}\n}}\n",
        rust(descriptor.name())
    )
}

fn value(message: &MessageDescriptor, field: &FieldDescriptor) -> String {
    let name = stripe_name(field);
    if let Some(twin) = field.name().strip_suffix("_raw").and_then(|of| message.get_field_by_name(of))
        && let Kind::Enum(kind) = twin.kind()
    {
        let many = if shape(&twin) == Shape::Repeated { "unknown_names" } else { "unknown_name" };
        return format!("object.{many}::<{}>({:?})?", rust(kind.name()), stripe_name(&twin));
    }
    match (field.kind(), shape(field)) {
        (Kind::Enum(kind), Shape::Repeated) => {
            format!("object.enums::<{}>({name:?})?", rust(kind.name()))
        }
        (Kind::Enum(kind), Shape::Optional) => {
            format!("Some(object.enumeration::<{}>({name:?})?)", rust(kind.name()))
        }
        (Kind::Enum(kind), _) => format!("object.enumeration::<{}>({name:?})?", rust(kind.name())),
        _ if is_timestamp(field) && shape(field) == Shape::Optional => format!("object.instant({name:?})?"),
        _ => format!("object.field({name:?})?"),
    }
}
