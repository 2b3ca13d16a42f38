//! `tollgate policy`: checks policies, tries them against tables of expected decisions, and says why a call would be
//! decided as it would. It works on files and needs no gateway.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::failure::{Failure, say};
use super::output::{Choice, Column, Format, write_line};
use crate::config::{self, CONFIG_VARIABLE, Config, Environment, Flags};
use crate::domain::caller::{Caller, Credential};
use crate::domain::operation::{DEFAULT_ALIAS, Mode};
use crate::policy::{self, Facts, Known, PolicySet, Question, SCHEMA, Table, Target};

const ROWS: &[Column] =
    &[("RESULT", "/result"), ("TABLE", "/table"), ("ROW", "/row"), ("DECISION", "/decision")];
const RULES: &[Column] = &[("RULE", "/rule"), ("EFFECT", "/effect"), ("SAYS", "/says"), ("PLACE", "/place")];
/// What a new file of policies says, around the rules of its callers.
const STARTER: &str = include_str!("policy/starter.cedar");

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check policies, and warn of what is probably a mistake; exit code 78 when they cannot be used
    Check(Check),
    /// Ask policies every row of the tables of expected decisions (*.decisions.toml) beside them
    Test(Test),
    /// Say how a call would be decided, and what every rule says to it
    Explain(Box<Explain>),
    /// Print everything that policies can speak of, as a Cedar schema
    Schema,
    /// Write a first file of policies, to be narrowed
    Init(Init),
}

/// Where the policies are.
#[derive(Debug, Args)]
struct Files {
    /// Files with policies, or folders of them [default: those of the configuration]
    paths: Vec<PathBuf>,
    /// The configuration file, for its policies and for the names of callers and accounts [default: tollgate.toml, if there is one]
    #[arg(long, env = CONFIG_VARIABLE)]
    config: Option<PathBuf>,
}

/// Arguments of `policy check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    files: Files,
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
}

/// Arguments of `policy test`.
#[derive(Debug, Args)]
pub(super) struct Test {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    output: Choice,
}

/// Arguments of `policy explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    files: Files,
    /// Who calls
    #[arg(long)]
    caller: String,
    /// A group of the caller; can be repeated [default: those of the configuration]
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// The caller's namespace [default: that of the configuration, or the caller's name]
    #[arg(long)]
    namespace: Option<String>,
    /// What is called, such as RefundService.CreateRefund
    #[arg(long)]
    action: String,
    /// Alias of the Stripe account
    #[arg(long, default_value = DEFAULT_ALIAS)]
    account: String,
    /// Side of Stripe
    #[arg(long, value_enum, default_value_t = Side::Test)]
    mode: Side,
    /// Amount, in the smallest unit of the currency
    #[arg(long, requires = "currency", allow_negative_numbers = true)]
    amount: Option<i64>,
    /// Currency, such as eur
    #[arg(long, requires = "amount")]
    currency: Option<String>,
    /// The order
    #[arg(long, default_value = "")]
    order_id: String,
    /// The operation of the order
    #[arg(long, default_value = "")]
    operation_id: String,
    /// The type of an event, with EventService.ReceiveEvent
    #[arg(long, default_value = "")]
    event_type: String,
    /// A field of the request by its name at Stripe; can be repeated
    #[arg(long = "field", value_name = "NAME=VALUE", value_parser = super::refunds::key_value)]
    fields: Vec<(String, String)>,
    /// A key and value of the order's metadata; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::refunds::key_value)]
    metadata: Vec<(String, String)>,
    #[command(flatten)]
    output: Choice,
}

/// Arguments of `policy init`.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// The file to write; it must not exist yet
    file: PathBuf,
    /// A caller that may do everything, to begin with; can be repeated
    #[arg(long = "caller", value_name = "NAME", default_value = "default")]
    callers: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Side {
    Test,
    Live,
}

/// Runs one of the commands.
pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Check(arguments) => check(&arguments),
        Command::Test(arguments) => test(&arguments),
        Command::Explain(arguments) => explain(&arguments),
        Command::Schema => write_line(SCHEMA.trim_end()),
        Command::Init(arguments) => init(&arguments),
    }
}

impl Files {
    /// The configuration, where it is named or the policies are not.
    fn config(&self) -> Result<Option<Config>, Failure> {
        if self.config.is_none() && !self.paths.is_empty() {
            return Ok(None);
        }
        let flags = Flags { config: self.config.clone(), values: Vec::new() };
        Ok(Some(config::load(&flags, &Environment::current())?))
    }

    fn paths(&self, config: Option<&Config>) -> Result<Vec<PathBuf>, Failure> {
        let configured = config.map(|config| config.policy_files.clone()).unwrap_or_default();
        let paths = if self.paths.is_empty() { configured } else { self.paths.clone() };
        if paths.is_empty() {
            let none = "no policies are named; name files, or set `policy.files` in the configuration";
            return Err(Failure::Data(none.to_owned()));
        }
        Ok(paths)
    }
}

fn check(arguments: &Check) -> Result<(), Failure> {
    let config = arguments.files.config()?;
    let paths = arguments.files.paths(config.as_ref())?;
    let set = PolicySet::parse(&policy::read(&paths)?)?;
    let known = config.as_ref().map(Known::of);
    let warnings = set.warnings(known.as_ref());
    for warning in &warnings {
        say(&format!("warning: {warning}"));
    }
    if arguments.strict && !warnings.is_empty() {
        return Err(Failure::Unexpected(format!("{} warnings", warnings.len())));
    }
    write_line(&format!("{} rules, {} warnings", set.rules().count(), warnings.len()))
}

fn test(arguments: &Test) -> Result<(), Failure> {
    let config = arguments.files.config()?;
    let policies = policy::files(&arguments.files.paths(config.as_ref())?)?;
    let tables = Table::beside(&policies);
    let mut rows = Vec::new();
    for path in &tables {
        let table = Table::read(path)?;
        let set = PolicySet::parse(&policy::read(&table.policies(path))?)?;
        rows.extend(table.judge(&set).into_iter().map(|verdict| {
            json!({
                "result": if verdict.as_expected { "ok" } else { "FAILED" },
                "table": path.display().to_string(),
                "row": verdict.says,
                "decision": verdict.found,
            })
        }));
    }
    show(arguments.output, ROWS, &rows)?;
    let failed = rows.iter().filter(|row| row.pointer("/result") != Some(&json!("ok"))).count();
    match (rows.len(), failed) {
        (0, _) => Err(Failure::Data(
            "no table of decisions (`*.decisions.toml`) lies beside the policies".to_owned(),
        )),
        (_, 0) => Ok(()),
        (all, failed) => Err(Failure::Unexpected(format!("{failed} of {all} rows are decided otherwise"))),
    }
}

fn explain(arguments: &Explain) -> Result<(), Failure> {
    let config = arguments.files.config()?;
    let set = PolicySet::parse(&policy::read(&arguments.files.paths(config.as_ref())?)?)?;
    let configured =
        config.iter().flat_map(|config| &config.callers).find(|one| one.name == arguments.caller);
    let namespace = arguments.namespace.clone().or_else(|| configured.map(|caller| caller.namespace.clone()));
    let groups = configured.map(|caller| caller.groups.clone()).unwrap_or_default();
    let caller = Caller {
        groups: if arguments.groups.is_empty() { groups } else { arguments.groups.clone() },
        credential: Credential::Token { id: String::new() },
        ..Caller::own(&arguments.caller, &namespace.unwrap_or_else(|| arguments.caller.clone()))
    };
    let explained = set.explain(&question(arguments, &caller));
    let rules: Vec<Value> = explained
        .bearings
        .iter()
        .map(|bearing| {
            let effect = if bearing.forbids { "forbid" } else { "permit" };
            json!({"rule": bearing.rule, "effect": effect, "says": bearing.says, "place": bearing.place})
        })
        .collect();
    let mut output = arguments.output.open();
    let sentence = explained.decision.sentence();
    if output.format() != Format::Table {
        let permitted = explained.decision.permitted;
        return output.value(&json!({"permitted": permitted, "decision": sentence, "rules": rules}));
    }
    output.line(&sentence)?;
    output.table(RULES, &rules)
}

fn question<'a>(arguments: &'a Explain, caller: &'a Caller) -> Question<'a> {
    let pair = |(name, value): &'a (String, String)| (name.as_str(), value.as_str());
    Question {
        caller,
        action: &arguments.action,
        account: Target {
            alias: &arguments.account,
            id: "",
            mode: match arguments.mode {
                Side::Test => Mode::Test,
                Side::Live => Mode::Live,
            },
        },
        facts: Facts {
            order_id: &arguments.order_id,
            operation_id: &arguments.operation_id,
            money: arguments.amount.zip(arguments.currency.as_deref()),
            fields: arguments.fields.iter().map(pair).collect(),
            metadata: arguments.metadata.iter().map(pair).collect(),
            event_type: &arguments.event_type,
        },
    }
}

/// A first file of policies, by which these callers may do everything.
pub(super) fn starter(callers: &[String]) -> String {
    let rules: Vec<String> = callers
        .iter()
        .map(|name| {
            format!(
                "@id(\"{name}-may-do-everything\")\npermit (\n  principal == Caller::\"{name}\",\n  action,\n  resource\n);\n"
            )
        })
        .collect();
    format!("{STARTER}\n{}", rules.join("\n"))
}

fn init(arguments: &Init) -> Result<(), Failure> {
    let text = starter(&arguments.callers);
    // A caller's name may be anything; what cannot be used is not written.
    let file = arguments.file.display().to_string();
    PolicySet::parse(&[policy::Source { file: file.clone(), text: text.clone() }])?;
    let written = OpenOptions::new().write(true).create_new(true).open(&arguments.file);
    let written = written.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Failure::Data(format!("`{file}` cannot be written: {error}")))?;
    say(&format!(
        "wrote `{file}`; set `policy.files = [\"{file}\"]` in the configuration, or `TOLLGATE_POLICY_FILES={file}`"
    ));
    Ok(())
}

fn show(output: Choice, columns: &[Column], rows: &[Value]) -> Result<(), Failure> {
    let mut output = output.open();
    match output.format() {
        Format::Table => output.table(columns, rows),
        Format::Json => output.value(&Value::Array(rows.to_vec())),
        Format::Jsonl => rows.iter().try_for_each(|row| output.value(row)),
    }
}
