//! `tollgate operations`: shows what is unresolved and settles it, for operators.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::client::Target;
use super::failure::{Failure, say};
use super::output::{Choice, Column, Format, Output, cell};

const COLUMNS: &[Column] = &[
    ("ID", "/id"),
    ("STATE", "/operation/state"),
    ("NAMESPACE", "/namespace"),
    ("RPC", "/operation/rpc"),
    ("ORDER", "/operation/order_id"),
    ("OPERATION", "/operation/operation_id"),
    ("SINCE", "/operation/created"),
    ("WHY", "/case/reason"),
];
const FOUND: &[Column] = &[
    ("FOUND", "/id"),
    ("OBJECT", "/object"),
    ("AMOUNT", "/amount"),
    ("CURRENCY", "/currency"),
    ("STATUS", "/status"),
    ("CREATED", "/created"),
    ("MADE BY", "/made_by"),
];
/// What one operation is shown by, line by line.
const FACTS: &[Column] = &[
    ("id", "/id"),
    ("state", "/operation/state"),
    ("live", "/live"),
    ("namespace", "/namespace"),
    ("rpc", "/operation/rpc"),
    ("order_id", "/operation/order_id"),
    ("operation_id", "/operation/operation_id"),
    ("account", "/operation/account"),
    ("generation", "/operation/generation"),
    ("first sent", "/operation/created"),
    ("last changed", "/operation/updated"),
    ("idempotency key", "/operation/idempotency_key"),
    ("object", "/operation/object_id"),
    ("stripe request", "/operation/stripe_request_id"),
    ("refusal", "/operation/refusal"),
    ("method", "/http_method"),
    ("path", "/path"),
    ("why", "/case/reason"),
    ("note", "/case/note"),
];

/// What to do with unresolved operations; needs a caller that is an operator.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the operations that are not settled
    List(List),
    /// Show one operation with everything that is known of it
    Show(Named),
    /// Look at Stripe now, and settle the operation if that proves its outcome
    Resolve(Named),
    /// Settle an operation by your word, for good
    Settle(Settle),
}

/// Which operations to show.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    /// On its way to Stripe
    InFlight,
    /// Sent, and the outcome is not known
    Unknown,
    /// Not known, and only a person can find out
    NeedsOperator,
}

/// Arguments of `operations list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only operations in this state
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Only operations of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Most operations to show, up to 100
    #[arg(long, default_value_t = 100)]
    page_size: i32,
    /// Where to go on, as the page before said
    #[arg(long)]
    page_token: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `operations show` and `operations resolve`.
#[derive(Debug, Args)]
pub(super) struct Named {
    /// The operation: the id that `operations list` shows, or the stamp in the object's metadata
    id: String,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `operations settle`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("ruling").required(true))]
pub(super) struct Settle {
    /// The operation: the id that `operations list` shows
    id: String,
    /// It took effect: the object at Stripe that it made or changed
    #[arg(long, value_name = "OBJECT_ID", group = "ruling")]
    executed: Option<String>,
    /// Nothing happened, and nothing will
    #[arg(long, group = "ruling")]
    not_executed: bool,
    /// Why, for the audit log: what you looked at and who agreed
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Runs one of the commands.
pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List(arguments) => list(arguments).await,
        Command::Show(Named { id, common }) => ask(common, "InspectOperation", json!({"id": id})).await,
        Command::Resolve(Named { id, common }) => ask(common, "ResolveOperation", json!({"id": id})).await,
        Command::Settle(arguments) => {
            let request = settle_request(&arguments);
            ask(arguments.common, "SettleOperation", request).await
        }
    }
}

async fn list(arguments: List) -> Result<(), Failure> {
    let common = &arguments.common;
    let request = list_request(&arguments);
    let answer = common.target.client().await?.unary("AdminService/ListOperations", request).await?;
    common.output.open().page(&answer, "operations", COLUMNS, readable)
}

async fn ask(common: Common, rpc: &str, request: Value) -> Result<(), Failure> {
    let answer = common.target.client().await?.unary(&format!("AdminService/{rpc}"), request).await?;
    let mut output = common.output.open();
    if output.format() != Format::Table {
        return output.value(&answer);
    }
    if let Some(finding) = answer.get("finding").and_then(Value::as_str) {
        say(finding);
    }
    show(&mut output, readable(answer.get("operation").cloned().unwrap_or_default()))
}

/// One operation, a fact on each line, then what was found.
fn show(output: &mut Output, entry: Value) -> Result<(), Failure> {
    for (name, at) in FACTS {
        if let Some(value) = entry.pointer(at) {
            output.line(&format!("{name:16}  {}", cell(value)))?;
        }
    }
    if let Some(body) = entry.get("body").and_then(Value::as_str) {
        for pair in body.split('&') {
            output.line(&format!("{:16}  {}", "sent", cell(&json!(pair))))?;
        }
    }
    let found = entry.pointer("/case/found").and_then(Value::as_array).cloned().unwrap_or_default();
    if found.is_empty() { Ok(()) } else { output.table(FOUND, &found) }
}

fn list_request(arguments: &List) -> Value {
    json!({
        "state": arguments.state.map(|state| match state {
            State::InFlight => "OPERATION_STATE_IN_FLIGHT",
            State::Unknown => "OPERATION_STATE_UNKNOWN",
            State::NeedsOperator => "OPERATION_STATE_NEEDS_OPERATOR",
        }),
        "namespace": arguments.namespace,
        "page_size": arguments.page_size,
        "page_token": arguments.page_token,
    })
}

fn settle_request(arguments: &Settle) -> Value {
    let Settle { id, reason, .. } = arguments;
    match &arguments.executed {
        Some(object) => json!({"id": id, "executed": object, "reason": reason}),
        None => json!({"id": id, "not_executed": true, "reason": reason}),
    }
}

/// State and reason without their types' names.
fn readable(mut entry: Value) -> Value {
    for (at, prefix) in [("/operation/state", "OPERATION_STATE_"), ("/case/reason", "OPERATION_CASE_REASON_")]
    {
        if let Some(Value::String(name)) = entry.pointer_mut(at) {
            *name = name.trim_start_matches(prefix).to_lowercase();
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::client::{Contract, message};

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Line::try_parse_from(line.split_whitespace()).map(|line| line.command)
    }

    #[test]
    fn flags_become_requests_that_the_contract_knows() {
        let contract = Contract::load().unwrap();
        let known = |rpc: &str, request| {
            message(&contract.method(&format!("AdminService/{rpc}")).unwrap(), request).unwrap();
        };
        let Command::List(list) = parse("operations list --state needs-operator --namespace shop").unwrap()
        else {
            panic!("not a list")
        };
        known("ListOperations", list_request(&list));
        for line in [
            "operations settle ab --executed re_1 --reason seen",
            "operations settle ab --not-executed --reason x",
        ] {
            let Command::Settle(settle) = parse(line).unwrap() else { panic!("not a settlement") };
            known("SettleOperation", settle_request(&settle));
        }
    }

    #[test]
    fn a_settlement_says_exactly_one_thing_and_why() {
        for line in [
            "operations settle ab --reason x",
            "operations settle ab --executed re_1",
            "operations settle ab --executed re_1 --not-executed --reason x",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
