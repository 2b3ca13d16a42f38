//! `tollgate budgets`: shows how far budgets are used.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Target;
use super::failure::Failure;
use super::output::{Choice, Column};

const COLUMNS: &[Column] = &[
    ("BUDGET", "/budget"),
    ("CALLER", "/caller"),
    ("CURRENCY", "/currency"),
    ("WINDOW", "/window"),
    ("LIMIT", "/limit"),
    ("USED", "/used"),
    ("HELD", "/held"),
    ("REMAINING", "/remaining"),
    ("ANEW AT", "/window_end"),
];

/// How much may be moved, and how much of it is used.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show how far budgets are used, in the smallest unit of their currency
    Show(Show),
}

/// Arguments of `budgets show`.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Only the budgets of this caller; all callers when left out, which is for operators
    #[arg(long, default_value = "-")]
    caller: String,
    /// An order, for the budgets that count by order
    #[arg(long)]
    order_id: Option<String>,
    /// Alias of the Stripe account, which says whether it is about test or live mode
    #[arg(long)]
    account: Option<String>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Runs one of the commands.
pub(super) async fn run(command: Command) -> Result<(), Failure> {
    let Command::Show(Show { caller, order_id, account, target, output }) = command;
    let request = json!({"caller": caller, "order_id": order_id, "account": account});
    let answer = target.client().await?.unary("BudgetService/ListBudgets", request).await?;
    output.open().page(&answer, "budgets", COLUMNS, readable)
}

/// The window without its type's name.
fn readable(mut used: Value) -> Value {
    if let Some(Value::String(window)) = used.get_mut("window") {
        *window = window.trim_start_matches("BUDGET_WINDOW_").to_lowercase();
    }
    used
}
