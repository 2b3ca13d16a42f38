//! Writes data to standard output as a table, as JSON or as JSON lines; it knows nothing of what the data means.

use std::io::{self, IsTerminal as _, Write};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::failure::{Failure, say};

/// Widest that a table cell may be, in characters.
const CELL_CHARS_MAX: usize = 60;

/// How data looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// Indented JSON
    Json,
    /// One JSON value a line
    Jsonl,
}

/// The `-o` argument.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Choice {
    /// Form of the output [default: table on a terminal, jsonl elsewhere]
    #[arg(short = 'o', long = "output", value_enum)]
    format: Option<Format>,
}

/// A column of a table: its title and where its cell is in the JSON value (RFC 6901).
pub(super) type Column = (&'static str, &'static str);

/// Standard output in one form.
pub(super) struct Output {
    format: Format,
    to: Box<dyn Write + Send>,
}

impl Choice {
    /// Standard output as asked for.
    pub(super) fn open(self) -> Output {
        let usual = if io::stdout().is_terminal() { Format::Table } else { Format::Jsonl };
        Output { format: self.format.unwrap_or(usual), to: Box::new(io::stdout()) }
    }
}

impl Output {
    /// The form.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Writes one value as JSON, whatever the form: indented unless it is one a line.
    pub(super) fn value(&mut self, value: &Value) -> Result<(), Failure> {
        let text = if self.format == Format::Jsonl { value.to_string() } else { format!("{value:#}") };
        self.line(&text)
    }

    /// Writes rows under their titles.
    pub(super) fn table(&mut self, columns: &[Column], rows: &[Value]) -> Result<(), Failure> {
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|row| columns.iter().map(|(_, at)| cell(row.pointer(at).unwrap_or(&Value::Null))).collect())
            .collect();
        let titles = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        let all: Vec<Vec<String>> = std::iter::once(titles).chain(cells).collect();
        let width = |column: usize| {
            all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns.len()).filter_map(width).collect();
        all.iter().try_for_each(|row| {
            let padded: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            self.line(padded.join("  ").trim_end())
        })
    }

    /// Writes one page of a list: the items that the answer has as `member`, for people as `readable` makes them, and
    /// where the list goes on.
    pub(super) fn page(
        &mut self,
        answer: &Value,
        member: &str,
        columns: &[Column],
        readable: fn(Value) -> Value,
    ) -> Result<(), Failure> {
        let items = answer.get(member).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        match self.format {
            Format::Table => self.table(columns, &items.iter().cloned().map(readable).collect::<Vec<_>>())?,
            Format::Json => self.value(answer)?,
            Format::Jsonl => items.iter().try_for_each(|item| self.value(item))?,
        }
        if let Some(token) = answer.get("next_page_token").and_then(Value::as_str) {
            say(&format!("there are more: --page-token {token}"));
        }
        Ok(())
    }

    /// Writes one line at once, so that a reader of a stream sees it.
    pub(super) fn line(&mut self, line: &str) -> Result<(), Failure> {
        put(&mut self.to, line)
    }
}

/// Writes text that has no other form to standard output.
pub(super) fn write_line(line: &str) -> Result<(), Failure> {
    put(&mut io::stdout(), line)
}

fn put(to: &mut impl Write, line: &str) -> Result<(), Failure> {
    writeln!(to, "{line}").and_then(|()| to.flush()).map_err(Failure::Output)
}

/// A value for people: enum names without their type, control characters shown as such.
pub(super) fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let short: String = printable(&text).chars().take(CELL_CHARS_MAX).collect();
    if short.is_empty() { "-".to_owned() } else { short }
}

/// Text that stays on its line, control characters shown as such.
pub(super) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// An output whose text a test reads.
#[cfg(test)]
#[derive(Clone, Default)]
pub(super) struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

#[cfg(test)]
impl Shared {
    /// What was written so far.
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[cfg(test)]
impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up_and_hostile_text_stays_on_its_line() {
        let shared = Shared::default();
        let mut output = Output { format: Format::Table, to: Box::new(shared.clone()) };
        let rows =
            [json!({"id": "re_1", "amount": 500}), json!({"id": "re_long\u{1b}[2J\n", "amount": null})];
        output.table(&[("ID", "/id"), ("AMOUNT", "/amount")], &rows).unwrap();
        assert_eq!(
            shared.text(),
            "ID                  AMOUNT\nre_1                500\nre_long\\u{1b}[2J\\n  -\n"
        );
    }

    #[test]
    fn a_page_has_its_items_whatever_the_form() {
        let answer = json!({"things": [{"id": "A"}, {"id": "B"}], "next_page_token": "t"});
        let written = |format| {
            let shared = Shared::default();
            let mut output = Output { format, to: Box::new(shared.clone()) };
            let lower = |thing: Value| json!({"id": thing["id"].as_str().unwrap().to_lowercase()});
            output.page(&answer, "things", &[("ID", "/id")], lower).unwrap();
            shared.text()
        };
        assert_eq!(written(Format::Table), "ID\na\nb\n");
        assert_eq!(written(Format::Jsonl), "{\"id\":\"A\"}\n{\"id\":\"B\"}\n");
        assert_eq!(serde_json::from_str::<Value>(&written(Format::Json)).unwrap(), answer);
    }
}
