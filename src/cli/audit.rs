//! `tollgate audit`: searches, follows, exports and verifies the audit log.

mod export;
mod verify;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::client::Target;
use super::failure::{Failure, say};
use super::output::{Choice, Column, Format, Output, cell, write_line};

const RECORDS: &[Column] = &[
    ("SEQUENCE", "/sequence"),
    ("TIME", "/time"),
    ("PHASE", "/phase"),
    ("CALLER", "/caller"),
    ("RPC", "/rpc"),
    ("ORDER", "/order_id"),
    ("RESULT", "/result"),
    ("OBJECT", "/object_id"),
    ("ID", "/id"),
];
/// Records on one page of a search.
const PAGE_RECORDS: u32 = 100;

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Find records, the oldest first
    Search(Box<Search>),
    /// Tell the story around any id: of an order, a refund, an event, a Stripe request, a trace, ...
    Trace(Trace),
    /// Show one record
    Show(Show),
    /// Write records to a file or to standard output, in a form that can be verified
    Export(export::Arguments),
    /// Check that no record was changed, removed, put in or moved; exit code 76 names the first that was
    Verify(verify::Arguments),
    /// Show the newest signed checkpoints
    Checkpoints(Checkpoints),
    /// Show the public key that checks the log, or drop the key of a month's personal values
    Key(Key),
}

/// The moment of a call.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Phase {
    /// A change is about to be sent
    Intent,
    /// A change was sent, and this came of it
    Outcome,
    /// Answered from memory
    Answered,
    /// No rule permitted it, a freeze, a guard or a budget forbade it, or nobody knows the caller
    Denied,
    /// The call was faulty
    Refused,
    /// Something was read
    Read,
    /// The gateway was operated
    Admin,
}

/// Arguments of `audit search`.
#[derive(Debug, Args)]
pub(super) struct Search {
    /// Any id in the record; makes the search fast
    id: Option<String>,
    /// The caller's name
    #[arg(long)]
    caller: Option<String>,
    /// For whom the caller said it acts
    #[arg(long)]
    actor: Option<String>,
    /// Your order
    #[arg(long)]
    order_id: Option<String>,
    /// The method, as Service/Rpc
    #[arg(long)]
    rpc: Option<String>,
    /// The moment of the call
    #[arg(long, value_enum)]
    phase: Option<Phase>,
    /// The result or its reason, such as succeeded or card_declined
    #[arg(long)]
    result: Option<String>,
    /// Address the call came from
    #[arg(long)]
    peer: Option<String>,
    /// A parameter and its value, such as email=ada@example.com
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_value)]
    param: Option<(String, String)>,
    /// Made at or after, such as 2026-11-23T08:00:00Z
    #[arg(long)]
    since: Option<String>,
    /// Made before
    #[arg(long)]
    until: Option<String>,
    /// End after this many records
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Arguments of `audit trace`.
#[derive(Debug, Args)]
pub(super) struct Trace {
    /// Any id
    id: String,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Arguments of `audit show`.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The record, aud_...
    id: String,
    #[command(flatten)]
    target: Target,
}

/// Arguments of `audit checkpoints`.
#[derive(Debug, Args)]
pub(super) struct Checkpoints {
    /// How many, the latest first
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    #[command(flatten)]
    target: Target,
}

/// Arguments of `audit key`.
#[derive(Debug, Args)]
pub(super) struct Key {
    /// Drop, for good, the key behind the personal values of this past month, such as 2026-10
    #[arg(long, value_name = "MONTH", requires = "reason")]
    erase: Option<String>,
    /// Why, for the record
    #[arg(long, requires = "erase")]
    reason: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// Runs one of the commands.
pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Search(arguments) => search(*arguments).await,
        Command::Trace(arguments) => trace(arguments).await,
        Command::Show(arguments) => show(arguments).await,
        Command::Export(arguments) => export::run(arguments).await,
        Command::Verify(arguments) => verify::run(arguments).await,
        Command::Checkpoints(arguments) => checkpoints(arguments).await,
        Command::Key(arguments) => key(arguments).await,
    }
}

async fn search(arguments: Search) -> Result<(), Failure> {
    let mut request = question(&arguments);
    let client = arguments.target.client().await?;
    let mut output = arguments.output.open();
    let (mut rows, mut left) = (Vec::new(), arguments.limit);
    loop {
        request.insert("page_size".into(), json!(left.min(PAGE_RECORDS)));
        let page = client.unary("AuditService/SearchAuditRecords", Value::Object(request.clone())).await?;
        let records = list(&page, "records");
        left = left.saturating_sub(u32::try_from(records.len()).unwrap_or(left));
        if output.format() == Format::Jsonl {
            records.iter().try_for_each(|record| output.value(record))?;
        } else {
            rows.extend(records);
        }
        match page.get("next_page_token").and_then(Value::as_str) {
            Some(token) if !token.is_empty() && left > 0 => request.insert("page_token".into(), json!(token)),
            Some(token) if !token.is_empty() => {
                say("there may be more: raise --limit");
                break;
            }
            _ => break,
        };
    }
    match output.format() {
        Format::Table => output.table(RECORDS, &rows.iter().map(plain).collect::<Vec<_>>()),
        Format::Json => output.value(&Value::Array(rows)),
        Format::Jsonl => Ok(()),
    }
}

fn question(arguments: &Search) -> Map<String, Value> {
    let text = |text: &Option<String>| json!(text.clone().unwrap_or_default());
    let phase = arguments.phase.map(|phase| format!("AUDIT_PHASE_{}", format!("{phase:?}").to_uppercase()));
    let mut request = Map::from_iter([
        ("id".to_owned(), text(&arguments.id)),
        ("caller".to_owned(), text(&arguments.caller)),
        ("actor".to_owned(), text(&arguments.actor)),
        ("order_id".to_owned(), text(&arguments.order_id)),
        ("rpc".to_owned(), text(&arguments.rpc)),
        ("result".to_owned(), text(&arguments.result)),
        ("peer".to_owned(), text(&arguments.peer)),
    ]);
    request.extend(phase.map(|phase| ("phase".to_owned(), json!(phase))));
    if let Some((name, value)) = &arguments.param {
        request.insert("parameter".into(), json!({"name": name, "value": value}));
    }
    let bounds = [("gte", &arguments.since), ("lt", &arguments.until)];
    let bounds: Map<_, _> =
        bounds.into_iter().filter_map(|(bound, at)| Some((bound.to_owned(), json!(at.as_ref()?)))).collect();
    if !bounds.is_empty() {
        request.insert("time".into(), Value::Object(bounds));
    }
    request
}

async fn trace(arguments: Trace) -> Result<(), Failure> {
    let client = arguments.target.client().await?;
    let mut story = client.unary("AuditService/Trace", json!({"id": arguments.id})).await?;
    let mut output = arguments.output.open();
    if story.get("truncated").and_then(Value::as_bool) == Some(true) {
        say("the story is longer than one answer holds; `tollgate audit search` finds the rest");
    }
    match output.format() {
        Format::Table => list(&story, "steps").iter().try_for_each(|step| tell(&mut output, step)),
        Format::Json => {
            // The call itself is no part of the story.
            story.as_object_mut().and_then(|story| story.shift_remove("call"));
            output.value(&story)
        }
        Format::Jsonl => list(&story, "steps").iter().try_for_each(|step| output.value(step)),
    }
}

/// One step on a line of its own, whole: the widths of a table would cut it.
fn tell(output: &mut Output, step: &Value) -> Result<(), Failure> {
    let part = |name: &str| step.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = part("kind").trim_start_matches("TRACE_STEP_KIND_").to_lowercase();
    let proof = if part("event_id").is_empty() { part("audit_id") } else { part("event_id") };
    let text: String = part("text").chars().filter(|char| !char.is_control()).collect();
    output.line(&format!("{:24}  {kind:8}  {text}  [{proof}]", part("time")))
}

async fn show(arguments: Show) -> Result<(), Failure> {
    let client = arguments.target.client().await?;
    let answer = client.unary("AuditService/GetAuditRecord", json!({"id": arguments.id})).await?;
    write_line(&format!("{:#}", answer.get("record").unwrap_or(&Value::Null)))
}

async fn checkpoints(arguments: Checkpoints) -> Result<(), Failure> {
    let client = arguments.target.client().await?;
    let answer = client.unary("AuditService/ListCheckpoints", json!({"page_size": arguments.limit})).await?;
    warn_of_refusal(&answer);
    for checkpoint in list(&answer, "checkpoints") {
        // With its own line break this makes the form of a checkpoint file.
        write_line(checkpoint.get("note").and_then(Value::as_str).unwrap_or_default())?;
    }
    Ok(())
}

async fn key(arguments: Key) -> Result<(), Failure> {
    let client = arguments.target.client().await?;
    if let Some(month) = &arguments.erase {
        let request = json!({"month": month, "reason": arguments.reason});
        let answer = client.unary("AuditService/EraseAuditKey", request).await?;
        let left: Vec<String> = list(&answer, "key_months").iter().map(cell).collect();
        say(&format!("the key of {month} is gone; there are keys of {}", left.join(", ")));
        return Ok(());
    }
    let answer = client.unary("AuditService/ListCheckpoints", json!({"page_size": 1})).await?;
    warn_of_refusal(&answer);
    write_line(answer.get("verifier_key").and_then(Value::as_str).unwrap_or_default())
}

fn warn_of_refusal(answer: &Value) {
    let refusal = answer.get("refusal").and_then(Value::as_str).unwrap_or_default();
    if !refusal.is_empty() {
        say(&format!("warning: the gateway signs nothing any more: {refusal}"));
    }
}

/// A record for people: the phase without the name of its type.
fn plain(record: &Value) -> Value {
    let mut record = record.clone();
    for (name, prefix) in [("phase", "AUDIT_PHASE_"), ("rpc", "tollgate.v1.")] {
        let short =
            record.get(name).and_then(Value::as_str).map(|text| json!(text.trim_start_matches(prefix)));
        if let (Some(record), Some(short)) = (record.as_object_mut(), short) {
            record.insert(name.to_owned(), short);
        }
    }
    record
}

fn list(answer: &Value, name: &str) -> Vec<Value> {
    answer.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn name_value(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    parts.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "is not NAME=VALUE".into())
}
