//! The shape of one annotated RPC: its mapping to Stripe and the way from request to response.

use super::decode::{Reply, Undecodable};
use super::form::Form;
use super::violations::Check;
use crate::proto::v1::{OperationRef, Wait};

/// One annotated RPC, as a type. All implementations are generated.
pub trait Method: 'static {
    /// The request message.
    type Request: Form + Check + prost::Message + Default + Send + Sync + 'static;
    /// The response message.
    type Response: prost::Message + Default + Send + 'static;
    /// The mapping to Stripe.
    const SPEC: &'static Spec;

    /// The path at Stripe, filled from the request.
    fn path(request: &Self::Request) -> String;

    /// The request's fields that are for the gateway alone.
    fn local(request: &Self::Request) -> Local<'_>;

    /// Builds the response.
    ///
    /// # Errors
    /// When Stripe's JSON does not have the shape that the contract knows.
    fn respond(reply: Reply<'_>) -> Result<Self::Response, Undecodable>;
}

/// What a request says to the gateway rather than to Stripe; fields that an RPC lacks have their default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local<'a> {
    /// Names the change; absent on reads.
    pub operation: Option<&'a OperationRef>,
    /// Alias of the Stripe account; empty for the default.
    pub account: &'a str,
    /// Preview only.
    pub validate_only: bool,
    /// Stripe's JSON is wanted too.
    pub full: bool,
    /// Items a page; 0 for the default.
    pub page_size: i32,
    /// Token of the page.
    pub page_token: &'a str,
    /// How long to wait after the effect.
    pub wait: Wait,
}

/// The mapping of one RPC to one Stripe endpoint.
#[derive(Debug)]
pub struct Spec {
    /// Service name without package.
    pub service: &'static str,
    /// RPC name.
    pub rpc: &'static str,
    /// Permanent name in the ledger.
    pub ledger_name: &'static str,
    /// HTTP method.
    pub verb: Verb,
    /// Path template at Stripe.
    pub path: &'static str,
    /// Which host.
    pub host: Host,
    /// What it does in the world.
    pub effect: Effect,
    /// How an unknown outcome is looked up.
    pub lookup: Option<Lookup>,
    /// Event types that prove the effect.
    pub settled_by: &'static [&'static str],
    /// Event types that show a later state of what it made.
    pub turned_by: &'static [&'static str],
    /// How it pages.
    pub paging: Paging,
    /// Stripe's `object` value of the answer; empty for lists.
    pub object: &'static str,
    /// Parameters that every call sends.
    pub fixed: &'static [(&'static str, &'static str)],
    /// Whether the object it creates carries the operation's stamp in its metadata.
    pub stamped: bool,
    /// Doubts that are looked into before it is sent for the first time.
    pub guards: &'static [Guard],
    /// How far its object can come after the call; `None` where nobody can wait.
    pub stages: Option<Stages>,
    /// Where its amount and currency stand; `None` where it moves none that could be told.
    pub money: Option<Money>,
    /// What the ids begin with by which it reads its object; empty where it needs more than an id, or is no such read.
    pub id_prefixes: &'static [&'static str],
}

impl Spec {
    /// The gRPC method, `tollgate.v1.Service/Rpc`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("tollgate.v1.{}/{}", self.service, self.rpc)
    }

    /// Service and RPC, `Service.Rpc`, as settings name it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.service, self.rpc)
    }

    /// Whether it changes something.
    #[must_use]
    pub fn mutates(&self) -> bool {
        self.effect != Effect::Read
    }
}

/// HTTP methods that Stripe's API uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// GET.
    Get,
    /// POST.
    Post,
    /// DELETE.
    Delete,
}

impl Verb {
    /// The method as HTTP writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// Stripe's hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Host {
    /// The API.
    Api,
    /// File uploads.
    Files,
}

impl Host {
    /// The host's name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Files => "files",
        }
    }
}

/// What a call does in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Read,
    /// A change without money.
    Write,
    /// Moves or commits money.
    Money,
    /// May safely exist twice.
    Repeatable,
}

/// A doubt about a change that gives money back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// More would go back than was paid.
    OverRefund,
    /// The payment is disputed.
    OpenDispute,
}

/// Where the amount and the currency of a change stand.
#[derive(Clone, Copy, Debug)]
pub struct Money {
    /// Parameter of the amount; empty where the change has none of its own.
    pub amount: &'static str,
    /// Parameter of the currency; empty likewise.
    pub currency: &'static str,
    /// Whether money goes away where the amount is below zero.
    pub negative: bool,
    /// What tells the facts that a request leaves out.
    pub reads: &'static [MoneyRead],
}

/// One read that tells an amount and a currency.
#[derive(Clone, Copy, Debug)]
pub struct MoneyRead {
    /// Parameter, or field of the path, that names the object.
    pub by: &'static str,
    /// Path of a GET.
    pub get: &'static str,
    /// Its query.
    pub query: &'static str,
    /// Where the amount stands in the object, a path with dots.
    pub amount: &'static str,
    /// What of it is gone already, likewise; empty where nothing is.
    pub less: &'static str,
    /// Where the currency stands, likewise.
    pub currency: &'static str,
}

/// How far an object has come, by the values of its `status`, each list in the order in which an object comes to them.
#[derive(Clone, Copy, Debug)]
pub struct Stages {
    /// Stripe has done its own part.
    pub settled: &'static [&'static str],
    /// Nothing more is under way.
    pub terminal: &'static [&'static str],
}

impl Stages {
    /// How far an object with this status has come.
    #[must_use]
    pub fn of(&self, status: &str) -> Wait {
        match () {
            () if self.terminal.contains(&status) => Wait::Terminal,
            () if self.settled.contains(&status) => Wait::Settled,
            () => Wait::Accepted,
        }
    }

    /// Which of two states that were seen in one second is the later: the one with the higher number.
    #[must_use]
    pub fn order(&self, status: &str) -> usize {
        self.settled.iter().chain(self.terminal).position(|known| *known == status).map_or(0, |at| at + 1)
    }
}

/// How to learn by reading whether an operation took effect.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    /// What is read.
    pub by: LookupBy,
    /// Request fields that narrow a list.
    pub filters: &'static [&'static str],
    /// Fields that must be equal for a match.
    pub compare: &'static [&'static str],
    /// `field=value` that proves the target state; empty where there is none.
    pub reached: &'static str,
}

/// What a look-up reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupBy {
    /// A list at this path.
    List(&'static str),
    /// The object at this path.
    Retrieve(&'static str),
}

/// How an RPC pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// It does not.
    None,
    /// By object id (`starting_after`).
    List,
    /// By Stripe's page token (`page`).
    Search,
}

/// Fills a path template; values are percent-encoded as one path segment.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut path = template.to_owned();
    for (name, value) in values {
        path = path.replace(&format!("{{{name}}}"), &super::form::percent_encode(value));
    }
    path
}
