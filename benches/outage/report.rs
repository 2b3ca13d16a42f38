//! The page about the story.

use std::fmt::Write as _;
use std::time::Duration;

use tollgate::domain::limits::{
    CALLS_IN_FLIGHT_MAX, RETRY_BUDGET_RESENDS_MAX, STRIPE_AT_ONCE_MAX, STRIPE_QUEUED_PER_CALLER_MAX,
};

use crate::callers::{CALLERS, PACE, PATIENCE, READ_EVERY};
use crate::figures::{Calls, Figures, Story};

/// The most that resends may add to first attempts.
const RATIO_MAX: f64 = 0.2;
/// The most memory in trouble, over the most in quiet.
const MEMORY_MAX: f64 = 1.5;

pub(crate) fn page(story: &Story, rounds: usize, phase: Duration, machine: &str) -> String {
    format!(
        "\
# Benchmark: Stripe in trouble

<!-- Written by `cargo bench --bench outage -- --write`; do not edit. -->

{CALLERS} callers make customers through one gateway, a change every {:.0} s each as long as the one before is over, and read
each {READ_EVERY}th back. They wait {:.0} s for an answer, and send what is refused again, under the same reference and after the
time that the refusal names, until it is answered. Stripe is a sandbox, well at first, then in trouble of one kind after the
other, {:.0} s each: it answers 5 s late; it fails one request in five with a 500; of each two requests it cuts one off, half of
these after it has carried them out; connections to it are refused; and it is back. The gateway is a process of its own with
the limits that it comes with, except that Stripe's number of requests a second is not one. Callers and sandbox share the
machine with it. The story was told {}.

{}
{}
{}
{}
{machine}
",
        PACE.as_secs_f64(),
        PATIENCE.as_secs_f64(),
        phase.as_secs_f64(),
        if rounds == 1 {
            "once, since it is long".to_owned()
        } else {
            format!("{rounds} times; the one in the middle by what resends add counts")
        },
        load(story),
        calls(story),
        breaker(story),
        bounds(story),
    )
}

fn load(story: &Story) -> String {
    let mut rows = String::new();
    let all = story.phases.iter().map(|phase| (phase.name, &phase.counted));
    for (name, counted) in all.chain([("**all**", &story.total)]) {
        writeln!(
            rows,
            "| {name} | {:.0} | {:.0} | {:.3} | {:.0} | {:.0} | {:.0} | {:.0} |",
            counted.firsts(),
            counted.resends,
            counted.ratio(),
            counted.unpaid,
            counted.kept_away,
            counted.connected(),
            counted.received,
        )
        .unwrap();
    }
    let (total, begun) = (&story.total, story.phases.iter().map(|phase| phase.new).sum::<usize>());
    format!(
        "\
## What resends add

Attempts at Stripe as the gateway counts them when they end: the first of each call, and those that the gateway makes after it.
What a caller sends again is a call of its own. The last two columns are the same requests, by the gateway and by the sandbox,
which counts them when they come; what was on its way when the connections broke never came.

| Stripe | first attempts | resends | resends / first | resends that the budget refused | attempts that the breaker kept away | attempts that were connected | requests that Stripe got |
|---|---|---|---|---|---|---|---|
{rows}
Resends are {:.3} of the first attempts; the goal is at most {RATIO_MAX:.2}, which is **{}**. A single phase may have
{RETRY_BUDGET_RESENDS_MAX} more, which the budget has saved by then. With what callers send again, Stripe got {:.2} requests for each
call that they began.
",
        total.ratio(),
        verdict(total.ratio() <= RATIO_MAX),
        total.received / begun as f64,
    )
}

fn calls(story: &Story) -> String {
    let rows = rows(story, |phase| {
        let Figures { new, answered, refused, .. } = phase;
        let again = answered.count + refused.count - new;
        format!("{new} | {again} | {} | {}", ended(*answered), ended(*refused))
    });
    format!(
        "\
## What callers notice

Calls by the phase that they ended in.

| Stripe | sent for the first time | sent again by their callers | answered | median ms | 99 % ms | refused | median ms | 99 % ms |
|---|---|---|---|---|---|---|---|---|
{rows}
Every change was answered in the end: callers hold {} customers, the sandbox has carried out as many changes, one for each
operation and each with a customer that a caller holds, and the gateway has no open operation left.
",
        story.made,
    )
}

fn breaker(story: &Story) -> String {
    let seconds =
        |time: Option<Duration>| time.map_or("–".to_owned(), |time| format!("{:.1}", time.as_secs_f64()));
    let rows = rows(story, |phase| {
        let (opened, tried) = phase.watched.openings();
        let (first, last) = phase.watched.opened_and_closed();
        format!("{opened} | {tried} | {} | {}", seconds(first), seconds(last))
    });
    format!(
        "\
## The breaker

How often it opened, and how often it let one attempt through to see whether Stripe answers again; seconds since the phase began.

| Stripe | opened | tried | first opened, s | last closed, s |
|---|---|---|---|---|
{rows}"
    )
}

fn bounds(story: &Story) -> String {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let rows = rows(story, |phase| {
        let watched = &phase.watched;
        format!(
            "{:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0}",
            watched.in_flight,
            watched.waiting,
            watched.at_stripe,
            watched.open,
            mb(watched.memory_bytes),
            mb(watched.peak_bytes),
        )
    });
    let quiet = story.phases[0].watched.peak_bytes;
    let trouble = story.phases[1..].iter().map(|phase| phase.watched.peak_bytes).max().unwrap();
    let ratio = trouble as f64 / quiet as f64;
    format!(
        "\
## What is held

The most that was seen, looked at each second, and the gateway's memory at the end of each phase and at its peak. Of one caller
the gateway takes at most {} calls at once, of which at most {STRIPE_QUEUED_PER_CALLER_MAX} changes and as many reads wait for
their turn; at most {STRIPE_AT_ONCE_MAX} requests are at Stripe, and of these a fifth is kept for refunds and disputes.

| Stripe | calls under way | waiting for Stripe | at Stripe | operations open | memory MB | peak MB |
|---|---|---|---|---|---|---|
{rows}
In trouble the gateway held at most {ratio:.2} times the memory that it held in quiet; the goal is at most {MEMORY_MAX}, which
is **{}**.
",
        CALLS_IN_FLIGHT_MAX * 4 / 5,
        verdict(ratio <= MEMORY_MAX),
    )
}

fn rows(story: &Story, row: impl Fn(&Figures) -> String) -> String {
    story.phases.iter().map(|phase| format!("| {} | {} |\n", phase.name, row(phase))).collect()
}

fn ended(calls: Calls) -> String {
    match calls.count {
        0 => "0 | – | –".to_owned(),
        count => format!("{count} | {:.1} | {:.1}", calls.median_ms, calls.slow_ms),
    }
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "missed" }
}
