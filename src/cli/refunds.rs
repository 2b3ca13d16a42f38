//! `tollgate refunds`: makes and reads refunds with flags instead of JSON.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::client::Target;
use super::failure::{Failure, say};
use super::output::{Choice, Column, Format};

const COLUMNS: &[Column] = &[
    ("ID", "/id"),
    ("STATUS", "/status"),
    ("AMOUNT", "/amount"),
    ("CURRENCY", "/currency"),
    ("PAYMENT INTENT", "/payment_intent"),
    ("CHARGE", "/charge"),
    ("CREATED", "/created"),
];

/// What to do with refunds.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Refund a payment; the same order id and operation id never refund twice
    Create(Create),
    /// Show one refund
    Get(Get),
    /// Show refunds, the newest first
    List(List),
}

/// Why the money goes back.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Reason {
    /// Paid twice
    Duplicate,
    /// The payment was a fraud; Stripe learns from it
    Fraudulent,
    /// The customer asked
    RequestedByCustomer,
}

/// How long to wait for what comes of a refund.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Wait {
    /// Until it is no longer pending
    Settled,
    /// Until it succeeded, failed or was cancelled
    Terminal,
}

/// Arguments of `refunds create`.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Your order, ticket or case that this belongs to; choose it before the first try and keep it
    #[arg(long)]
    order_id: String,
    /// Tells apart several refunds of one order
    #[arg(long)]
    operation_id: Option<String>,
    /// The payment intent, pi_...
    #[arg(long, required_unless_present = "charge", conflicts_with = "charge")]
    payment_intent: Option<String>,
    /// The charge, ch_...
    #[arg(long)]
    charge: Option<String>,
    /// How much, in the smallest unit of the currency [default: all that remains]
    #[arg(long, allow_negative_numbers = true)]
    amount: Option<i64>,
    /// Why
    #[arg(long, value_enum)]
    reason: Option<Reason>,
    /// A key and value of your own; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    metadata: Vec<(String, String)>,
    /// Wait for what comes of it, until the time of the call is over [default: not at all]
    #[arg(long, value_enum)]
    wait: Option<Wait>,
    /// Show what would be sent, and send nothing
    #[arg(long)]
    validate_only: bool,
    /// Try again although Stripe refused it before
    #[arg(long)]
    retry_refused: bool,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `refunds get`.
#[derive(Debug, Args)]
pub(super) struct Get {
    /// The refund, re_...
    id: String,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `refunds list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only of this payment intent
    #[arg(long)]
    payment_intent: Option<String>,
    /// Only of this charge
    #[arg(long)]
    charge: Option<String>,
    /// Most refunds to show, up to 100
    #[arg(long, default_value_t = 10)]
    page_size: i32,
    /// Where to go on, as the page before said
    #[arg(long)]
    page_token: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Alias of the Stripe account [default: the gateway's own]
    #[arg(long)]
    account: Option<String>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Runs one of the commands.
pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(arguments) => create(arguments).await,
        Command::Get(Get { id, common }) => {
            let request = json!({"id": id, "account": common.account});
            let answer = common.target.client().await?.unary("RefundService/GetRefund", request).await?;
            show(common.output, &answer)
        }
        Command::List(arguments) => list(arguments).await,
    }
}

async fn create(arguments: Create) -> Result<(), Failure> {
    let client = arguments.common.target.client().await?;
    let answer = client.unary("RefundService/CreateRefund", create_request(&arguments)).await?;
    show(arguments.common.output, &answer)
}

fn create_request(arguments: &Create) -> Value {
    let metadata: Map<String, Value> =
        arguments.metadata.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    json!({
        "operation": {
            "order_id": arguments.order_id,
            "operation_id": arguments.operation_id,
            "retry_refused": arguments.retry_refused,
        },
        "account": arguments.common.account,
        "validate_only": arguments.validate_only,
        "payment_intent": arguments.payment_intent,
        "charge": arguments.charge,
        "amount": arguments.amount,
        "reason": arguments.reason.map(|reason| match reason {
            Reason::Duplicate => "REFUND_REASON_DUPLICATE",
            Reason::Fraudulent => "REFUND_REASON_FRAUDULENT",
            Reason::RequestedByCustomer => "REFUND_REASON_REQUESTED_BY_CUSTOMER",
        }),
        "metadata": metadata,
        "wait": arguments.wait.map(|wait| match wait {
            Wait::Settled => "WAIT_SETTLED",
            Wait::Terminal => "WAIT_TERMINAL",
        }),
    })
}

async fn list(arguments: List) -> Result<(), Failure> {
    let common = &arguments.common;
    let request = json!({
        "account": common.account,
        "payment_intent": arguments.payment_intent,
        "charge": arguments.charge,
        "page_size": arguments.page_size,
        "page_token": arguments.page_token,
    });
    let answer = common.target.client().await?.unary("RefundService/ListRefunds", request).await?;
    common.output.open().page(&answer, "refunds", COLUMNS, readable)
}

/// One refund, or the preview that took its place.
fn show(choice: Choice, answer: &Value) -> Result<(), Failure> {
    let mut output = choice.open();
    match answer.get("refund") {
        Some(refund) if output.format() == Format::Table => {
            output.table(COLUMNS, &[readable(refund.clone())])?;
            if answer.pointer("/call/replayed") == Some(&Value::Bool(true)) {
                say("replayed: this refund was made before, and nothing was sent now");
            }
            Ok(())
        }
        _ => output.value(answer),
    }
}

/// The status without its type's name.
fn readable(mut refund: Value) -> Value {
    if let Some(Value::String(status)) = refund.get_mut("status") {
        *status = status.trim_start_matches("REFUND_STATUS_").to_lowercase();
    }
    refund
}

pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::client::{Contract, message, to_json};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    #[test]
    fn flags_become_the_request_that_the_contract_knows() {
        let line = "refunds --order-id o-1 --payment-intent pi_1 --amount 500 --reason requested-by-customer \
                    --metadata a=b=c --address 127.0.0.1:1";
        let line = Line::try_parse_from(line.split_whitespace()).unwrap();
        let method = Contract::load().unwrap().method("RefundService/CreateRefund").unwrap();
        let request = to_json(&message(&method, create_request(&line.create)).unwrap()).unwrap();
        let expected = json!({
            "operation": {"order_id": "o-1"},
            "payment_intent": "pi_1",
            "amount": 500,
            "reason": "REFUND_REASON_REQUESTED_BY_CUSTOMER",
            "metadata": {"a": "b=c"},
        });
        assert_eq!(request, expected);
    }
}
