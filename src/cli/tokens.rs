//! `tollgate tokens`: API tokens of callers, for operators. A new token goes to standard output and nowhere else.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Target;
use super::failure::{Failure, say};
use super::output::{Choice, Column, Format};

const COLUMNS: &[Column] = &[
    ("ID", "/id"),
    ("CALLER", "/caller"),
    ("STATE", "/state"),
    ("CREATED", "/created"),
    ("EXPIRES", "/expires"),
    ("LAST USED", "/last_used"),
    ("REPLACES", "/replaces"),
    ("NOTE", "/note"),
];

/// What to do with API tokens; needs a caller that may.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token of a caller and print it; it cannot be shown again
    Create(Create),
    /// Show the tokens that there are, but not the tokens themselves
    List(List),
    /// Make a token in another one's place and print it; the other ends after an overlap
    Rotate(Rotate),
    /// End a token at once
    Revoke(Revoke),
}

/// Arguments of `tokens create`.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// The caller, by its name in the configuration
    caller: String,
    /// How long it works, such as 90d, 12h, 30m or 45s [default: until it is revoked]
    #[arg(long, value_parser = seconds)]
    lifetime: Option<i64>,
    /// What it is for
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `tokens list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only tokens of this caller
    #[arg(long)]
    caller: Option<String>,
    /// Those that ended too
    #[arg(long)]
    ended: bool,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `tokens rotate`.
#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// The token's name, as `tokens list` shows it
    id: String,
    /// How long the replaced token still works, such as 1h
    #[arg(long, value_parser = seconds, default_value = "1h")]
    overlap: i64,
    /// How long the new token works, such as 90d [default: until it is revoked]
    #[arg(long, value_parser = seconds)]
    lifetime: Option<i64>,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `tokens revoke`.
#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// The token's name, as `tokens list` shows it
    id: String,
    /// Why, for the audit log
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Runs one of the commands.
pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(Create { caller, lifetime, note, common }) => {
            let request = json!({"caller": caller, "lifetime_s": lifetime, "note": note});
            show_new(&common, "CreateToken", request).await
        }
        Command::Rotate(Rotate { id, overlap, lifetime, common }) => {
            let request = json!({"id": id, "overlap_s": overlap, "lifetime_s": lifetime});
            show_new(&common, "RotateToken", request).await
        }
        Command::List(List { caller, ended, common }) => {
            let answer = ask(&common, "ListTokens", json!({"caller": caller, "ended": ended})).await?;
            common.output.open().page(&answer, "tokens", COLUMNS, readable)
        }
        Command::Revoke(Revoke { id, reason, common }) => {
            let answer = ask(&common, "RevokeToken", json!({"id": id, "reason": reason})).await?;
            let mut output = common.output.open();
            match output.format() {
                Format::Table => {
                    output.table(COLUMNS, &[readable(answer.get("api_token").cloned().unwrap_or_default())])
                }
                Format::Json | Format::Jsonl => output.value(&answer),
            }
        }
    }
}

async fn ask(common: &Common, rpc: &str, request: Value) -> Result<Value, Failure> {
    common.target.client().await?.unary(&format!("TokenService/{rpc}"), request).await
}

/// Prints a new token: alone for people and pipes of text, so that it can go straight into a file.
async fn show_new(common: &Common, rpc: &str, request: Value) -> Result<(), Failure> {
    let answer = ask(common, rpc, request).await?;
    let mut output = common.output.open();
    if output.format() != Format::Table {
        return output.value(&answer);
    }
    let text = |at: &str| answer.pointer(at).and_then(Value::as_str).unwrap_or_default();
    say(&format!(
        "token `{}` of `{}`; it cannot be shown again",
        text("/api_token/id"),
        text("/api_token/caller")
    ));
    if let Some(end) = answer.pointer("/replaced/expires").and_then(Value::as_str) {
        say(&format!("token `{}` works until {end}", text("/replaced/id")));
    }
    output.line(text("/token"))
}

/// The state without its type's name.
fn readable(mut token: Value) -> Value {
    if let Some(Value::String(state)) = token.get_mut("state") {
        *state = state.trim_start_matches("API_TOKEN_STATE_").to_lowercase();
    }
    token
}

/// Seconds from a number with its unit.
pub(super) fn seconds(text: &str) -> Result<i64, String> {
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let parsed = units.into_iter().find_map(|(unit, length)| {
        let count: i64 = text.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(length).filter(|seconds| *seconds >= 0)
    });
    parsed.ok_or_else(|| "is not a time such as `90d`, `12h`, `30m` or `45s`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::{Contract, message};

    #[test]
    fn requests_are_those_of_the_contract() {
        let contract = Contract::load().unwrap();
        for (rpc, request) in [
            ("CreateToken", json!({"caller": "a", "lifetime_s": null, "note": null})),
            ("ListTokens", json!({"caller": null, "ended": true})),
            ("RotateToken", json!({"id": "a", "overlap_s": 5, "lifetime_s": 6})),
            ("RevokeToken", json!({"id": "a", "reason": "lost"})),
        ] {
            let method = contract.method(&format!("TokenService/{rpc}")).unwrap();
            assert!(message(&method, request).is_ok(), "{rpc}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(
            (seconds("2d"), seconds("3h"), seconds("4m"), seconds("0s")),
            (Ok(172_800), Ok(10_800), Ok(240), Ok(0))
        );
        for wrong in ["", "5", "d", "-1d", "1.5h", "9223372036854775807d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
