//! Makes the fullest requests that a method takes, from the contract's descriptors alone: every field set, every
//! exclusive group once with each of its choices. It knows the names of fields, never a method's.

use prost_reflect::{
    Cardinality, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, MethodDescriptor,
    ReflectMessage as _, Value,
};

const OPTIONS: &str = "tollgate.options.v1";
/// An instant in the future that fits every rule, in Unix seconds.
const FUTURE_S: i64 = 1_900_000_000;
const FORMAT_STRIPE_ID: i32 = 2;
const FORMAT_CURRENCY: i32 = 3;
const FORMAT_UPPER_ALPHANUMERIC: i32 = 5;

/// What the values of a request follow.
struct Filling<'a> {
    /// Path at Stripe, which tells what `id` is the id of.
    path: &'a str,
    /// Names the operation.
    order: &'a str,
    /// Which choice every exclusive group takes, modulo the number of its choices.
    choice: usize,
}

/// One request for each choice of the method's exclusive groups.
pub(crate) fn fullest(method: &MethodDescriptor, path: &str) -> Vec<DynamicMessage> {
    let input = method.input();
    (0..choices(&input).max(1))
        .map(|choice| {
            let order = format!("conformance-{}-{choice}", method.name());
            fill(&input, &Filling { path, order: &order, choice })
        })
        .collect()
}

/// An exclusive group's fields, and the field that suspends it.
fn groups(message: &MessageDescriptor) -> Vec<(Vec<String>, String)> {
    let options = message.options();
    let pool = options.descriptor().parent_pool().clone();
    let extension = pool.get_extension_by_name(&format!("{OPTIONS}.exactly_one")).unwrap();
    let groups = options.get_extension(&extension);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let read = |group: &Value| {
        let group = group.as_message().unwrap();
        let fields = group.get_field_by_name("fields").unwrap();
        let fields = fields.as_list().unwrap().iter().map(text).collect();
        (fields, text(&group.get_field_by_name("unless").unwrap()))
    };
    groups.as_list().unwrap().iter().map(read).collect()
}

fn choices(message: &MessageDescriptor) -> usize {
    groups(message)
        .iter()
        .map(|(fields, unless)| fields.len() + usize::from(!unless.is_empty()))
        .max()
        .unwrap_or(0)
}

/// The fields that this choice leaves out.
fn left_out(message: &MessageDescriptor, choice: usize) -> Vec<String> {
    let mut out = Vec::new();
    for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
        let others = oneof.fields().enumerate().filter(|(at, _)| *at != choice % oneof.fields().len());
        out.extend(others.map(|(_, field)| field.name().to_owned()));
    }
    for (fields, unless) in groups(message) {
        let all = fields.len() + usize::from(!unless.is_empty());
        let taken = choice % all;
        out.extend(fields.iter().enumerate().filter(|(at, _)| *at != taken).map(|(_, field)| field.clone()));
        if taken < fields.len() && !unless.is_empty() {
            out.push(unless);
        }
    }
    out
}

fn fill(message: &MessageDescriptor, filling: &Filling<'_>) -> DynamicMessage {
    let mut filled = DynamicMessage::new(message.clone());
    let out = left_out(message, filling.choice);
    for field in message.fields() {
        // A token must be one that was handed out, and a preview sends nothing.
        let for_later = ["page_token", "validate_only", "account"].contains(&field.name());
        if for_later || !is_taken(&field) || out.iter().any(|name| name == field.name()) {
            continue;
        }
        if let Some(value) = value(&field, filling) {
            filled.set_field(&field, value);
        }
    }
    filled
}

fn value(field: &FieldDescriptor, filling: &Filling<'_>) -> Option<Value> {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { unreachable!() };
        let of = single(&entry.map_entry_value_field(), filling)?;
        return Some(Value::Map([(MapKey::String("ticket".into()), of)].into()));
    }
    if field.cardinality() == Cardinality::Repeated {
        if field.name() == "expand" {
            let paths = expandable(filling.path)?;
            return Some(Value::List(vec![Value::String(paths)]));
        }
        let items = rule(field, "min_items").unwrap_or(0).max(1);
        return (0..items).map(|_| single(field, filling)).collect::<Option<Vec<_>>>().map(Value::List);
    }
    single(field, filling)
}

fn single(field: &FieldDescriptor, filling: &Filling<'_>) -> Option<Value> {
    Some(match field.kind() {
        Kind::Bool => Value::Bool(true),
        Kind::Int32 | Kind::Sint32 => Value::I32(i32::try_from(number(field)).unwrap()),
        Kind::Int64 | Kind::Sint64 => Value::I64(number(field)),
        Kind::Uint32 => Value::U32(u32::try_from(number(field)).unwrap()),
        Kind::Uint64 => Value::U64(u64::try_from(number(field)).unwrap()),
        Kind::Double => Value::F64(1.5),
        Kind::String => Value::String(text(field, filling)),
        Kind::Bytes => Value::Bytes("x".into()),
        Kind::Enum(of) => {
            Value::EnumNumber(of.values().map(|value| value.number()).find(|number| *number != 0)?)
        }
        Kind::Message(of) if of.full_name() == "google.protobuf.Timestamp" => {
            let mut instant = DynamicMessage::new(of);
            instant.set_field_by_name("seconds", Value::I64(FUTURE_S));
            Value::Message(instant)
        }
        Kind::Message(of) => Value::Message(fill(&of, filling)),
        other => panic!("no value for a field of kind {other:?}"),
    })
}

/// Whether the gateway takes the field at all.
fn is_taken(field: &FieldDescriptor) -> bool {
    rules(field).is_none_or(|rules| !rules.has_field_by_name("instead"))
}

fn rules(field: &FieldDescriptor) -> Option<DynamicMessage> {
    let options = field.options();
    let extension =
        options.descriptor().parent_pool().get_extension_by_name(&format!("{OPTIONS}.rules")).unwrap();
    if !options.has_extension(&extension) {
        return None;
    }
    options.get_extension(&extension).as_message().cloned()
}

/// A rule of the field as a number, if it has it.
fn rule(field: &FieldDescriptor, name: &str) -> Option<i64> {
    let rules = rules(field)?;
    if !rules.has_field_by_name(name) {
        return None;
    }
    match *rules.get_field_by_name(name)? {
        Value::U32(number) => Some(number.into()),
        Value::I64(number) => Some(number),
        Value::EnumNumber(number) => Some(number.into()),
        _ => None,
    }
}

fn number(field: &FieldDescriptor) -> i64 {
    let usual = if field.name() == "page_size" { 3 } else { 100 };
    let usual = rule(field, "lte").map_or(usual, |lte| usual.min(lte));
    rule(field, "gte").map_or(usual, |gte| usual.max(gte))
}

fn text(field: &FieldDescriptor, filling: &Filling<'_>) -> String {
    let format = rule(field, "format").and_then(|format| i32::try_from(format).ok());
    let name = field.name();
    let text = match (format, name) {
        (Some(FORMAT_CURRENCY), _) | (_, "currency") => "usd".to_owned(),
        (Some(FORMAT_UPPER_ALPHANUMERIC), _) => "TOLLGATE".to_owned(),
        (_, "order_id") => filling.order.to_owned(),
        (_, "operation_id") => "first".to_owned(),
        (_, "query") => "metadata['ticket']:'7'".to_owned(),
        (_, "country") => "DE".to_owned(),
        (_, "preferred_locales") => "de-AT".to_owned(),
        (_, name) if name.contains("email") => "jenny@example.com".to_owned(),
        (_, name) if name.ends_with("url") || name == "url" => "https://example.com/x".to_owned(),
        (_, name) if name.ends_with("_ip") || name == "ip_address" => "203.0.113.7".to_owned(),
        (_, name) if name.ends_with("phone") => "+4315550100".to_owned(),
        (_, name) if name.ends_with("_date") => "2026-10-28".to_owned(),
        (_, "amount_tax_display") => "exclude_tax".to_owned(),
        (_, "type") => kind(field, filling.path).to_owned(),
        (_, "preferred") => "visa".to_owned(),
        (Some(FORMAT_STRIPE_ID), name) => {
            id(name, filling.path).unwrap_or_else(|| "obj_1Conformance".to_owned())
        }
        (_, name) => id(name, filling.path).unwrap_or_else(|| "some text".to_owned()),
    };
    let longest = rule(field, "max_len").and_then(|len| usize::try_from(len).ok()).filter(|len| *len > 0);
    let shortest = rule(field, "min_len").and_then(|len| usize::try_from(len).ok()).unwrap_or_default();
    let text: String = text.chars().take(longest.unwrap_or(usize::MAX)).collect();
    format!("{text:0<shortest$}")
}

/// A kind of what is asked for, where the contract leaves the kinds to Stripe.
fn kind(field: &FieldDescriptor, path: &str) -> &'static str {
    let of = field.parent_message();
    if path.contains("tax_ids") || of.name().contains("TaxId") {
        "eu_vat"
    } else if path.contains("payment_methods") {
        "card"
    } else {
        "charge"
    }
}

/// An id for fields that are called after what they name.
fn id(name: &str, path: &str) -> Option<String> {
    let named = match name {
        "id" => path
            .split('/')
            .rev()
            .find(|part| !part.starts_with('{') && PREFIXES.iter().any(|(of, _)| of == part))?,
        name => name,
    };
    let (_, prefix) = PREFIXES.iter().find(|(of, _)| *of == named)?;
    Some(format!("{prefix}_1Conformance"))
}

const PREFIXES: &[(&str, &str)] = &[
    ("balance_transactions", "txn"),
    ("charge", "ch"),
    ("charges", "ch"),
    ("customer", "cus"),
    ("customer_account", "acct"),
    ("customers", "cus"),
    ("default_payment_method", "pm"),
    ("disputes", "dp"),
    ("early_fraud_warnings", "issfr"),
    ("files", "file"),
    ("payment_intent", "pi"),
    ("payment_intents", "pi"),
    ("payment_method", "pm"),
    ("payment_methods", "pm"),
    ("payout", "po"),
    ("refunds", "re"),
    ("source", "src"),
    ("tax_ids", "txi"),
    ("test_clock", "clock"),
    ("transfer_group", "group"),
];

/// A field that Stripe can return whole, for the object at this path; lists name it below `data`.
fn expandable(path: &str) -> Option<String> {
    let (_, field) = [
        ("/refunds", "balance_transaction"),
        ("/charges", "balance_transaction"),
        ("/disputes", "charge"),
        ("/payment_intents", "customer"),
        ("/payment_methods", "customer"),
        ("/tax_ids", "customer"),
        ("/balance_transactions", "source"),
        ("/cash_balance", ""),
        ("/customers", "default_source"),
        ("/files", "links"),
    ]
    .into_iter()
    .find(|(part, _)| path.contains(part))?;
    let field =
        if path.contains("customers/") && path.contains("balance_transactions") { "customer" } else { field };
    let list = path.ends_with('s') || path.ends_with("/search");
    (!field.is_empty()).then(|| if list { format!("data.{field}") } else { field.to_owned() })
}
