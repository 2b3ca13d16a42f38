//! What the contract says, read once from the compiler's descriptors: services, methods, and the messages on each
//! side of Stripe.

use std::collections::BTreeMap;

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, ReflectMessage, Value,
};

use super::Result;

const PACKAGE: &str = "tollgate.v1";
const OPTIONS: &str = "tollgate.options.v1";

/// The whole contract.
pub(crate) struct Contract {
    pub(crate) services: Vec<Service>,
    /// Messages that are encoded for Stripe, by name.
    pub(crate) sent: BTreeMap<String, MessageDescriptor>,
    /// Messages that are checked on their way in, by name.
    pub(crate) checked: BTreeMap<String, MessageDescriptor>,
    /// Messages that are decoded from Stripe's JSON, by name.
    pub(crate) received: BTreeMap<String, MessageDescriptor>,
    pub(crate) enums: Vec<EnumDescriptor>,
}

/// One service and its methods.
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) methods: Vec<Method>,
}

/// One RPC; `stripe` is its mapping, absent where it is written by hand.
pub(crate) struct Method {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) descriptor: MethodDescriptor,
    pub(crate) stripe: Option<DynamicMessage>,
}

impl Contract {
    /// Reads the services of the package and follows their messages.
    pub(crate) fn read(pool: &DescriptorPool) -> Result<Self> {
        let mut contract = Self {
            services: Vec::new(),
            sent: BTreeMap::new(),
            checked: BTreeMap::new(),
            received: BTreeMap::new(),
            enums: pool.all_enums().filter(|e| e.package_name() == PACKAGE).collect(),
        };
        for service in pool.services().filter(|service| service.package_name() == PACKAGE) {
            let methods = service.methods().map(|descriptor| Method {
                service: service.name().to_owned(),
                name: descriptor.name().to_owned(),
                stripe: extension(descriptor.options(), "stripe")
                    .and_then(|value| value.as_message().cloned()),
                descriptor,
            });
            contract.services.push(Service { name: service.name().to_owned(), methods: methods.collect() });
        }
        for method in contract.services.iter().flat_map(|service| &service.methods) {
            collect(&method.descriptor.input(), &mut contract.checked, &|_| true);
            if method.stripe.is_some() {
                collect(&method.request(), &mut contract.sent, &is_sent);
                for field in method.descriptor.output().fields().filter(is_resource) {
                    collect_field(&field, &mut contract.received, &|_| true);
                }
            }
        }
        Ok(contract)
    }
}

impl Method {
    /// The message that holds the parameters: the request, or for a client stream the header that comes first in it.
    pub(crate) fn request(&self) -> MessageDescriptor {
        let input = self.descriptor.input();
        let header = input.fields().find_map(|field| match field.kind() {
            Kind::Message(message) if self.descriptor.is_client_streaming() => Some(message),
            _ => None,
        });
        header.unwrap_or(input)
    }
}

/// Whether a response's field carries Stripe's object rather than the gateway's account of the call.
pub(crate) fn is_resource(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(message) if !["CallInfo", "Preview"].contains(&message.name()))
}

fn collect(
    message: &MessageDescriptor,
    into: &mut BTreeMap<String, MessageDescriptor>,
    follow: &dyn Fn(&FieldDescriptor) -> bool,
) {
    let ours = message.package_name() == PACKAGE && !message.is_map_entry();
    if !ours || into.insert(message.name().to_owned(), message.clone()).is_some() {
        return;
    }
    for field in message.fields().filter(|field| follow(field)) {
        collect_field(&field, into, follow);
    }
}

fn collect_field(
    field: &FieldDescriptor,
    into: &mut BTreeMap<String, MessageDescriptor>,
    follow: &dyn Fn(&FieldDescriptor) -> bool,
) {
    if let Kind::Message(message) = field.kind() {
        collect(&message, into, follow);
    }
}

/// The value of one of our options, if it is set.
pub(crate) fn extension(options: DynamicMessage, name: &str) -> Option<Value> {
    let pool = options.descriptor().parent_pool().clone();
    let extension = pool.get_extension_by_name(&format!("{OPTIONS}.{name}"))?;
    options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned())
}

/// What the gateway checks of the field before it does anything else.
pub(crate) fn rules(field: &FieldDescriptor) -> Option<DynamicMessage> {
    extension(field.options(), "rules")?.as_message().cloned()
}

/// What to do in place of setting the field, where the gateway does not take it; empty where it does.
pub(crate) fn instead(field: &FieldDescriptor) -> String {
    rules(field).map(|rules| text(&rules, "instead")).unwrap_or_default()
}

/// Whether the field's value goes to Stripe.
pub(crate) fn is_sent(field: &FieldDescriptor) -> bool {
    !flag(field, "local") && instead(field).is_empty()
}

/// Whether a boolean field option is on.
pub(crate) fn flag(field: &FieldDescriptor, name: &str) -> bool {
    extension(field.options(), name).and_then(|value| value.as_bool()).unwrap_or_default()
}

/// The field's name at Stripe.
pub(crate) fn stripe_name(field: &FieldDescriptor) -> String {
    extension(field.options(), "name")
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_else(|| field.name().to_owned())
}

/// The field's sensitivity as a Rust path.
pub(crate) fn sensitivity(field: &FieldDescriptor) -> &'static str {
    match extension(field.options(), "sensitivity").and_then(|value| value.as_enum_number()) {
        Some(2) => "Sensitivity::Personal",
        Some(3) => "Sensitivity::Secret",
        _ => "Sensitivity::Public",
    }
}

/// The field's identifier in the generated struct.
pub(crate) fn ident(field: &FieldDescriptor) -> String {
    match field.name() {
        name @ ("type" | "match" | "ref" | "use" | "move" | "final" | "override") => format!("r#{name}"),
        name => name.to_owned(),
    }
}

/// The field's values as prost stores them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Singular,
    Optional,
    Repeated,
    Map,
}

/// How often the field occurs.
pub(crate) fn shape(field: &FieldDescriptor) -> Shape {
    if field.is_map() {
        Shape::Map
    } else if field.cardinality() == Cardinality::Repeated {
        Shape::Repeated
    } else if field.supports_presence() {
        Shape::Optional
    } else {
        Shape::Singular
    }
}

/// Whether the field is a `google.protobuf.Timestamp`.
pub(crate) fn is_timestamp(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp")
}

/// Whether the field belongs to a oneof that was written as one.
pub(crate) fn in_oneof(field: &FieldDescriptor) -> bool {
    field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic())
}

/// The Rust path of a message or enum of the package.
pub(crate) fn rust(name: &str) -> String {
    format!("crate::proto::v1::{name}")
}

/// `CreateRefund` as `create_refund`.
pub(crate) fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Text values of a repeated string field of an option message.
pub(crate) fn texts(message: &DynamicMessage, field: &str) -> Vec<String> {
    match message.get_field_by_name(field).as_deref() {
        Some(Value::List(values)) => {
            values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    }
}

/// The messages of a repeated field of an option message.
pub(crate) fn messages(message: &DynamicMessage, field: &str) -> Vec<DynamicMessage> {
    match message.get_field_by_name(field).as_deref() {
        Some(Value::List(values)) => values.iter().filter_map(|value| value.as_message().cloned()).collect(),
        _ => Vec::new(),
    }
}

/// Numbers of a repeated enum field of an option message.
pub(crate) fn numbers(message: &DynamicMessage, field: &str) -> Vec<usize> {
    match message.get_field_by_name(field).as_deref() {
        Some(Value::List(values)) => {
            values.iter().filter_map(|value| usize::try_from(value.as_enum_number()?).ok()).collect()
        }
        _ => Vec::new(),
    }
}

/// Text of a string field of an option message; empty when unset.
pub(crate) fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Number of an integer or enum field of an option message, if it is set.
pub(crate) fn number(message: &DynamicMessage, field: &str) -> Option<i64> {
    if !message.has_field_by_name(field) {
        return None;
    }
    match *message.get_field_by_name(field)? {
        Value::I64(number) => Some(number),
        Value::U32(number) => Some(i64::from(number)),
        Value::EnumNumber(number) => Some(i64::from(number)),
        Value::Bool(set) => Some(i64::from(set)),
        _ => None,
    }
}
