//! Writes the decoding of Stripe's JSON into response messages.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::model::{Contract, Shape, ident, in_oneof, is_timestamp, rust, shape, stripe_name};

/// `FromStripe` for every message that is received.
pub(crate) fn all(contract: &Contract) -> String {
    contract.received.values().map(message).collect()
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
