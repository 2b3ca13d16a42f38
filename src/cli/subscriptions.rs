//! `tollgate subscriptions`: named subscriptions to the event log. What is consumed is acknowledged once it was written.

mod consume;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use self::consume::Consume;
use super::client::Target;
use super::events::{Which, start};
use super::failure::Failure;
use super::output::{Choice, Column, Format};
use super::tokens::seconds;

const COLUMNS: &[Column] = &[
    ("NAME", "/name"),
    ("ACCOUNT", "/account"),
    ("POSITION", "/status/position"),
    ("LAG", "/status/lag_events"),
    ("LAG SECONDS", "/status/lag_s"),
    ("OUT", "/status/in_flight"),
    ("PARKED", "/status/parked"),
    ("CONSUMERS", "/status/consumers"),
    ("PAUSED", "/status/paused"),
    ("CREATED BY", "/created_by"),
];
const PARKED: &[Column] = &[
    ("POSITION", "/position"),
    ("EVENT", "/event/id"),
    ("TYPE", "/event/type"),
    ("OBJECT", "/event/object_id"),
    ("ATTEMPTS", "/attempts"),
    ("PARKED", "/parked"),
    ("REASON", "/reason"),
];

/// What to do with named subscriptions.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a subscription; the same again changes nothing
    Create(Box<Create>),
    /// Show one subscription
    Get(One),
    /// Show the subscriptions of your namespace, and how far each is behind
    List(Common),
    /// Stop deliveries
    Pause(One),
    /// Go on with deliveries
    Resume(One),
    /// Move the place of a subscription, back or ahead
    Seek(Seek),
    /// End a subscription, with what is parked in it
    Delete(One),
    /// Show the events that were set aside
    Parked(Parked),
    /// Deliver events again: those that are named, or those that were set aside
    Replay(Replay),
    /// Print events and acknowledge each once it is printed
    Consume(Consume),
}

/// Arguments of `subscriptions create`.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Its name: lower-case letters, digits, `-`, `_` and `.`
    name: String,
    #[command(flatten)]
    which: Which,
    /// Where to start: earliest, latest, a time, or a cursor
    #[arg(long, default_value = "latest")]
    from: String,
    /// How long a consumer has for an event, such as 30s or 5m
    #[arg(long, value_parser = seconds)]
    lease: Option<i64>,
    /// Most events out at once
    #[arg(long)]
    in_flight: Option<u32>,
    /// Most bytes out at once
    #[arg(long)]
    in_flight_bytes: Option<u64>,
    /// Deliveries after which an event is set aside
    #[arg(long)]
    attempts: Option<u32>,
    #[command(flatten)]
    common: Common,
}

/// Arguments of the commands that need a name alone.
#[derive(Debug, Args)]
pub(super) struct One {
    /// Its name
    name: String,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `subscriptions seek`.
#[derive(Debug, Args)]
pub(super) struct Seek {
    /// Its name
    name: String,
    /// Where to: earliest, latest, a time, or a cursor
    #[arg(long)]
    to: String,
    /// Why, for the audit log
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `subscriptions parked`.
#[derive(Debug, Args)]
pub(super) struct Parked {
    /// Its name
    name: String,
    /// Most events to show
    #[arg(long, default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `subscriptions replay`.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Its name
    name: String,
    /// The events, evt_...
    #[arg(required_unless_present = "parked")]
    events: Vec<String>,
    /// Everything that was set aside instead
    #[arg(long, conflicts_with = "events")]
    parked: bool,
    /// Why, for the audit log
    #[arg(long, required_unless_present = "parked")]
    reason: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Runs one of the commands.
pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(arguments) => {
            let request = creation(&arguments)?;
            show(&arguments.common, "CreateSubscription", request).await
        }
        Command::Get(One { name, common }) => show(&common, "GetSubscription", json!({"name": name})).await,
        Command::Pause(One { name, common }) => {
            show(&common, "PauseSubscription", json!({"name": name})).await
        }
        Command::Resume(One { name, common }) => {
            show(&common, "ResumeSubscription", json!({"name": name})).await
        }
        Command::Seek(Seek { name, to, reason, common }) => {
            let mut request = start(&to)?;
            request.extend([("name".to_owned(), json!(name)), ("reason".to_owned(), json!(reason))]);
            show(&common, "SeekSubscription", Value::Object(request)).await
        }
        Command::List(common) => {
            let answer = ask(&common, "ListSubscriptions", json!({})).await?;
            common.output.open().page(&answer, "subscriptions", COLUMNS, |item| item)
        }
        Command::Delete(One { name, common }) => {
            let answer = ask(&common, "DeleteSubscription", json!({"name": name})).await?;
            let mut output = common.output.open();
            match output.format() {
                Format::Table => output.line(&format!("{name} has ended")),
                _ => output.value(&answer),
            }
        }
        Command::Parked(Parked { name, limit, common }) => {
            let request = json!({"name": name, "page_size": limit});
            let answer = ask(&common, "ListParkedEvents", request).await?;
            common.output.open().page(&answer, "events", PARKED, |item| item)
        }
        Command::Replay(arguments) => replay(arguments).await,
        Command::Consume(arguments) => consume::run(arguments).await,
    }
}

/// Runs `subscriptions replay`.
pub(super) async fn replay(arguments: Replay) -> Result<(), Failure> {
    let Replay { name, events, parked, reason, common } = arguments;
    let answer = if parked {
        ask(&common, "ReplayParkedEvents", json!({"name": name})).await?
    } else {
        let request = json!({"name": name, "event_ids": events, "reason": reason});
        ask(&common, "ReplayEvents", request).await?
    };
    let mut output = common.output.open();
    match (output.format(), answer.get("replay").and_then(Value::as_str)) {
        (Format::Table, Some(replay)) => output.line(&format!("on their way as {replay}")),
        (Format::Table, None) => {
            let count = answer.get("replayed").and_then(Value::as_u64).unwrap_or_default();
            output.line(&format!("{count} on their way"))
        }
        _ => output.value(&answer),
    }
}

/// Asks for something that is answered with the subscription, and shows it.
async fn show(common: &Common, rpc: &str, request: Value) -> Result<(), Failure> {
    let answer = ask(common, rpc, request).await?;
    let mut output = common.output.open();
    match output.format() {
        Format::Table => output.table(COLUMNS, &[answer.get("subscription").cloned().unwrap_or_default()]),
        Format::Json | Format::Jsonl => output.value(&answer),
    }
}

async fn ask(common: &Common, rpc: &str, request: Value) -> Result<Value, Failure> {
    common.target.client().await?.unary(&format!("SubscriptionService/{rpc}"), request).await
}

fn creation(arguments: &Create) -> Result<Value, Failure> {
    let mut request: Map<String, Value> = start(&arguments.from)?;
    let options = json!({
        "lease_s": arguments.lease,
        "max_in_flight": arguments.in_flight,
        "max_in_flight_bytes": arguments.in_flight_bytes,
        "max_attempts": arguments.attempts,
    });
    request.extend(arguments.which.fields());
    request.extend([("name".to_owned(), json!(arguments.name)), ("options".to_owned(), options)]);
    Ok(Value::Object(request))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::client::{Contract, message};
    use crate::cli::events;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: events::Command,
    }

    #[test]
    fn every_flag_of_a_creation_is_a_field_that_the_contract_has() {
        let line = Line::parse_from(
            "x subscriptions create orders --from earliest --types refund.* --presets disputes --object re_1 \
             --object-type refund --customer cus_1 --connected-account acct_1 --order-id 1001 --cause mine --account eu \
             --lease 30s --in-flight 5 --in-flight-bytes 70000 --attempts 3"
                .split_whitespace(),
        );
        let events::Command::Subscriptions(Command::Create(create)) = line.command else {
            panic!("another command")
        };
        let request = creation(&create).unwrap();
        assert_eq!(request["filter"].as_object().unwrap().len(), 6, "{request}");
        let method = Contract::load().unwrap().method("SubscriptionService/CreateSubscription").unwrap();
        assert!(message(&method, request).is_ok());
    }

    #[test]
    fn a_replay_is_among_the_commands_for_events_too() {
        let line = Line::try_parse_from(["x", "replay", "orders", "--parked"]);
        let Ok(Line { command: events::Command::Replay(replay) }) = line else { panic!("another command") };
        assert!(replay.parked && replay.name == "orders");
    }
}
