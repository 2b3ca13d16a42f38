//! `tollgate audit verify`: checks an export against checkpoints and a public key. With all three in files it asks
//! nobody; what is not given comes from the gateway, and is then only as good as its word.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::export::{fetch, progress};
use super::list;
use crate::audit::checkpoint::notes;
use crate::audit::note::NoteVerifier;
use crate::audit::verify::{Flaw, Verified, Verifier};
use crate::cli::client::Target;
use crate::cli::failure::{Failure, say};
use crate::cli::output::{Choice, Format};

/// Checkpoints that are asked for where none are given.
const CHECKPOINTS: u32 = 100;
/// Lines between two movements of the bar.
const BAR_LINES: u64 = 1_000;

/// Arguments of `audit verify`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// An export in JSON lines, from the first record on; - for standard input [default: asks the gateway]
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// A checkpoint file; can be repeated [default: asks the gateway]
    #[arg(long, value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// The public key, or @FILE with one on each line [default: asks the gateway]
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Verifies a log.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let asked = arguments.checkpoints.is_empty() || arguments.key.is_empty();
    let told = if asked {
        say(
            "note: checkpoints or key come from the gateway itself; give --checkpoints and --key from elsewhere for a proof",
        );
        let request = json!({"page_size": CHECKPOINTS});
        Some(arguments.target.client().await?.unary("AuditService/ListCheckpoints", request).await?)
    } else {
        None
    };
    let keys = keys(&arguments.key, told.as_ref())?;
    let notes = gathered(&arguments.checkpoints, told.as_ref())?;
    let mut verifier =
        Verifier::new(notes.iter().map(String::as_str), &keys).map_err(|flaw| tampered(&flaw))?;
    match &arguments.export {
        None => {
            let client = arguments.target.client().await?;
            fetch(&client, 0, 0, |entry| verifier.entry(&entry).map_err(|flaw| tampered(&flaw))).await?;
        }
        Some(file) if file.as_os_str() == "-" => read(io::stdin().lock(), &mut verifier)?,
        Some(file) => read(BufReader::new(open(file)?), &mut verifier)?,
    }
    let verified = verifier.finish().map_err(|flaw| tampered(&flaw))?;
    report(arguments.output, verified)
}

fn keys(given: &[String], told: Option<&Value>) -> Result<Vec<NoteVerifier>, Failure> {
    let mut texts = Vec::new();
    for key in given {
        match key.strip_prefix('@') {
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|error| unread(file, &error))?;
                texts.extend(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
            }
            None => texts.push(key.clone()),
        }
    }
    if texts.is_empty() {
        let key = told.and_then(|told| told.get("verifier_key")?.as_str()).unwrap_or_default();
        texts.push(key.to_owned());
    }
    let parse = |text: &String| NoteVerifier::parse(text).map_err(|error| Failure::Data(error.to_string()));
    texts.iter().map(parse).collect()
}

fn gathered(files: &[PathBuf], told: Option<&Value>) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for file in files {
        let text =
            std::fs::read_to_string(file).map_err(|error| unread(&file.display().to_string(), &error))?;
        found.extend(notes(&text));
    }
    if files.is_empty() {
        let listed = told.map(|told| list(told, "checkpoints")).unwrap_or_default();
        found.extend(listed.iter().filter_map(|one| Some(one.get("note")?.as_str()?.to_owned())));
    }
    Ok(found)
}

fn read(lines: impl BufRead, verifier: &mut Verifier) -> Result<(), Failure> {
    let bar = progress();
    for (number, line) in (1_u64..).zip(lines.split(b'\n')) {
        let line = line.map_err(|error| Failure::Data(format!("the export cannot be read: {error}")))?;
        // What is no text is no record, and the verifier says which.
        let line = String::from_utf8_lossy(&line);
        verifier.line(&line).map_err(|flaw| tampered(&flaw))?;
        if number.is_multiple_of(BAR_LINES) {
            bar.set_length(number);
            bar.set_position(number);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn report(output: Choice, verified: Verified) -> Result<(), Failure> {
    let Verified { records, proved, erased, checkpoints } = verified;
    let mut output = output.open();
    if output.format() == Format::Table {
        output.line(&format!(
            "{proved} records are proved by {checkpoints} checkpoints; {erased} of all are erased or hidden and keep their place"
        ))?;
        let unsigned = records - proved;
        if unsigned > 0 {
            output.line(&format!(
                "{unsigned} records after them are whole, and no checkpoint covers them yet"
            ))?;
        }
        return Ok(());
    }
    output.value(&json!({"records": records, "proved": proved, "erased": erased, "checkpoints": checkpoints}))
}

fn tampered(flaw: &Flaw) -> Failure {
    Failure::Tampered(flaw.to_string())
}

fn open(file: &PathBuf) -> Result<File, Failure> {
    File::open(file).map_err(|error| unread(&file.display().to_string(), &error))
}

fn unread(file: &str, error: &io::Error) -> Failure {
    Failure::Data(format!("`{file}` cannot be read: {error}"))
}
