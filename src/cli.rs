//! The command line: what can be typed, and which command runs. Data goes to standard output and everything else to
//! standard error.

mod audit;
mod budgets;
mod call;
mod client;
mod codec;
mod config;
mod dev;
mod doctor;
mod events;
mod failure;
mod freezes;
mod hardening;
mod health;
mod http;
mod operations;
mod output;
mod policy;
mod refunds;
mod sandbox;
mod serve;
mod signal;
mod stripe;
mod subscriptions;
mod tls;
mod tokens;
mod webhook;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use self::failure::{EXIT_CODES, Failure};
use crate::config::Environment;

/// A gateway between your services and Stripe: gRPC in, one audited path out, events on a stream.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Serve(serve::Arguments),
    /// Run the gateway and a simulated Stripe with something in it, for a first look
    Dev(dev::Arguments),
    /// Run the simulated Stripe alone
    Sandbox(sandbox::Arguments),
    /// Call any method of a gateway with JSON
    Call(call::Arguments),
    /// Make and read refunds
    #[command(subcommand)]
    Refunds(refunds::Command),
    /// Read the event stream, or make the sandbox produce events
    #[command(subcommand)]
    Events(events::Command),
    /// Make, show, move and consume named subscriptions to events
    #[command(subcommand)]
    Subscriptions(subscriptions::Command),
    /// Show and settle operations whose outcome is not known
    #[command(subcommand)]
    Operations(operations::Command),
    /// Stop changes of a caller, by a method or at an account from going to Stripe, at once
    Freeze(freezes::Freeze),
    /// Lift a freeze
    Unfreeze(freezes::Unfreeze),
    /// Show what is frozen
    Freezes(freezes::List),
    /// Make, list, replace and end API tokens
    #[command(subcommand)]
    Tokens(tokens::Command),
    /// Show how far budgets are used
    #[command(subcommand)]
    Budgets(budgets::Command),
    /// Search, follow, export and verify the audit log
    #[command(subcommand)]
    Audit(audit::Command),
    /// Check, test and explain what callers may do
    #[command(subcommand)]
    Policy(policy::Command),
    /// Write, check and show the settings of a gateway
    #[command(subcommand)]
    Config(config::Command),
    /// Look at everything a gateway depends on, and say how to mend what is wrong
    Doctor(doctor::Arguments),
    /// Register, show and remove webhook endpoints at Stripe
    #[command(subcommand)]
    Webhook(webhook::Command),
    /// Ask a gateway whether it serves
    Health(health::Arguments),
    /// Print the version
    Version,
    /// Print a script that completes commands in a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// Runs what the arguments say; the first is the program itself.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let program = arguments.first().cloned().unwrap_or_default();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Nowhere to say it: the exit code still does.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE));
        }
    };
    // Before there are threads: the program may begin anew.
    let environment = match cli.command {
        Command::Serve(_) => hardening::environment(&arguments),
        _ => (Environment::current(), None),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failure::report(&Failure::Start(format!("no threads: {error}"))),
    };
    match runtime.block_on(Box::pin(run(cli.command, &program, environment))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure::report(&failure),
    }
}

async fn run(
    command: Command,
    program: &OsString,
    (environment, weakness): (Environment, Option<String>),
) -> Result<(), Failure> {
    match command {
        Command::Serve(arguments) => serve::run(arguments, environment, weakness).await,
        Command::Dev(arguments) => dev::run(arguments, program).await,
        Command::Sandbox(arguments) => sandbox::run(arguments).await,
        Command::Call(arguments) => call::run(arguments).await,
        Command::Refunds(command) => refunds::run(command).await,
        Command::Events(command) => events::run(command).await,
        Command::Subscriptions(command) => subscriptions::run(command).await,
        Command::Operations(command) => operations::run(command).await,
        Command::Freeze(arguments) => freezes::freeze(arguments).await,
        Command::Unfreeze(arguments) => freezes::unfreeze(arguments).await,
        Command::Freezes(arguments) => freezes::list(arguments).await,
        Command::Tokens(command) => tokens::run(command).await,
        Command::Audit(command) => audit::run(command).await,
        Command::Budgets(command) => budgets::run(command).await,
        Command::Policy(command) => policy::run(command),
        Command::Config(command) => config::run(&command),
        Command::Doctor(arguments) => doctor::run(arguments).await,
        Command::Webhook(command) => webhook::run(command).await,
        Command::Health(arguments) => health::run(arguments).await,
        Command::Version => output::write_line(concat!("tollgate ", env!("CARGO_PKG_VERSION"))),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tollgate", &mut script);
            output::write_line(String::from_utf8_lossy(&script).trim_end())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_that_contradict_each_other_are_refused() {
        for line in [
            "tollgate refunds create --order-id o --payment-intent pi_1 --charge ch_1",
            "tollgate refunds create --order-id o",
            "tollgate refunds create --payment-intent pi_1",
            "tollgate dev --json-ready extra",
            "tollgate events tail --from",
            "tollgate events tail --limit 0",
            "tollgate call",
            "tollgate audit trace",
            "tollgate tokens create",
            "tollgate tokens create shop --lifetime 3x",
            "tollgate tokens revoke tok_1",
            "tollgate subscriptions seek orders --to earliest",
            "tollgate subscriptions replay orders --reason again",
            "tollgate audit key --erase 2026-10",
            "tollgate policy explain --caller a --action b --amount 5",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        for line in [
            "tollgate refunds create --order-id o --payment-intent pi_1 --amount 500 --metadata a=b -o json",
            "tollgate events tail --from 2026-11-01T00:00:00Z --types refund.*,charge.refunded",
            "tollgate call RefundService/GetRefund -d {}",
            "tollgate tokens create shop --lifetime 90d --note ci -o json",
            "tollgate tokens rotate tok_1 --overlap 1h",
            "tollgate subscriptions create orders --types refund.*,charge.refunded --from earliest --lease 1m",
            "tollgate subscriptions replay orders evt_1 evt_2 --reason again",
            "tollgate subscriptions consume orders --limit 5 -o jsonl",
            "tollgate dev --ports random --json-ready --data x",
            "tollgate audit search re_1 --param email=a@b.c --phase outcome --since 2026-11-01T00:00:00Z",
            "tollgate audit export --to log.jsonl --format csv",
            "tollgate policy explain a.cedar --caller a --action b --amount 5 --currency eur --field reason=duplicate",
            "tollgate audit verify --export - --checkpoints a --checkpoints b --key @keys",
            "tollgate sandbox --restricted-key rk_test_a=refund_write,charge_read",
            "tollgate config show --config a.toml -o json",
            "tollgate config init -",
            "tollgate doctor --config a.toml -o json",
            "tollgate webhook register --url https://a.example/webhooks/stripe --events refund.created,refund.failed",
            "tollgate sandbox --fault drop_after:POST:/v1/refunds --fault html:*:*:times=1",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}
