//! Writes the checks that the contract's field rules demand.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::model::{
    Contract, Shape, extension, flag, ident, in_oneof, instead, is_timestamp, number, rules, rust, shape,
    text, texts,
};

/// `Check` for every message that comes in.
pub(crate) fn all(contract: &Contract) -> String {
    contract.checked.values().map(message).collect()
}

fn message(descriptor: &MessageDescriptor) -> String {
    let mut lines: Vec<String> =
        descriptor.fields().filter(|field| !in_oneof(field)).flat_map(|field| checks(&field)).collect();
    if let Some(Value::List(groups)) = extension(descriptor.options(), "exactly_one") {
        for group in groups.iter().filter_map(Value::as_message) {
            lines.push(exactly_one(descriptor, group));
        }
    }
    let body: String = lines.iter().map(|line| format!("        {line}\n")).collect();
    format!(
        "impl Check for {} {{\n    fn check(&self, at: &FieldPath, out: &mut Violations) {{\n        let _ = (&at, &out);\n{body}    }}\n}}\n",
        rust(descriptor.name())
    )
}

fn checks(field: &FieldDescriptor) -> Vec<String> {
    let rules = rules(field);
    let (name, path) = (ident(field), format!("&at.field({:?})", field.name()));
    let mut lines = Vec::new();
    if let Some(rules) = &rules {
        if number(rules, "required") == Some(1) {
            lines.push(format!("out.required({path}, {});", is_set(field)));
        }
        let instead = instead(field);
        if !instead.is_empty() {
            lines.push(format!("out.not_taken({path}, {}, {instead:?});", is_set(field)));
        }
        lines.extend(value_rules(field, rules, &path));
    }
    match (field.kind(), shape(field)) {
        (Kind::Enum(kind), Shape::Repeated) => {
            lines.push(format!("out.enums::<{}>({path}, &self.{name});", rust(kind.name())));
        }
        (Kind::Enum(kind), of) => {
            let number = if of == Shape::Optional { ".unwrap_or_default()" } else { "" };
            lines.push(format!("out.enums::<{}>({path}, &[self.{name}{number}]);", rust(kind.name())));
        }
        (Kind::Message(_), Shape::Map) => {}
        (Kind::Message(kind), Shape::Repeated) if kind.package_name() == "tollgate.v1" => {
            lines.push(format!("out.messages({path}, &self.{name});"));
        }
        (Kind::Message(kind), _) if kind.package_name() == "tollgate.v1" => {
            let clearable = flag(field, "clearable");
            lines.push(format!("out.message({path}, self.{name}.as_ref(), {clearable});"));
        }
        _ if is_timestamp(field) && shape(field) == Shape::Optional => {
            lines.push(format!("out.instant({path}, self.{name}.as_ref());"));
        }
        _ => {}
    }
    lines
}

fn value_rules(field: &FieldDescriptor, rules: &DynamicMessage, path: &str) -> Vec<String> {
    let name = ident(field);
    let limit = |of: &str| number(rules, of).unwrap_or(0);
    let mut lines = Vec::new();
    if shape(field) == Shape::Repeated && limit("max_items") + limit("min_items") > 0 {
        let (min, max) = (limit("min_items"), limit("max_items"));
        lines.push(format!("out.items({path}, self.{name}.len(), {min}, {max});"));
    }
    if limit("format") == 4 {
        lines.push(format!("out.metadata({path}, &self.{name});"));
    } else if field.kind() == Kind::String && limit("max_len") + limit("min_len") + limit("format") > 0 {
        let rule = format!(
            "TextRule {{ chars_min: {}, chars_max: {}, format: Format::{} }}",
            limit("min_len"),
            limit("max_len"),
            ["Any", "OrderId", "StripeId", "Currency", "Any", "UpperAlphanumeric"][limit("format") as usize]
        );
        let values = match shape(field) {
            Shape::Optional => format!("self.{name}.as_slice()"),
            Shape::Repeated => format!("&self.{name}"),
            _ => format!("std::slice::from_ref(&self.{name})"),
        };
        lines.push(format!("out.texts({path}, {values}, &{rule});"));
    }
    let (gte, lte) = (number(rules, "gte"), number(rules, "lte"));
    if gte.is_some() || lte.is_some() {
        let value = if shape(field) == Shape::Optional {
            format!("self.{name}.map(i64::from)")
        } else {
            format!("Some(i64::from(self.{name}))")
        };
        lines.push(format!("out.range({path}, {value}, {gte:?}, {lte:?});"));
    }
    lines
}

/// A Rust condition that holds when the field is set to something.
fn is_set(field: &FieldDescriptor) -> String {
    let name = ident(field);
    match (field.kind(), shape(field)) {
        (Kind::String, Shape::Optional) => {
            format!("self.{name}.as_deref().is_some_and(|text| !text.is_empty())")
        }
        (_, Shape::Optional) => format!("self.{name}.is_some()"),
        (Kind::Enum(_), Shape::Singular) => format!("self.{name} != 0"),
        (Kind::Int32 | Kind::Int64, Shape::Singular) => format!("self.{name} != 0"),
        _ => format!("!self.{name}.is_empty()"),
    }
}

fn exactly_one(descriptor: &MessageDescriptor, group: &DynamicMessage) -> String {
    let field = |name: &str| {
        descriptor.get_field_by_name(name).unwrap_or_else(|| panic!("no field `{name}` in {descriptor:?}"))
    };
    let fields = texts(group, "fields");
    let set: Vec<String> =
        fields.iter().map(|name| format!("({name:?}, {})", is_set(&field(name)))).collect();
    let unless = text(group, "unless");
    let skip = if unless.is_empty() { "false".to_owned() } else { is_set(&field(&unless)) };
    format!("out.exactly_one(at, &[{}], {skip});", set.join(", "))
}
