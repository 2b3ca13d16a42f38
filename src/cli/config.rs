//! `tollgate config`: a first file, what is wrong with the settings, what holds, and a schema for editors. It starts
//! nothing and shows no secret.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::{Failure, say};
use super::output::{Choice, Format, write_line};
use crate::config::{self, CONFIG_VARIABLE, Environment, Flags};

/// Only the owner reads the file, since a secret may be written into it.
const FILE_MODE: u32 = 0o600;

/// What to do with the settings.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a first configuration file, with every setting in it
    Init {
        /// Where to, or - for standard output; a file that exists stays as it is
        #[arg(default_value = "tollgate.toml")]
        file: PathBuf,
    },
    /// Say everything that is wrong with the settings, and where it was set
    Check(Source),
    /// Show every setting as it holds, and where it came from; secrets as set or not
    Show {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        output: Choice,
    },
    /// Print a JSON Schema of the configuration file, for editors
    Schema,
}

/// Where settings are read from, besides the environment.
#[derive(Clone, Debug, Args)]
pub(super) struct Source {
    /// The configuration file [default: tollgate.toml, if there is one]
    #[arg(long, env = CONFIG_VARIABLE)]
    config: Option<PathBuf>,
}

impl Source {
    /// As flags of a gateway.
    pub(super) fn flags(&self) -> Flags {
        Flags { config: self.config.clone(), values: Vec::new() }
    }
}

/// Runs the command.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Init { file } if file == Path::new("-") => write_line(config::sample().trim_end()),
        Command::Init { file } => init(file),
        Command::Check(source) => {
            config::load(&source.flags(), &Environment::current())?;
            say("nothing is wrong with the settings; `tollgate doctor` looks at what they lead to");
            Ok(())
        }
        Command::Show { source, output } => show(source, *output),
        Command::Schema => write_line(&format!("{:#}", config::schema())),
    }
}

fn init(file: &Path) -> Result<(), Failure> {
    let new = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(file);
    let written = new.and_then(|mut file| file.write_all(config::sample().as_bytes()));
    written.map_err(|error| Failure::Start(format!("cannot write `{}`: {error}", file.display())))?;
    say(&format!(
        "wrote `{}`: put the Stripe key and the webhook secret into the files that it names",
        file.display()
    ));
    Ok(())
}

/// Shows what there is even when something is wrong with it, and then says so.
fn show(source: &Source, output: Choice) -> Result<(), Failure> {
    let (shown, faults) = config::show(&source.flags(), &Environment::current());
    let rows: Vec<_> = shown.iter().map(|shown| json!(shown)).collect();
    let mut output = output.open();
    match output.format() {
        Format::Table => {
            output.table(&[("KEY", "/key"), ("VALUE", "/value"), ("FROM", "/origin")], &rows)?;
        }
        Format::Json => output.value(&json!({"settings": rows}))?,
        Format::Jsonl => rows.iter().try_for_each(|row| output.value(row))?,
    }
    if faults.0.is_empty() { Ok(()) } else { Err(faults.into()) }
}
