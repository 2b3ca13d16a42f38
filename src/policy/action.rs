//! The actions that policies can speak of, generated from the contract; what a policy says of them is not its business.

/// One action: an RPC, or a right that is wider than one.
#[derive(Debug)]
pub struct Action {
    /// `Service.Rpc`.
    pub name: &'static str,
    /// Every group that it is in.
    pub groups: &'static [&'static str],
    /// Whether its context names an order.
    pub ordered: bool,
    /// Whether its context has the order's metadata.
    pub tagged: bool,
    /// Whether its context names the type of an event.
    pub receives: bool,
    /// Whether its amount and currency can be read where the caller leaves them out.
    pub money: bool,
    /// Further attributes of its context: fields of the request.
    pub fields: &'static [(&'static str, Kind)],
}

/// What a field of a request is to a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text, or the name of an enum's value as Stripe spells it.
    Text,
    /// A whole number.
    Number,
    /// Yes or no.
    Flag,
}

/// The right to be shown an event of some type.
pub const RECEIVE_EVENT: &str = "EventService.ReceiveEvent";
/// The right to be shown audit records of other namespaces.
pub const READ_EVERY_NAMESPACE: &str = "AuditService.ReadEveryNamespace";
/// The right to know which calls of other namespaces caused an event.
pub const SEE_EVERY_CAUSE: &str = "EventService.SeeEveryCause";
/// The schema in Cedar's language, for `tollgate policy schema` and for editors.
pub const SCHEMA: &str = include_str!(concat!(env!("OUT_DIR"), "/policy.cedarschema"));

include!(concat!(env!("OUT_DIR"), "/policy.rs"));
