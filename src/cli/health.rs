//! `tollgate health`: one question to the standard health service; fit for a container's health check.

use clap::Args;
use serde_json::{Value, json};

use super::client::Target;
use super::failure::Failure;
use super::output::{Choice, Format};

/// Arguments of `health`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Ask for one service, such as tollgate.v1.RefundService [default: the gateway as a whole]
    #[arg(long, default_value = "")]
    service: String,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Succeeds when the gateway serves.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.target.client().await?;
    let answer = client.unary("grpc.health.v1.Health/Check", json!({"service": arguments.service})).await?;
    let status = answer.get("status").and_then(Value::as_str).unwrap_or("UNKNOWN");
    let mut output = arguments.output.open();
    match output.format() {
        Format::Table => output.line(&status.to_lowercase())?,
        _ => output.value(&json!({"status": status}))?,
    }
    match status {
        "SERVING" => Ok(()),
        other => {
            Err(Failure::Unreachable(format!("the gateway is {}", other.to_lowercase().replace('_', " "))))
        }
    }
}
