//! `tollgate subscriptions consume`: prints events and acknowledges each once it is printed, over broken streams too.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tonic::Streaming;

use crate::cli::client::{Client, Contract, Target, message, to_json};
use crate::cli::events::{Silence, is_passing, show};
use crate::cli::failure::{Failure, say};
use crate::cli::output::{Choice, Output};
use crate::cli::signal::StopSignals;

/// Pause before a broken stream is opened again.
const PAUSE: Duration = Duration::from_secs(1);

/// Arguments of `subscriptions consume`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Consume {
    /// Name of the subscription
    name: String,
    /// This consumer's own name: a new one of the same name takes its place, and what it had
    #[arg(long)]
    consumer: Option<String>,
    /// End after so many events
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    silence: Silence,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Runs the command.
pub(super) async fn run(arguments: Consume) -> Result<(), Failure> {
    let mut output = arguments.output.open();
    let client = arguments.target.client().await?;
    let mut left = arguments.limit;
    let read = async {
        while left != Some(0) {
            match follow(&client, &arguments, &mut left, &mut output).await {
                Ok(()) => {}
                Err(Failure::Status(status)) if is_passing(&status) => {
                    say(&format!("the stream broke ({}); it goes on in a moment", status.message()));
                }
                Err(Failure::Unreachable(why)) => say(&format!("{why}; trying again")),
                Err(failure) => return Err(failure),
            }
            if left != Some(0) {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    };
    let mut signals = StopSignals::take();
    tokio::select! {
        read = read => read,
        () = signals.next() => Ok(()),
    }
}

/// Opens the stream and deals with events until it ends.
async fn follow(
    client: &Client,
    arguments: &Consume,
    left: &mut Option<u64>,
    output: &mut Output,
) -> Result<(), Failure> {
    let method = Contract::load()?.method("SubscriptionService/Consume")?;
    // With a limit, what is beyond it shall not lie here until its lease ends.
    let in_flight = if left.is_some() { 1 } else { 100 };
    let request = json!({"name": arguments.name, "consumer": arguments.consumer, "max_in_flight": in_flight});
    let request = message(&method, request)?;
    let mut items: Streaming<_> = client.start(&method, vec![request]).await?;
    while *left != Some(0) {
        let Some(item) = arguments.silence.next(&mut items).await? else { return Ok(()) };
        let item = to_json(&item)?;
        let (Some(event), Some(ack_id)) = (item.get("event"), item.pointer("/delivery/ack_id")) else {
            continue;
        };
        show(output, &with_delivery(event, item.get("delivery")))?;
        let acknowledgement = json!({"name": arguments.name, "ack_ids": [ack_id]});
        client.unary("SubscriptionService/Acknowledge", acknowledgement).await?;
        *left = left.map(|left| left - 1);
    }
    Ok(())
}

/// The event with what is particular to its delivery.
fn with_delivery(event: &Value, delivery: Option<&Value>) -> Value {
    let mut event = event.clone();
    if let (Some(event), Some(delivery)) = (event.as_object_mut(), delivery) {
        event.insert("delivery".to_owned(), delivery.clone());
    }
    event
}
