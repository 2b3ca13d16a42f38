//! `tollgate audit export`: writes records as JSON lines, from which the log can be verified, or as CSV for tables.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::audit::entry::Entry;
use crate::cli::client::{Client, Contract, Target, message};
use crate::cli::failure::{Failure, say};
use crate::proto::v1::{ExportAuditRecordsResponse, ExportedAuditRecord};

/// Columns of the CSV form, each a member of the record by its place (RFC 6901); the first three are the log's own.
const COLUMNS: [(&str, &str); 20] = [
    ("at_ms", "/at_ms"),
    ("phase", "/phase"),
    ("caller", "/caller"),
    ("namespace", "/namespace"),
    ("identity", "/identity"),
    ("actor", "/actor"),
    ("peer", "/peer"),
    ("rpc", "/rpc"),
    ("order_id", "/order_id"),
    ("operation_id", "/operation_id"),
    ("idempotency_key", "/idempotency_key"),
    ("decision", "/decision"),
    ("result", "/outcome/result"),
    ("reason", "/outcome/reason"),
    ("stripe_request_ids", "/stripe_request_ids"),
    ("object_id", "/object_id"),
    ("amount_minor", "/amount_minor"),
    ("currency", "/currency"),
    ("latency_ms", "/latency_ms"),
    ("trace_id", "/trace_id"),
];
/// What a table calculator takes for the beginning of a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// One JSON value a line; what `audit verify` reads
    Jsonl,
    /// For tables; proves nothing
    Csv,
}

/// Arguments of `audit export`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The file to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Form
    #[arg(long, value_enum, default_value_t = Form::Jsonl)]
    format: Form,
    /// Only records after this sequence; a verification needs all
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// Only records up to this sequence [default: all there are]
    #[arg(long, default_value_t = 0)]
    up_to: u64,
    #[command(flatten)]
    target: Target,
}

/// Writes an export.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.target.client().await?;
    let to: Box<dyn Write + Send> = match &arguments.to {
        Some(file) => Box::new(File::create(file).map_err(Failure::Output)?),
        None => Box::new(io::stdout()),
    };
    let mut sheet = Sheet::open(arguments.format, to)?;
    let records = fetch(&client, arguments.after, arguments.up_to, |entry| sheet.write(&entry)).await?;
    sheet.close()?;
    if arguments.to.is_some() {
        say(&format!("{records} records written"));
    }
    Ok(())
}

/// Reads records from the gateway one after the other; how many there were.
pub(super) async fn fetch(
    client: &Client,
    after: u64,
    up_to: u64,
    mut take: impl FnMut(Entry) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let method = Contract::load()?.method("AuditService/ExportAuditRecords")?;
    let request = message(&method, json!({"after_sequence": after, "up_to_sequence": up_to}))?;
    let mut answers = client.start(&method, vec![request]).await?;
    let (bar, mut count) = (progress(), 0);
    while let Some(answer) = answers.message().await? {
        let answer: ExportAuditRecordsResponse = answer.transcode_to().map_err(|_| garbled())?;
        bar.set_length(answer.end_sequence.saturating_sub(after));
        for record in answer.records {
            take(entry(record)?)?;
            count += 1;
        }
        bar.set_position(count);
    }
    bar.finish_and_clear();
    Ok(count)
}

/// A bar on standard error; none where nobody watches.
pub(super) fn progress() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} records, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn entry(record: ExportedAuditRecord) -> Result<Entry, Failure> {
    let ExportedAuditRecord { sequence, id, leaf, record } = record;
    let leaf = leaf.try_into().map_err(|_| garbled())?;
    Ok(Entry { sequence, id, leaf, record })
}

fn garbled() -> Failure {
    Failure::Unreachable("the gateway's answer cannot be read".into())
}

/// Where an export goes.
enum Sheet {
    Jsonl(BufWriter<Box<dyn Write + Send>>),
    Csv(Box<csv::Writer<Box<dyn Write + Send>>>),
}

impl Sheet {
    fn open(form: Form, to: Box<dyn Write + Send>) -> Result<Self, Failure> {
        match form {
            Form::Jsonl => Ok(Self::Jsonl(BufWriter::new(to))),
            Form::Csv => {
                let mut writer = csv::Writer::from_writer(to);
                let own = ["sequence", "id", "leaf"];
                writer
                    .write_record(own.into_iter().chain(COLUMNS.map(|(title, _)| title)))
                    .map_err(unwritten)?;
                Ok(Self::Csv(Box::new(writer)))
            }
        }
    }

    fn write(&mut self, entry: &Entry) -> Result<(), Failure> {
        match self {
            Self::Jsonl(to) => {
                let line = entry
                    .line()
                    .map_err(|error| Failure::Data(format!("a record cannot be written: {error}")))?;
                writeln!(to, "{line}").map_err(Failure::Output)
            }
            Self::Csv(writer) => {
                let record: Value = serde_json::from_slice(&entry.record).unwrap_or_default();
                let own = [
                    entry.sequence.to_string(),
                    entry.id.clone(),
                    crate::domain::operation::hex(&entry.leaf),
                ];
                let cells = COLUMNS.map(|(_, at)| cell(record.pointer(at)));
                writer.write_record(own.into_iter().chain(cells)).map_err(unwritten)
            }
        }
    }

    fn close(self) -> Result<(), Failure> {
        match self {
            Self::Jsonl(mut to) => to.flush().map_err(Failure::Output),
            Self::Csv(mut writer) => writer.flush().map_err(Failure::Output),
        }
    }
}

/// A value as a cell. Text that a table calculator would run gets an apostrophe in front; numbers stay as they are.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) if text.starts_with(FORMULA) => format!("'{text}"),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(" "),
        Some(other) => other.to_string(),
    }
}

fn unwritten(error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Failure::Output(error),
        other => Failure::Output(io::Error::other(format!("{other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tree::leaf;
    use crate::cli::output::Shared;

    fn written(form: Form, record: &str) -> String {
        let shared = Shared::default();
        let mut sheet = Sheet::open(form, Box::new(shared.clone())).unwrap();
        let record = record.as_bytes().to_vec();
        sheet.write(&Entry { sequence: 1, id: "aud_1".into(), leaf: leaf(&record), record }).unwrap();
        sheet.close().unwrap();
        shared.text()
    }

    #[test]
    fn hostile_text_stays_in_its_cell() {
        let hostile = "=cmd|' /C calc'!A0";
        let record = json!({"caller": "a,b\"c\"\nd", "order_id": hostile, "actor": "@x", "amount_minor": -5});
        let text = written(Form::Csv, &record.to_string());
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let titles = reader.headers().unwrap().clone();
        let row = reader.records().next().unwrap().unwrap();
        let of = |title: &str| row.get(titles.iter().position(|known| known == title).unwrap()).unwrap();
        assert_eq!(of("caller"), "a,b\"c\"\nd");
        assert_eq!(of("order_id"), format!("'{hostile}"));
        assert_eq!((of("actor"), of("amount_minor"), of("peer")), ("'@x", "-5", ""));
        assert_eq!(reader.records().count(), 0);
    }

    #[test]
    fn a_line_can_be_read_back() {
        let text = written(Form::Jsonl, r#"{"id":"aud_1"}"#);
        assert!(Entry::parse(text.trim_end()).is_some(), "{text}");
    }
}
