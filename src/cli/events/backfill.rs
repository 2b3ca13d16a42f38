//! `tollgate events backfill`: has the gateway read a span of Stripe's list again, a day at a time, so that a long span
//! shows its progress and goes on where it stopped.

use clap::Args;
use prost_types::Timestamp;
use serde_json::{Value, json};

use super::super::client::Target;
use super::super::failure::{Failure, say};
use super::super::output::{Choice, Format};

/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// Arguments of `events backfill`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Backfill {
    /// When to begin, such as 2026-11-23T08:00:00Z; Stripe lists events of the last 30 days
    #[arg(long)]
    from: Timestamp,
    /// Where to end
    #[arg(long)]
    to: Timestamp,
    /// Alias of the Stripe account [default: the gateway's own]
    #[arg(long)]
    account: Option<String>,
    /// An account that is connected to it, acct_...
    #[arg(long, value_name = "ACCOUNT")]
    connected_account: Option<String>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Reads the span.
pub(in crate::cli) async fn run(arguments: Backfill) -> Result<(), Failure> {
    let Backfill { from, to, account, connected_account, target, output } = arguments;
    if from.seconds > to.seconds {
        return Err(Failure::Data("`--from` lies behind `--to`".into()));
    }
    let client = target.client().await?;
    let mut sums = Sums::default();
    let mut start = from.seconds;
    loop {
        let end = start.saturating_add(DAY_S).min(to.seconds);
        let request = json!({
            "account": account, "connected_account": connected_account, "from": instant(start), "to": instant(end),
        });
        let answer = client.unary("FeedService/Backfill", request).await;
        let answer =
            answer.inspect_err(|_| say(&format!("to go on from here: --from {}", instant(start))))?;
        sums.add(&answer);
        say(&format!("read up to {}: {} added so far", instant(end), sums.added));
        if end >= to.seconds {
            break;
        }
        start = end;
    }
    let mut output = output.open();
    match output.format() {
        Format::Table => output.line(&format!(
            "{} added, {} known, {} of no concern here, {} reads",
            sums.added, sums.known, sums.left_out, sums.reads
        )),
        _ => output.value(&json!({
            "added": sums.added, "known": sums.known, "left_out": sums.left_out, "reads": sums.reads,
        })),
    }
}

/// What all days came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    added: u64,
    known: u64,
    left_out: u64,
    reads: u64,
}

impl Sums {
    fn add(&mut self, answer: &Value) {
        // A 64-bit number is text in JSON, and nought is left out.
        let number = |name: &str| answer.get(name).and_then(Value::as_str).and_then(|text| text.parse().ok());
        self.added += number("added").unwrap_or(0);
        self.known += number("known").unwrap_or(0);
        self.left_out += number("left_out").unwrap_or(0);
        self.reads += number("reads").unwrap_or(0);
    }
}

fn instant(seconds: i64) -> String {
    Timestamp { seconds, nanos: 0 }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_add_up() {
        let mut sums = Sums::default();
        sums.add(&json!({"added": "2", "reads": "1"}));
        sums.add(&json!({"added": "3", "known": "4", "reads": "2"}));
        assert_eq!(sums, Sums { added: 5, known: 4, left_out: 0, reads: 3 });
    }
}
