//! `tollgate events list`, `get` and `watch`: reads of the event log and of one object with its events.

use clap::Args;
use serde_json::{Map, Value, json};
use tonic::Streaming;

use super::show;
use super::silence::Silence;
use super::which::Which;
use crate::cli::client::{Contract, Target, message, to_json};
use crate::cli::failure::{Failure, say};
use crate::cli::output::{Choice, Format};
use crate::cli::signal::StopSignals;

/// Events on one page of a list.
const PAGE_EVENTS: u32 = 100;

/// Arguments of `events list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    which: Which,
    /// That happened at this time or later, such as 2026-11-23T08:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// That happened before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// End after this many events
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Arguments of `events get`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Get {
    /// The event, evt_...
    id: String,
    /// Alias of the Stripe account [default: the gateway's own]
    #[arg(long)]
    account: Option<String>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Arguments of `events watch`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Watch {
    /// The object, such as re_...
    id: String,
    /// Alias of the Stripe account [default: the gateway's own]
    #[arg(long)]
    account: Option<String>,
    #[command(flatten)]
    silence: Silence,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

impl List {
    fn fields(&self) -> Map<String, Value> {
        let mut fields = self.which.fields();
        if self.since.is_some() || self.until.is_some() {
            fields.insert("created".into(), json!({"gte": self.since, "lt": self.until}));
        }
        fields
    }
}

pub(super) async fn list(arguments: List) -> Result<(), Failure> {
    let mut request = arguments.fields();
    let client = arguments.target.client().await?;
    let mut output = arguments.output.open();
    let mut left = arguments.limit;
    loop {
        request.insert("page_size".into(), json!(left.min(PAGE_EVENTS)));
        let page = client.unary("EventService/ListEvents", Value::Object(request.clone())).await?;
        let events = page.get("events").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        events.iter().try_for_each(|event| show(&mut output, event))?;
        left = left.saturating_sub(u32::try_from(events.len()).unwrap_or(left));
        match page.get("next_page_token").and_then(Value::as_str) {
            Some(token) if !token.is_empty() && left > 0 => request.insert("page_token".into(), json!(token)),
            Some(token) if !token.is_empty() => {
                say("there may be more: raise --limit");
                return Ok(());
            }
            _ => return Ok(()),
        };
    }
}

pub(super) async fn get(arguments: Get) -> Result<(), Failure> {
    let request = json!({"id": arguments.id, "account": arguments.account});
    let answer = arguments.target.client().await?.unary("EventService/GetEvent", request).await?;
    arguments.output.open().value(answer.get("event").unwrap_or(&Value::Null))
}

pub(super) async fn watch(arguments: Watch) -> Result<(), Failure> {
    let method = Contract::load()?.method("EventService/WatchObject")?;
    let request = message(&method, json!({"id": arguments.id, "account": arguments.account}))?;
    let mut output = arguments.output.open();
    let client = arguments.target.client().await?;
    let follow = async {
        let mut items: Streaming<_> = client.start(&method, vec![request]).await?;
        while let Some(item) = arguments.silence.next(&mut items).await? {
            let item = to_json(&item)?;
            match (item.get("snapshot"), item.get("event"), output.format()) {
                // For people the object stands first as Stripe has it; programs get every message whole.
                (Some(snapshot), _, Format::Table) => {
                    let object = snapshot.get("json").and_then(Value::as_str).unwrap_or_default();
                    let object: Value = serde_json::from_str(object).unwrap_or_default();
                    output.value(&object)?;
                }
                (_, Some(event), Format::Table) => show(&mut output, event)?,
                (Some(_), _, _) | (_, Some(_), _) => output.value(&item)?,
                (None, None, _) => {}
            }
        }
        Ok(())
    };
    let mut signals = StopSignals::take();
    tokio::select! {
        followed = follow => followed,
        () = signals.next() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        list: List,
    }

    #[test]
    fn a_list_is_limited_to_a_span_of_time() {
        let method = Contract::load().unwrap().method("EventService/ListEvents").unwrap();
        for (flags, wanted) in [
            ("--since 2026-11-23T08:00:00Z", json!({"gte": "2026-11-23T08:00:00Z"})),
            (
                "--since 2026-11-23T08:00:00Z --until 2026-11-24T00:00:00Z",
                json!({"gte": "2026-11-23T08:00:00Z", "lt": "2026-11-24T00:00:00Z"}),
            ),
        ] {
            let line = Line::parse_from(format!("x {flags}").split_whitespace());
            let request = message(&method, Value::Object(line.list.fields())).unwrap();
            assert_eq!(to_json(&request).unwrap()["created"], wanted);
        }
        let slip = Line::parse_from(["x", "--since", "yesterday"]);
        assert!(message(&method, Value::Object(slip.list.fields())).is_err());
        assert_eq!(Line::parse_from(["x"]).list.fields().get("created"), None);
    }
}
