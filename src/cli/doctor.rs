//! `tollgate doctor`: looks at everything a gateway depends on, and says of each thing how it stands and what to do. It
//! repairs nothing.

mod callers;
mod database;
mod files;
mod machine;
mod report;
mod stripe;
mod tls;

use clap::Args;
use serde_json::json;

use self::report::{Finding, Level, Report};
use super::config::Source;
use super::failure::Failure;
use super::output::{Choice, Format, Output, printable};
use crate::config::{self, Config, Environment, Faults};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    output: Choice,
}

/// Looks at everything; fails when something does.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut report = Report::default();
    let (flags, environment) = (arguments.source.flags(), Environment::current());
    match config::load(&flags, &environment) {
        Ok(config) => {
            report.pass("config", "nothing is wrong with the settings");
            let (shown, _) = config::show(&flags, &environment);
            files::secrets(&shown, &mut report);
            look(&config, &mut report).await;
        }
        Err(faults) => settings(&faults, &mut report),
    }
    let mut output = arguments.output.open();
    print(&report, &mut output)?;
    match report.count(Level::Fail) {
        0 => Ok(()),
        count => Err(Failure::Unsound(format!("{count} of {} checks failed", report.0.len()))),
    }
}

/// Without sound settings there is nothing else to look at.
fn settings(faults: &Faults, report: &mut Report) {
    for fault in &faults.0 {
        let fix = match &fault.meant {
            Some(meant) => format!("write `{meant}`"),
            None => format!("set `{}` anew: `tollgate config schema` and docs/config.md say how", fault.key),
        };
        report.fail("config", fault.to_string(), fix);
    }
}

async fn look(config: &Config, report: &mut Report) {
    callers::look(config, report);
    files::checkpoints(config, report);
    tls::look(config, report);
    let mut ids = Vec::new();
    for account in stripe::accounts(config) {
        let mut own = Report::default();
        ids.push((account.alias, account.look(config, &mut own).await));
        report.take(account.alias, own);
    }
    machine::folder(&config.data, report);
    if !database::look(config, &ids, report).await {
        machine::ports(config, report);
    }
    machine::limits(config, report);
}

fn print(report: &Report, output: &mut Output) -> Result<(), Failure> {
    match output.format() {
        Format::Table => report.0.iter().try_for_each(|finding| line(finding, output)),
        Format::Json => {
            let of = |level| report.count(level);
            let checks: Vec<_> = report.0.iter().map(Finding::json).collect();
            output.value(&json!({
                "checks": checks, "passed": of(Level::Pass), "warned": of(Level::Warn), "failed": of(Level::Fail),
            }))
        }
        Format::Jsonl => report.0.iter().try_for_each(|finding| output.value(&finding.json())),
    }
}

fn line(finding: &Finding, output: &mut Output) -> Result<(), Failure> {
    let Finding { check, level, found, fix } = finding;
    output.line(&format!("{}  {check:16}  {}", level.as_str(), printable(found)))?;
    if fix.is_empty() { Ok(()) } else { output.line(&format!("      {:16}  fix: {}", "", printable(fix))) }
}
