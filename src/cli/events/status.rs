//! `tollgate events status`: how far back the event log reaches, how far it goes, and how sure it is to be whole.

use clap::Args;
use prost_types::Timestamp;
use serde_json::{Value, json};

use super::super::client::Target;
use super::super::failure::Failure;
use super::super::output::{Choice, Format, cell};

/// Arguments of `events status`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Status {
    /// Alias of the Stripe account whose completeness to show [default: the gateway's own]
    #[arg(long)]
    account: Option<String>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Shows the log as it is now.
pub(in crate::cli) async fn run(arguments: Status) -> Result<(), Failure> {
    let Status { account, target, output } = arguments;
    let answer = target.client().await?.unary("FeedService/GetFeed", json!({"account": account})).await?;
    let mut output = output.open();
    if output.format() != Format::Table {
        return output.value(&answer);
    }
    lines(&answer).iter().try_for_each(|line| output.line(line))
}

/// The answer for people.
fn lines(answer: &Value) -> Vec<String> {
    let part = |at: &str| answer.pointer(at).map_or_else(|| "-".to_owned(), cell);
    let place = |name: &str| match answer.get(name) {
        Some(_) => {
            let [position, received, cursor] =
                ["position", "received", "cursor"].map(|member| part(&format!("/{name}/{member}")));
            format!("{position}, received {received}, cursor {cursor}")
        }
        None => "none yet".to_owned(),
    };
    let kept = |member: &str| part(&format!("/retention/{member}"));
    let mut lines = vec![
        format!("oldest     {}", place("oldest")),
        format!("head       {}", place("head")),
        format!("log        {} events, {} bytes", count(answer), part("/bytes")),
        format!(
            "retention  {} days or {} bytes, {} days at most, marks {} days",
            kept("days"),
            kept("bytes"),
            kept("hard_days"),
            kept("mark_days")
        ),
    ];
    let sweeps = answer.get("completeness").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    lines.extend(sweeps.iter().map(swept));
    if sweeps.is_empty() {
        lines.push("complete   not compared with Stripe's list yet".to_owned());
    }
    lines
}

/// How an account compares with Stripe's list, and how far the comparison is behind the last look.
fn swept(sweep: &Value) -> String {
    let part = |name: &str| sweep.get(name).map_or_else(|| "-".to_owned(), cell);
    let account = match sweep.get("connected_account").and_then(Value::as_str) {
        None | Some("") => "own account".to_owned(),
        Some(_) => part("connected_account"),
    };
    let lag = match (seconds(sweep, "swept_to"), seconds(sweep, "last_sweep")) {
        (Some(to), Some(last)) => format!(", {} s before the last look", last.saturating_sub(to).max(0)),
        _ => String::new(),
    };
    let error = match sweep.get("last_error").and_then(Value::as_str) {
        None | Some("") => String::new(),
        Some(_) => format!(", failed: {}", part("last_error")),
    };
    format!(
        "complete   {account} to {}{lag}, {} repaired, {} of {} reads today{error}",
        part("swept_to"),
        number(sweep, "repaired"),
        number(sweep, "reads_today"),
        number(sweep, "reads_per_day")
    )
}

/// Events from the oldest to the last.
fn count(answer: &Value) -> u64 {
    let position = |name: &str| answer.get(name).map(|place| number(place, "position"));
    match (position("oldest"), position("head")) {
        (Some(oldest), Some(head)) => head.saturating_sub(oldest).saturating_add(1),
        _ => 0,
    }
}

/// A 64-bit number, which JSON has as text.
fn number(of: &Value, name: &str) -> u64 {
    let value = of.get(name);
    value.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok())).unwrap_or_default()
}

fn seconds(of: &Value, name: &str) -> Option<i64> {
    Some(of.get(name)?.as_str()?.parse::<Timestamp>().ok()?.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_log_says_so() {
        let retention = json!({"days": 90, "bytes": "10", "hard_days": 180, "mark_days": 35});
        let lines = lines(&json!({"retention": retention}));
        assert_eq!(
            lines,
            [
                "oldest     none yet",
                "head       none yet",
                "log        0 events, - bytes",
                "retention  90 days or 10 bytes, 180 days at most, marks 35 days",
                "complete   not compared with Stripe's list yet",
            ]
        );
    }

    #[test]
    fn both_ends_and_every_account_are_told() {
        let place = |position: &str| json!({"position": position, "cursor": "AQ", "received": "2026-11-23T08:00:00Z"});
        let sweep = json!({"swept_to": "2026-11-23T08:00:00Z", "last_sweep": "2026-11-23T08:05:00Z", "repaired": "3",
            "reads_today": "4", "reads_per_day": "5000"});
        let failed = json!({"connected_account": "acct_9", "last_error": "429"});
        let lines = lines(
            &json!({"oldest": place("5"), "head": place("9"), "bytes": "700", "completeness": [sweep, failed]}),
        );
        assert_eq!(lines[0], "oldest     5, received 2026-11-23T08:00:00Z, cursor AQ");
        assert_eq!(lines[2], "log        5 events, 700 bytes");
        assert_eq!(
            lines[4],
            "complete   own account to 2026-11-23T08:00:00Z, 300 s before the last look, 3 repaired, 4 of 5000 reads today"
        );
        assert_eq!(lines[5], "complete   acct_9 to -, 0 repaired, 0 of 0 reads today, failed: 429");
    }
}
