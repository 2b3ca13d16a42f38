//! `tollgate events`: follows the event stream, reads the log, tells how it stands, or makes the sandbox produce events.

mod backfill;
mod read;
mod silence;
mod status;
mod which;

use std::time::Duration;

use clap::{Args, Subcommand};
use prost_reflect::MethodDescriptor;
use serde_json::{Map, Value, json};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

pub(super) use self::silence::Silence;
pub(super) use self::which::Which;
use super::client::{Client, Contract, Target, message, to_json};
use super::failure::{Failure, say};
use super::output::{Choice, Format, cell};
use super::{http, signal::StopSignals, subscriptions};

/// First and longest pause before a broken stream is opened again.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What to do with events.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Follow the stream; takes it up again where it was when the connection breaks
    Tail(Box<Tail>),
    /// List events, the latest arrival first
    List(Box<read::List>),
    /// Show one event
    Get(read::Get),
    /// Show one object as it is, and then its events as they come
    Watch(read::Watch),
    /// Show how far back the log reaches, how far it goes, and how it compares with Stripe's list
    Status(status::Status),
    /// Have the gateway read a span of Stripe's own list and add what the log lacks, for operators
    Backfill(backfill::Backfill),
    /// Deliver events of a named subscription again: the same as `subscriptions replay`
    Replay(subscriptions::Replay),
    /// The same as `subscriptions`
    #[command(subcommand)]
    Subscriptions(subscriptions::Command),
    /// Make the sandbox do what ends in an event of this type
    Trigger(Trigger),
}

/// Arguments of `events tail`.
#[derive(Debug, Args)]
pub(super) struct Tail {
    /// Where to start: earliest, latest, a cursor, or a time like 2026-11-23T08:00:00Z
    #[arg(long, default_value = "latest")]
    from: String,
    #[command(flatten)]
    which: Which,
    /// End after this many events
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    silence: Silence,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Arguments of `events trigger`.
#[derive(Debug, Args)]
pub(super) struct Trigger {
    /// The event type, such as refund.created
    #[arg(value_name = "TYPE")]
    event_type: String,
    /// The sandbox
    #[arg(long, default_value = "http://127.0.0.1:7403")]
    sandbox: String,
    /// Its key, needed from another machine
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    output: Choice,
}

/// Runs one of the commands.
pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Tail(arguments) => tail(*arguments).await,
        Command::List(arguments) => read::list(*arguments).await,
        Command::Get(arguments) => read::get(arguments).await,
        Command::Watch(arguments) => read::watch(arguments).await,
        Command::Backfill(arguments) => backfill::run(arguments).await,
        Command::Status(arguments) => status::run(arguments).await,
        Command::Replay(arguments) => subscriptions::replay(arguments).await,
        Command::Subscriptions(command) => subscriptions::run(command).await,
        Command::Trigger(arguments) => trigger(arguments).await,
    }
}

async fn trigger(arguments: Trigger) -> Result<(), Failure> {
    let path = format!("/_sandbox/triggers/{}", arguments.event_type);
    let (status, object) = http::ask(&arguments.sandbox, "POST", &path, arguments.key.as_deref(), "").await?;
    if !status.is_success() {
        let why = object.pointer("/error/message").and_then(Value::as_str).unwrap_or("the sandbox refused");
        return Err(Failure::Data(why.to_owned()));
    }
    let mut output = arguments.output.open();
    match output.format() {
        Format::Table => {
            let part = |name| object.get(name).map(cell).unwrap_or_default();
            output.line(&format!("{} ends with {} {}", arguments.event_type, part("object"), part("id")))
        }
        _ => output.value(&object),
    }
}

async fn tail(arguments: Tail) -> Result<(), Failure> {
    let mut reader = Reader {
        method: Contract::load()?.method("EventService/Subscribe")?,
        start: start(&arguments.from)?,
        filter: arguments.which.fields(),
        cursor: None,
        left: arguments.limit,
        silence: arguments.silence,
    };
    let mut output = arguments.output.open();
    let client = arguments.target.client().await?;
    let read = async {
        let mut pause = PAUSE_MIN;
        while reader.left != Some(0) {
            let before = reader.cursor.clone();
            match reader.follow(&client, &mut output).await {
                Ok(()) => {}
                Err(Failure::Status(status)) if is_passing(&status) => {
                    say(&format!("the stream broke ({}); it goes on in a moment", status.message()));
                }
                Err(Failure::Unreachable(why)) => say(&format!("{why}; trying again")),
                Err(failure) => return Err(failure),
            }
            // What was read in between shows that the gateway was well again.
            pause = if reader.cursor == before { (pause * 2).min(PAUSE_MAX) } else { PAUSE_MIN };
            if reader.left != Some(0) {
                tokio::time::sleep(pause).await;
            }
        }
        Ok(())
    };
    let mut signals = StopSignals::take();
    let read = tokio::select! {
        read = read => read,
        () = signals.next() => Ok(()),
    };
    if let Some(cursor) = &reader.cursor {
        say(&format!("to go on from here: --from {cursor}"));
    }
    read
}

/// Whether a later try can go better. The transport has INTERNAL for a connection that broke; the gateway's own faults
/// say their reason.
pub(super) fn is_passing(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::ResourceExhausted => true,
        Code::Internal => status.get_details_error_info().is_none(),
        _ => false,
    }
}

/// A place in the stream, and what is wanted of it.
struct Reader {
    method: MethodDescriptor,
    start: Map<String, Value>,
    filter: Map<String, Value>,
    cursor: Option<String>,
    left: Option<u64>,
    silence: Silence,
}

impl Reader {
    /// Opens the stream behind what has been seen and writes events until it ends.
    async fn follow(&mut self, client: &Client, output: &mut super::output::Output) -> Result<(), Failure> {
        let mut request = self.filter.clone();
        match &self.cursor {
            Some(cursor) => drop(request.insert("after_cursor".into(), json!(cursor))),
            None => request.extend(self.start.clone()),
        }
        let request = message(&self.method, Value::Object(request))?;
        let mut items: Streaming<_> = client.start(&self.method, vec![request]).await?;
        while self.left != Some(0) {
            let Some(item) = self.silence.next(&mut items).await? else { return Ok(()) };
            let item = to_json(&item)?;
            let Some((name, item)) = item.as_object().and_then(|item| item.iter().next()) else { continue };
            if name == "event" {
                show(output, item)?;
                self.left = self.left.map(|left| left - 1);
            }
            if let Some(cursor) = item.get("cursor").and_then(Value::as_str) {
                self.cursor = Some(cursor.to_owned());
            }
        }
        Ok(())
    }
}

pub(super) fn show(output: &mut super::output::Output, event: &Value) -> Result<(), Failure> {
    if output.format() != Format::Table {
        return output.value(event);
    }
    let part = |name| event.get(name).map_or_else(|| "-".into(), cell);
    output.line(&format!(
        "{:>6}  {:20}  {:34}  {}  {}",
        part("position"),
        part("created"),
        part("type"),
        part("object_id"),
        part("id")
    ))
}

/// The request's `start`: a word, a time, or else a cursor.
pub(super) fn start(from: &str) -> Result<Map<String, Value>, Failure> {
    let is_time = from.parse::<prost_types::Timestamp>().is_ok();
    let (name, value) = match from {
        "earliest" | "latest" => (from, json!(true)),
        "" => return Err(Failure::Data("`--from` is empty".into())),
        _ if is_time => ("at_time", json!(from)),
        _ => ("after_cursor", json!(from)),
    };
    Ok(Map::from_iter([(name.to_owned(), value)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_word_a_time_or_a_cursor() {
        for (from, name) in [
            ("earliest", "earliest"),
            ("latest", "latest"),
            ("2026-11-23T08:00:00Z", "at_time"),
            ("AQAAAAAAAAABAAAAAAAAAAE", "after_cursor"),
        ] {
            assert!(start(from).unwrap().contains_key(name), "{from}");
        }
        assert!(start("").is_err());
    }

    #[test]
    fn every_start_is_one_that_the_contract_has() {
        let method = Contract::load().unwrap().method("EventService/Subscribe").unwrap();
        for from in ["earliest", "latest", "2026-11-23T08:00:00Z", "AQ"] {
            assert!(message(&method, Value::Object(start(from).unwrap())).is_ok(), "{from}");
        }
    }
}
