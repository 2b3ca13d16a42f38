//! What the gateway's log tells of its breaker, and when. It reads nothing else there.

use std::io::{BufRead as _, BufReader};
use std::process::ChildStderr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// One attempt is let through.
    HalfOpen,
    Closed,
}

/// One step from a state to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) at: Instant,
    pub(crate) from: State,
    pub(crate) to: State,
}

/// The breaker before Stripe's API.
pub(crate) struct Breaker(Arc<Mutex<Vec<Change>>>);

impl Breaker {
    /// Reads the log to its end, in a thread of its own.
    pub(crate) fn follow(log: ChildStderr) -> Self {
        let changes: Arc<Mutex<Vec<Change>>> = Arc::default();
        let kept = Arc::clone(&changes);
        std::thread::spawn(move || {
            let mut from = State::Closed;
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                match state(&line) {
                    Some(to) => {
                        kept.lock().unwrap().push(Change { at: Instant::now(), from, to });
                        from = to;
                    }
                    None => println!("{line}"),
                }
            }
        });
        Self(changes)
    }

    /// What it did since then.
    pub(crate) fn since(&self, begin: Instant) -> Vec<Change> {
        let changes = self.0.lock().unwrap();
        changes.iter().filter(|change| change.at >= begin).copied().collect()
    }
}

/// The state that a line tells of, if it tells of one.
fn state(line: &str) -> Option<State> {
    let line: Value = serde_json::from_str(line).ok()?;
    match line["state"].as_str()? {
        "open" => Some(State::Open),
        "half_open" => Some(State::HalfOpen),
        "closed" => Some(State::Closed),
        other => panic!("{other}"),
    }
}
