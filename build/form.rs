//! Writes the form encoding of request messages and the Stripe spelling of enums.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::model::{
    Contract, Shape, extension, flag, ident, in_oneof, is_sent, is_timestamp, rust, sensitivity, shape,
    stripe_name,
};

/// `Form` for every message that is sent, `StripeEnum` for every enum.
pub(crate) fn all(contract: &Contract) -> String {
    let messages = contract.sent.values().map(message);
    let enums = contract.enums.iter().map(|descriptor| {
        let prefix = format!("{}_", super::model::snake(descriptor.name()).to_uppercase());
        let values = descriptor.values().filter(|value| value.number() != 0).map(|value| {
            let text = extension(value.options(), "stripe_value")
                .and_then(|text| text.as_str().map(str::to_owned))
                .unwrap_or_else(|| value.name().trim_start_matches(&prefix).to_lowercase());
            format!("({text:?}, {})", value.number())
        });
        format!(
            "impl StripeEnum for {} {{\n    const VALUES: &'static [(&'static str, i32)] = &[{}];\n}}\n",
            rust(descriptor.name()),
            values.collect::<Vec<_>>().join(", ")
        )
    });
    messages.chain(enums).collect()
}

fn message(descriptor: &MessageDescriptor) -> String {
    let path = path_fields(descriptor);
    let fields: String = descriptor
        .fields()
        .filter(|field| is_sent(field) && !in_oneof(field) && !path.contains(&field.name().to_owned()))
        .map(|field| format!("        {}\n", line(&field)))
        .collect();
    format!(
        "impl Form for {} {{\n    fn form(&self, at: &Name, out: &mut Params) {{\n        let _ = (&at, &out);\n{fields}    }}\n}}\n",
        rust(descriptor.name())
    )
}

/// Names of the request's fields that stand in the path of its RPC.
pub(crate) fn path_fields(request: &MessageDescriptor) -> Vec<String> {
    let of_rpc = request.parent_pool().services().flat_map(|service| service.methods().collect::<Vec<_>>());
    of_rpc
        .filter(|method| method.input() == *request)
        .filter_map(|method| extension(method.options(), "stripe"))
        .filter_map(|stripe| {
            let stripe = stripe.as_message()?.clone();
            Some(super::methods::endpoint(&stripe).1)
        })
        .flat_map(|path| placeholders(&path))
        .collect()
}

/// The `{names}` in a path.
pub(crate) fn placeholders(path: &str) -> Vec<String> {
    path.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name.to_owned()).collect()
}

fn line(field: &FieldDescriptor) -> String {
    let (value, class) = (ident(field), sensitivity(field));
    let name = if flag(field, "inline") {
        "&at.inline()".to_owned()
    } else {
        format!("&at.field({:?})", stripe_name(field))
    };
    match (field.kind(), shape(field)) {
        (_, Shape::Map) => format!("out.map({name}, &self.{value}, {class});"),
        (Kind::Enum(kind), Shape::Repeated) => {
            format!("out.enums::<{}>({name}, &self.{value}, {class});", rust(kind.name()))
        }
        (Kind::Enum(kind), _) => {
            let number = if shape(field) == Shape::Optional { ".unwrap_or_default()" } else { "" };
            format!("out.enumeration::<{}>({name}, self.{value}{number}, {class});", rust(kind.name()))
        }
        (Kind::Message(_), Shape::Repeated) => format!("out.messages({name}, &self.{value}, {class});"),
        (Kind::Message(_), _) if !is_timestamp(field) => {
            let clearable = flag(field, "clearable");
            format!("out.message({name}, self.{value}.as_ref(), {clearable}, {class});")
        }
        (_, Shape::Repeated) => format!("out.scalars({name}, &self.{value}, {class});"),
        _ => format!("out.scalar({name}, &self.{value}, {class});"),
    }
}
