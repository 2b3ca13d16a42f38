//! `tollgate health`: one question to the standard health service, or to the sandbox; fit for a container's health check.

use clap::Args;
use serde_json::{Value, json};

use super::client::Target;
use super::failure::Failure;
use super::http;
use super::output::{Choice, Format};

/// Arguments of `health`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Ask for one service, such as tollgate.v1.RefundService [default: the gateway as a whole]
    #[arg(long)]
    service: Option<String>,
    /// Ask a sandbox, http://host:port, and not a gateway
    #[arg(long, value_name = "URL", conflicts_with = "service")]
    sandbox: Option<String>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Succeeds when the gateway serves.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let status = match &arguments.sandbox {
        Some(base) => of_sandbox(base).await?,
        None => of_gateway(&arguments).await?,
    };
    let mut output = arguments.output.open();
    match output.format() {
        Format::Table => output.line(&status.to_lowercase())?,
        _ => output.value(&json!({"status": status}))?,
    }
    match status.as_str() {
        "SERVING" => Ok(()),
        other => Err(Failure::Unreachable(format!("it is {}", other.to_lowercase().replace('_', " ")))),
    }
}

async fn of_gateway(arguments: &Arguments) -> Result<String, Failure> {
    let client = arguments.target.client().await?;
    let answer = client.unary("grpc.health.v1.Health/Check", json!({"service": arguments.service})).await?;
    Ok(answer.get("status").and_then(Value::as_str).unwrap_or("UNKNOWN").to_owned())
}

async fn of_sandbox(base: &str) -> Result<String, Failure> {
    let (status, _) = http::ask(base, "GET", "/_sandbox/clock", None, "").await?;
    Ok(if status.is_success() { "SERVING" } else { "NOT_SERVING" }.to_owned())
}
