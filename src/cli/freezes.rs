//! `tollgate freeze`, `unfreeze` and `freezes`: the kill switch, for operators.

use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use super::client::Target;
use super::failure::Failure;
use super::output::{Choice, Column, Format};

const COLUMNS: &[Column] = &[
    ("ID", "/id"),
    ("CALLER", "/caller"),
    ("METHOD", "/method"),
    ("ACCOUNT", "/account"),
    ("SINCE", "/frozen"),
    ("BY", "/frozen_by"),
    ("REASON", "/reason"),
];

/// Arguments of `freeze`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("scope").required(true).multiple(true))]
pub(super) struct Freeze {
    /// Changes of this caller, by its name in the configuration
    #[arg(long, group = "scope")]
    caller: Option<String>,
    /// Changes by this RPC, such as RefundService/CreateRefund, or by any of a service
    #[arg(long, group = "scope", value_name = "SERVICE[/RPC]")]
    method: Option<String>,
    /// Changes at the Stripe account of this alias
    #[arg(long, group = "scope", value_name = "ALIAS")]
    account: Option<String>,
    /// Every change there is
    #[arg(long, group = "scope", conflicts_with_all = ["caller", "method", "account"])]
    everything: bool,
    /// Why, for the audit log and for those who are frozen
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `unfreeze`.
#[derive(Debug, Args)]
pub(super) struct Unfreeze {
    /// The freeze: the id that `freezes` shows
    id: String,
    /// Why, for the audit log
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `freezes`.
#[derive(Debug, Args)]
pub(super) struct List {
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

/// Freezes changes.
pub(super) async fn freeze(arguments: Freeze) -> Result<(), Failure> {
    let request = freeze_request(&arguments);
    ask(arguments.common, "FreezeWrites", request).await
}

/// Lifts a freeze.
pub(super) async fn unfreeze(arguments: Unfreeze) -> Result<(), Failure> {
    let Unfreeze { id, reason, common } = arguments;
    ask(common, "UnfreezeWrites", json!({"id": id, "reason": reason})).await
}

/// Shows what is frozen.
pub(super) async fn list(arguments: List) -> Result<(), Failure> {
    ask(arguments.common, "ListFreezes", json!({})).await
}

fn freeze_request(arguments: &Freeze) -> Value {
    json!({
        "caller": arguments.caller,
        "method": arguments.method,
        "account": arguments.account,
        "reason": arguments.reason,
    })
}

async fn ask(common: Common, rpc: &str, request: Value) -> Result<(), Failure> {
    let answer = common.target.client().await?.unary(&format!("AdminService/{rpc}"), request).await?;
    let one = answer.get("freeze").map(std::slice::from_ref);
    let freezes = one.or_else(|| answer.get("freezes")?.as_array().map(Vec::as_slice)).unwrap_or_default();
    let mut output = common.output.open();
    match output.format() {
        Format::Table => output.table(COLUMNS, freezes),
        Format::Json => output.value(&answer),
        Format::Jsonl => freezes.iter().try_for_each(|freeze| output.value(freeze)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::client::{Contract, message};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        freeze: Freeze,
    }

    fn parse(line: &str) -> Result<Freeze, clap::Error> {
        Line::try_parse_from(line.split_whitespace()).map(|line| line.freeze)
    }

    #[test]
    fn flags_become_requests_that_the_contract_knows() {
        let contract = Contract::load().unwrap();
        let freeze = parse("freeze --caller shop --method RefundService --account eu --reason x").unwrap();
        let method = contract.method("AdminService/FreezeWrites").unwrap();
        message(&method, freeze_request(&freeze)).unwrap();
    }

    #[test]
    fn nobody_freezes_everything_by_leaving_something_out() {
        assert!(parse("freeze --everything --reason x").is_ok());
        for line in ["freeze --reason x", "freeze --caller a", "freeze --everything --caller a --reason x"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
