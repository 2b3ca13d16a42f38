//! Writes what policies can speak of: the schema in Cedar's language, and the table of actions by which a call becomes
//! a question. Groups and attributes follow from options and types, so a new RPC has its action by itself.

use prost_reflect::{FieldDescriptor, Kind};

use super::Result;
use super::form::path_fields;
use super::model::{
    Contract, Method, Service, Shape, extension, flag, in_oneof, is_sent, number, rules, sensitivity, shape,
    stripe_name,
};

/// Entities, and the groups that hold actions of many services.
const HEAD: &str = r#"// What a policy can speak of, generated from the contract.

// A team or kind of callers, named by `callers.NAME.groups`.
entity Group;

// Who calls: its name, the namespace of its order ids, and how it proved who it is: `token`, `certificate`, `jwt` or
// `loopback`.
entity Caller in [Group] {
  namespace: String,
  credential: String,
};

// The Stripe account that a call is for, by its alias: its id `acct_...`, and `test` or `live`.
entity Account {
  id: String,
  mode: String,
};

// The caller's own keys and values on an order, as this call sends them.
entity Metadata tags String;

// Changes nothing.
action "read";
// Changes something at Stripe.
action "change";
// Changes something other than money.
action "write" in ["change"];
// Moves or commits money.
action "money" in ["change"];
// Creates something that may safely exist twice, such as an uploaded file.
action "repeatable" in ["change"];
// Keeps or changes what is the caller's own at the gateway, such as its subscriptions, and nothing at Stripe.
action "own";
// Sees or changes the gateway itself, beyond the caller's own namespace.
action "admin";
"#;

/// Rights that are no RPC: name, groups, the attributes of their context.
const RIGHTS: &[(&str, &[&str], &str, &str)] = &[
    (
        "EventService.ReceiveEvent",
        &["EventService", "read"],
        "    event_type: String,\n",
        "A stream or a list may show an event of this type; asked for each event.",
    ),
    (
        "EventService.SeeEveryCause",
        &["EventService", "admin"],
        "",
        "Events say which call caused them for other namespaces too.",
    ),
    (
        "AuditService.ReadEveryNamespace",
        &["AuditService", "admin"],
        "",
        "Audit records of other namespaces are shown too.",
    ),
];

/// Names in a context that a request's field must not take.
const RESERVED: [&str; 4] = ["order_id", "operation_id", "metadata", "event_type"];

/// One attribute of a context.
struct Attribute {
    name: String,
    kind: &'static str,
    required: bool,
}

/// The schema, and the table of actions.
pub(crate) fn all(contract: &Contract) -> Result<(String, String)> {
    let (mut schema, mut table) = (HEAD.to_owned(), String::new());
    for service in &contract.services {
        schema.push_str(&format!("\n// Every action of {0}.\naction \"{0}\";\n", service.name));
        for method in &service.methods {
            let (text, row) = action(service, method)?;
            schema.push_str(&text);
            table.push_str(&row);
        }
    }
    for (name, groups, attributes, about) in RIGHTS {
        schema.push_str(&declaration(name, groups, attributes, about));
        let receives = attributes.contains("event_type");
        table.push_str(&row(name, groups, [false, false, receives, false], &[]));
    }
    let table = format!("/// Every action, RPCs first.\npub static ACTIONS: &[Action] = &[\n{table}];\n");
    Ok((schema, table))
}

fn action(service: &Service, method: &Method) -> Result<(String, String)> {
    let name = format!("{}.{}", service.name, method.name);
    let mut groups = vec![service.name.as_str()];
    groups.extend(classes(method));
    let mut attributes = Vec::new();
    let (mut ordered, mut tagged, mut money) = (false, false, false);
    if let Some(stripe) = &method.stripe {
        let request = method.request();
        ordered = request.get_field_by_name("operation").is_some();
        tagged = request.get_field_by_name("metadata").is_some_and(|field| field.is_map());
        money = stripe.has_field_by_name("money");
        let in_path = path_fields(&request);
        for field in request.fields().filter(is_sent) {
            attributes.extend(attribute(&field, in_path.contains(&field.name().to_owned()), money));
        }
        if money {
            for (missing, kind) in [("amount", "Long"), ("currency", "String")] {
                if !attributes.iter().any(|attribute| attribute.name == missing) {
                    attributes.push(Attribute { name: missing.to_owned(), kind, required: true });
                }
            }
        }
        if let Some(taken) = attributes.iter().find(|attribute| RESERVED.contains(&attribute.name.as_str())) {
            return Err(format!("{name}: `{}` means something else to policies", taken.name).into());
        }
    }
    let mut lines = String::new();
    if ordered {
        lines.push_str("    order_id: String,\n    operation_id: String,\n");
    }
    if tagged {
        lines.push_str("    metadata: Metadata,\n");
    }
    for Attribute { name, kind, required } in &attributes {
        lines.push_str(&format!("    {name}{}: {kind},\n", if *required { "" } else { "?" }));
    }
    let about = if money { "Amount and currency are read where the caller leaves them out." } else { "" };
    let text = declaration(&name, &groups, &lines, about);
    Ok((text, row(&name, &groups, [ordered, tagged, false, money], &attributes)))
}

/// The groups that say what an action does in the world.
fn classes(method: &Method) -> &'static [&'static str] {
    let Some(stripe) = &method.stripe else {
        let access =
            extension(method.descriptor.options(), "access").and_then(|value| value.as_enum_number());
        return match access {
            Some(1) => &["read"],
            Some(2) => &["own"],
            _ => &["admin"],
        };
    };
    match number(stripe, "effect") {
        Some(2) => &["write", "change"],
        Some(3) => &["money", "change"],
        Some(4) => &["repeatable", "change"],
        _ => &["read"],
    }
}

/// The attribute of a field that is one public value; others are not for policies.
fn attribute(field: &FieldDescriptor, in_path: bool, money: bool) -> Option<Attribute> {
    let single = matches!(shape(field), Shape::Singular | Shape::Optional) && !in_oneof(field);
    if !single || sensitivity(field) != "Sensitivity::Public" || flag(field, "inline") {
        return None;
    }
    let kind = match field.kind() {
        Kind::String | Kind::Enum(_) => "String",
        Kind::Int32 | Kind::Int64 => "Long",
        Kind::Bool => "Bool",
        _ => return None,
    };
    let name = stripe_name(field);
    let required = rules(field).is_some_and(|rules| number(&rules, "required") == Some(1));
    let read = money && ["amount", "currency"].contains(&name.as_str());
    Some(Attribute { name, kind, required: required || in_path || read })
}

fn declaration(name: &str, groups: &[&str], attributes: &str, about: &str) -> String {
    let groups: Vec<String> = groups.iter().map(|group| format!("\"{group}\"")).collect();
    let about = if about.is_empty() { String::new() } else { format!("// {about}\n") };
    let context = if attributes.is_empty() { "{}".to_owned() } else { format!("{{\n{attributes}  }}") };
    format!(
        "{about}action \"{name}\" in [{}] appliesTo {{\n  principal: [Caller],\n  resource: [Account],\n  context: {context},\n}};\n",
        groups.join(", ")
    )
}

fn row(name: &str, groups: &[&str], has: [bool; 4], attributes: &[Attribute]) -> String {
    let [ordered, tagged, receives, money] = has;
    let fields: Vec<String> = attributes
        .iter()
        .map(|attribute| {
            let kind = match attribute.kind {
                "Long" => "Number",
                "Bool" => "Flag",
                _ => "Text",
            };
            format!("(\"{}\", Kind::{kind})", attribute.name)
        })
        .collect();
    format!(
        "    Action {{ name: {name:?}, groups: &{groups:?}, ordered: {ordered}, tagged: {tagged}, receives: {receives}, money: {money}, fields: &[{}] }},\n",
        fields.join(", ")
    )
}
