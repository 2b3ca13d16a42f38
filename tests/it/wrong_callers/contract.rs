//! Every RPC there is, with a request that would be carried out if the right caller sent it. It knows options and types
//! of the contract, and no RPC by its name, so that a new one is covered without anybody's doing.

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    MethodDescriptor, Value,
};

use crate::crash::random::Random;

/// Package of the services that need a known caller.
const PACKAGE: &str = "tollgate.v1";
/// The largest amount of a request, in the smallest unit of its currency.
const AMOUNT_MAX: u64 = 1_000;

/// What a call does, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// Reads at Stripe or in the gateway.
    Reads,
    /// Changes something at Stripe.
    Changes,
    /// Keeps or changes what is the caller's own at the gateway.
    Keeps,
    /// Sees or changes the gateway itself.
    Operates,
}

/// One RPC.
#[derive(Clone, Debug)]
pub(super) struct Rpc {
    method: MethodDescriptor,
    options: Options,
    pub(super) does: Does,
}

/// The contract's own options.
#[derive(Clone, Debug)]
struct Options {
    stripe: ExtensionDescriptor,
    access: ExtensionDescriptor,
    rules: ExtensionDescriptor,
    exactly_one: ExtensionDescriptor,
}

/// Every RPC of the contract.
pub(super) fn all() -> Vec<Rpc> {
    let pool = DescriptorPool::decode(tollgate::proto::DESCRIPTORS).unwrap();
    let option = |name: &str| pool.get_extension_by_name(&format!("tollgate.options.v1.{name}")).unwrap();
    let options = Options {
        stripe: option("stripe"),
        access: option("access"),
        rules: option("rules"),
        exactly_one: option("exactly_one"),
    };
    let services = pool.services().filter(|service| service.package_name() == PACKAGE);
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.map(|method| Rpc { does: options.does(&method), method, options: options.clone() }).collect()
}

impl Rpc {
    /// `Service.Rpc`.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.method.parent_service().name(), self.method.name())
    }

    /// Its name in the audit log.
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.method.parent_service().full_name(), self.method.name())
    }

    /// Its place on the wire.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.full_name())
    }

    /// Whether its requests have a field of this name.
    pub(super) fn takes(&self, field: &str) -> bool {
        self.method.input().get_field_by_name(field).is_some()
    }

    /// The reference of a change of this order, for its field `operation`.
    pub(super) fn operation(&self, order: &str) -> Value {
        let field = self.method.input().get_field_by_name("operation").unwrap();
        let mut reference = DynamicMessage::new(field.kind().as_message().unwrap().clone());
        reference.set_field_by_name("order_id", Value::String(order.to_owned()));
        Value::Message(reference)
    }

    /// A request that the gateway finds nothing wrong with, with `set` put into its fields of these names. Where the caller
    /// streams, there is one message for each part of which a message has one.
    pub(super) fn request(&self, random: &mut Random, set: &[(&str, Value)]) -> Vec<Vec<u8>> {
        let input = self.method.input();
        if self.method.is_client_streaming() {
            let part = |field: FieldDescriptor| {
                let mut message = DynamicMessage::new(input.clone());
                message.set_field(&field, self.options.value(&field, random));
                message.encode_to_vec()
            };
            return input.fields().map(part).collect();
        }
        let names: Vec<&str> = set.iter().map(|(name, _)| *name).collect();
        let mut message = self.options.fill(&input, &names, random);
        for (name, value) in set {
            message.set_field_by_name(name, value.clone());
        }
        vec![message.encode_to_vec()]
    }

    /// The text of a field of an answer.
    pub(super) fn answered(&self, answer: &[u8], field: &str) -> Option<String> {
        let answer = DynamicMessage::decode(self.method.output(), answer).ok()?;
        let value = answer.get_field_by_name(field)?;
        value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }
}

impl Options {
    fn does(&self, method: &MethodDescriptor) -> Does {
        let options = method.options();
        if !options.has_extension(&self.stripe) {
            return match options.get_extension(&self.access).as_enum_number() {
                Some(1) => Does::Reads,
                Some(2) => Does::Keeps,
                _ => Does::Operates,
            };
        }
        let stripe = options.get_extension(&self.stripe);
        let effect = member(stripe.as_message().unwrap(), "effect").as_enum_number().unwrap();
        if effect == 1 { Does::Reads } else { Does::Changes }
    }

    /// A message with everything that has to be there besides the fields that `given` names.
    fn fill(&self, message: &MessageDescriptor, given: &[&str], random: &mut Random) -> DynamicMessage {
        let mut filled = DynamicMessage::new(message.clone());
        let chosen = self.chosen(message, given);
        for field in message.fields() {
            let in_choice = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
            let first = in_choice.and_then(|oneof| oneof.fields().next()).is_some_and(|first| first == field);
            if first || chosen.iter().any(|name| name == field.name()) || self.required(&field) {
                filled.set_field(&field, self.value(&field, random));
            }
        }
        filled
    }

    /// The first field of each group of which exactly one has to be set and none is given.
    fn chosen(&self, message: &MessageDescriptor, given: &[&str]) -> Vec<String> {
        let options = message.options();
        let groups = options.get_extension(&self.exactly_one).as_list().unwrap().to_vec();
        let first = |group: &Value| {
            let fields = member(group.as_message().unwrap(), "fields").as_list().unwrap().to_vec();
            let names: Vec<&str> = fields.iter().map(|field| field.as_str().unwrap()).collect();
            let open = names.iter().all(|name| !given.contains(name));
            open.then(|| names.first().unwrap().to_string())
        };
        groups.iter().filter_map(first).collect()
    }

    fn required(&self, field: &FieldDescriptor) -> bool {
        self.rule(field, "required").as_bool().unwrap()
    }

    fn rule(&self, field: &FieldDescriptor, name: &str) -> Value {
        let options = field.options();
        let rules = options.get_extension(&self.rules);
        member(rules.as_message().unwrap(), name)
    }

    fn value(&self, field: &FieldDescriptor, random: &mut Random) -> Value {
        if field.is_map() {
            return Value::Map(
                [(MapKey::String("key".to_owned()), Value::String("value".to_owned()))].into(),
            );
        }
        let one = self.single(field, random);
        if field.is_list() { Value::List(vec![one]) } else { one }
    }

    fn single(&self, field: &FieldDescriptor, random: &mut Random) -> Value {
        let number = random.below(AMOUNT_MAX) + 1;
        match field.kind() {
            Kind::String => Value::String(self.text(field, number)),
            Kind::Bytes => Value::Bytes(b"content".to_vec().into()),
            Kind::Bool => Value::Bool(true),
            Kind::Enum(kind) => Value::EnumNumber(kind.values().nth(1).unwrap().number()),
            Kind::Message(message) => Value::Message(self.fill(&message, &[], random)),
            Kind::Int32 | Kind::Sint32 => Value::I32(1),
            Kind::Uint32 => Value::U32(1),
            Kind::Int64 | Kind::Sint64 => Value::I64(i64::try_from(number).unwrap()),
            Kind::Uint64 => Value::U64(number),
            other => panic!("no value of `{other:?}` is known for `{}`", field.full_name()),
        }
    }

    /// A text of the form that the field asks for.
    fn text(&self, field: &FieldDescriptor, number: u64) -> String {
        let format = self.rule(field, "format").as_enum_number().unwrap();
        let len_min = usize::try_from(self.rule(field, "min_len").as_u32().unwrap()).unwrap();
        match (field.name(), format) {
            ("month", _) => "2020-01".to_owned(),
            ("rpc", _) => "RefundService/CreateRefund".to_owned(),
            (_, 1) => format!("order-{number}"),
            (_, 2) => format!("id_{number}"),
            (_, 3) => "usd".to_owned(),
            (_, 5) => format!("A{number}"),
            _ => format!("{number:0len_min$}"),
        }
    }
}

fn member(message: &DynamicMessage, name: &str) -> Value {
    message.get_field_by_name(name).unwrap().into_owned()
}
