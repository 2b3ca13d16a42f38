//! Writes the method table: one type per annotated RPC, with its mapping to Stripe and the way from request to
//! response.

use prost_reflect::{DynamicMessage, Kind, MessageDescriptor};

use super::Result;
use super::form::placeholders;
use super::model::{
    Contract, Method, Service, Shape, is_resource, messages, number, numbers, rust, shape, text, texts,
};

/// The types of one service's annotated RPCs.
pub(crate) fn service(service: &Service) -> Result<String> {
    let annotated = service.methods.iter().filter_map(|method| Some((method, method.stripe.as_ref()?)));
    annotated.map(|(method, stripe)| one(method, stripe)).collect()
}

/// The table of all annotated RPCs.
pub(crate) fn table(contract: &Contract) -> String {
    let annotated = contract.services.iter().flat_map(|service| &service.methods);
    let rows: String = annotated
        .filter(|method| method.stripe.is_some())
        .map(|method| format!("    {}::SPEC,\n", method.name))
        .collect();
    format!("/// Every annotated RPC of the contract.\npub static METHODS: &[&Spec] = &[\n{rows}];\n")
}

/// HTTP method and path of a mapping.
pub(crate) fn endpoint(stripe: &DynamicMessage) -> (&'static str, String) {
    let paths = [("Get", "get"), ("Post", "post"), ("Delete", "delete")];
    let set = paths.into_iter().find(|(_, field)| stripe.has_field_by_name(field));
    set.map_or(("Get", String::new()), |(verb, field)| (verb, text(stripe, field)))
}

fn one(method: &Method, stripe: &DynamicMessage) -> Result<String> {
    let (name, input, output) = (&method.name, method.request(), method.descriptor.output());
    let effect = number(stripe, "effect").unwrap_or(0);
    if effect == 0 || (effect > 1 && !stripe.has_field_by_name("lookup")) {
        return Err(format!("{name}: the option needs an effect, and a lookup unless it is a read").into());
    }
    let (verb, path) = endpoint(stripe);
    let from: Vec<String> =
        placeholders(&path).iter().map(|name| format!("({name:?}, request.{name}.as_str())")).collect();
    Ok(format!(
        "/// `{service}.{name}`.\n#[derive(Debug)]\npub struct {name};\n\nimpl Method for {name} {{\n    type Request = {request};\n    type Response = {response};\n    const SPEC: &'static Spec = &{spec};\n\n    fn path(request: &Self::Request) -> String {{\n        let _ = request;\n        fill(Self::SPEC.path, &[{path}])\n    }}\n\n    fn local(request: &Self::Request) -> Local<'_> {{\n        let _ = request;\n        Local {{ {local} }}\n    }}\n\n    fn respond(reply: Reply<'_>) -> Result<Self::Response, Undecodable> {{\n        Ok(Self::Response {{ {respond} }})\n    }}\n}}\n",
        service = method.service,
        request = rust(input.name()),
        response = rust(output.name()),
        spec = spec(method, stripe, effect, verb, &path)?,
        path = from.join(", "),
        local = local(&input),
        respond = respond(&output),
    ))
}

fn spec(method: &Method, stripe: &DynamicMessage, effect: i64, verb: &str, path: &str) -> Result<String> {
    let (service, rpc) = (&method.service, &method.name);
    let (input, output) = (method.request(), method.descriptor.output());
    let resource = output.fields().find(is_resource).ok_or_else(|| format!("{rpc}: no resource"))?;
    let listed = shape(&resource) == Shape::Repeated;
    let paging = match (listed, path.ends_with("/search")) {
        (true, true) => "Paging::Search",
        (true, false) => "Paging::List",
        _ => "Paging::None",
    };
    let ledger_name = match text(stripe, "ledger_name") {
        name if name.is_empty() => format!("{service}.{rpc}"),
        name => name,
    };
    let fixed: Vec<String> = texts(stripe, "fixed")
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| format!("({name:?}, {value:?})"))
        .collect();
    Ok(format!(
        "Spec {{ service: {service:?}, rpc: {rpc:?}, ledger_name: {ledger_name:?}, verb: Verb::{verb}, path: {path:?}, host: Host::{host}, effect: Effect::{effect}, lookup: {lookup}, settled_by: &{settled:?}, turned_by: &{turned:?}, paging: {paging}, object: {object:?}, fixed: &[{fixed}], stamped: {stamped}, guards: &[{guards}], stages: {stages}, money: {money}, id_prefixes: &{prefixes:?} }}",
        guards = guards(stripe),
        stages = stages(stripe),
        money = money(stripe),
        prefixes = texts(stripe, "id_prefixes"),
        host = if number(stripe, "host") == Some(1) { "Files" } else { "Api" },
        effect = ["", "Read", "Write", "Money", "Repeatable"][effect as usize],
        lookup = lookup(stripe),
        settled = texts(stripe, "settled_by"),
        turned = texts(stripe, "turned_by"),
        object = if listed { "" } else { resource.name() },
        fixed = fixed.join(", "),
        stamped = effect > 1
            && placeholders(path).iter().all(|name| name != "id")
            && verb == "Post"
            && input.get_field_by_name("metadata").is_some(),
    ))
}

fn guards(stripe: &DynamicMessage) -> String {
    let names = ["", "Guard::OverRefund", "Guard::OpenDispute"];
    numbers(stripe, "guards")
        .into_iter()
        .filter_map(|guard| names.get(guard).copied())
        .collect::<Vec<_>>()
        .join(", ")
}

fn stages(stripe: &DynamicMessage) -> String {
    match stripe.get_field_by_name("stages").as_deref().and_then(|stages| stages.as_message()) {
        Some(stages) if stripe.has_field_by_name("stages") => format!(
            "Some(Stages {{ settled: &{:?}, terminal: &{:?} }})",
            texts(stages, "settled"),
            texts(stages, "terminal")
        ),
        _ => "None".to_owned(),
    }
}

fn money(stripe: &DynamicMessage) -> String {
    let Some(money) = stripe.get_field_by_name("money").filter(|_| stripe.has_field_by_name("money")) else {
        return "None".to_owned();
    };
    let Some(money) = money.as_message() else { return "None".to_owned() };
    let reads: Vec<String> = messages(money, "reads")
        .iter()
        .map(|read| {
            let fields = ["by", "get", "query", "amount", "less", "currency"];
            let fields: Vec<String> =
                fields.iter().map(|field| format!("{field}: {:?}", text(read, field))).collect();
            format!("MoneyRead {{ {} }}", fields.join(", "))
        })
        .collect();
    format!(
        "Some(Money {{ amount: {:?}, currency: {:?}, negative: {}, reads: &[{}] }})",
        text(money, "amount"),
        text(money, "currency"),
        number(money, "negative") == Some(1),
        reads.join(", ")
    )
}

fn lookup(stripe: &DynamicMessage) -> String {
    let Some(lookup) = stripe.get_field_by_name("lookup").filter(|_| stripe.has_field_by_name("lookup"))
    else {
        return "None".to_owned();
    };
    let Some(lookup) = lookup.as_message() else { return "None".to_owned() };
    let by = if lookup.has_field_by_name("list") { ("List", "list") } else { ("Retrieve", "retrieve") };
    format!(
        "Some(Lookup {{ by: LookupBy::{}({:?}), filters: &{:?}, compare: &{:?}, reached: {:?} }})",
        by.0,
        text(lookup, by.1),
        texts(lookup, "filters"),
        texts(lookup, "compare"),
        text(lookup, "reached"),
    )
}

/// The request's fields for the gateway, by name; what a request lacks has its default.
fn local(input: &MessageDescriptor) -> String {
    let has = |name: &str| input.get_field_by_name(name).is_some();
    let parts = [
        ("operation", "operation: request.operation.as_ref()"),
        ("account", "account: &request.account"),
        ("validate_only", "validate_only: request.validate_only"),
        ("view", "full: request.view == crate::proto::v1::View::Full as i32"),
        ("page_size", "page_size: request.page_size"),
        ("page_token", "page_token: &request.page_token"),
        ("wait", "wait: crate::proto::v1::Wait::try_from(request.wait).unwrap_or_default()"),
    ];
    let (set, unset): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(name, _)| has(name));
    let mut fields: Vec<&str> = set.into_iter().map(|(_, field)| field).collect();
    if !unset.is_empty() {
        fields.push("..Local::default()");
    }
    fields.join(", ")
}

fn respond(output: &MessageDescriptor) -> String {
    let fields = output.fields().map(|field| {
        let value = match (field.name(), field.kind(), shape(&field)) {
            ("call", ..) => "Some(reply.call.clone())".to_owned(),
            ("preview", ..) => "reply.preview.clone()".to_owned(),
            ("stripe_json", ..) => "reply.stripe_json()".to_owned(),
            ("next_page_token", ..) => "reply.next_page_token.clone()".to_owned(),
            (_, Kind::Message(_), Shape::Repeated) => "reply.list()?".to_owned(),
            (_, Kind::Message(_), _) => "reply.object()?".to_owned(),
            (name, ..) => format!("reply.member({name:?})?"),
        };
        format!("{}: {value}", super::model::ident(&field))
    });
    fields.collect::<Vec<_>>().join(", ")
}
