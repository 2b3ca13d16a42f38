//! What is told of one call: the notes that whoever works on it takes, and the one log line that they end in. It decides
//! nothing about the call.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::names::Stage;

/// The notes on one call; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<Facts>>);

/// What is known of a call by now; an empty text stands for what is not known. Nothing of it is secret or personal: it is
/// what an audit record shows as it is.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The trace that the call belongs to, 32 hexadecimal digits.
    pub trace_id: String,
    /// Name of the caller.
    pub caller: String,
    /// Alias of the Stripe account.
    pub account: String,
    /// What the caller's reference names.
    pub order_id: String,
    /// Which change of the order.
    pub operation_id: String,
    /// Id of the call's audit record.
    pub audit_id: String,
    /// Stripe's name of the request that decided.
    pub stripe_request_id: String,
    /// Whether the ledger answered from memory.
    pub replayed: bool,
    /// HTTP requests to Stripe.
    pub attempts: i32,
    /// Time spent waiting for a turn at Stripe; part of the time in [`Stage::Send`].
    pub queued: Duration,
    stages: [Duration; Stage::ALL.len()],
}

impl Facts {
    /// Adds time that was spent in a stage.
    pub fn spend(&mut self, stage: Stage, elapsed: Duration) {
        if let Some(spent) = self.stages.get_mut(stage as usize) {
            *spent += elapsed;
        }
    }

    fn spent(&self, stage: Stage) -> Duration {
        self.stages.get(stage as usize).copied().unwrap_or_default()
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Its method, `package.Service/Method`.
    pub rpc: &'a str,
    /// Name of the gRPC status.
    pub code: &'static str,
    /// The reason that the caller was told; empty for a success.
    pub reason: &'a str,
    /// From the first byte of its headers to the last of its answer.
    pub total: Duration,
}

impl Notes {
    /// Takes a note.
    pub fn note(&self, write: impl FnOnce(&mut Facts)) {
        write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The trace that the call belongs to; empty when nobody traces.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).trace_id.clone()
    }

    /// Writes the call's line. Its fields are kept by a golden test: people search for them.
    pub fn line(&self, end: End<'_>) {
        let facts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ledger = facts.spent(Stage::Begin) + facts.spent(Stage::Settle);
        let stripe = facts.spent(Stage::Send).saturating_sub(facts.queued);
        tracing::info!(
            target: "tollgate::call",
            rpc = end.rpc,
            code = end.code,
            reason = end.reason,
            caller = facts.caller,
            account = facts.account,
            order_id = facts.order_id,
            operation_id = facts.operation_id,
            replayed = facts.replayed,
            attempts = facts.attempts,
            stripe_request_id = facts.stripe_request_id,
            audit_id = facts.audit_id,
            trace_id = facts.trace_id,
            ledger_ms = millis(ledger),
            queue_ms = millis(facts.queued),
            stripe_ms = millis(stripe),
            total_ms = millis(end.total),
            "call"
        );
    }
}

/// Milliseconds to two decimals: what the ledger takes is often less than one.
fn millis(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 100_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const GOLDEN: &str = "tests/golden/call_line.json";

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Page {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn a_change() -> Notes {
        let notes = Notes::default();
        notes.note(|facts| {
            facts.trace_id = "0af7651916cd43dd8448eb211c80319c".into();
            facts.caller = "shop".into();
            facts.account = "default".into();
            facts.order_id = "order-1".into();
            facts.operation_id = "refund-1".into();
            facts.audit_id = "aud_1".into();
            facts.stripe_request_id = "req_1".into();
            facts.attempts = 2;
            facts.queued = Duration::from_millis(30);
            facts.spend(Stage::Begin, Duration::from_micros(1250));
            facts.spend(Stage::Send, Duration::from_millis(130));
            facts.spend(Stage::Settle, Duration::from_micros(750));
        });
        notes
    }

    /// Refreshed with `UPDATE_GOLDEN=1 cargo test --lib call`.
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the flag that refreshes golden files comes from the environment"
    )]
    fn the_line_of_a_call_has_the_fields_that_people_search_for() {
        let page = Page::default();
        let lines = crate::telemetry::json(tracing_subscriber::fmt::layer().with_writer(page.clone()));
        let dispatch = tracing::Dispatch::new(tracing_subscriber::registry().with(lines.without_time()));
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        let total = Duration::from_millis(140);
        let end = End { rpc: "tollgate.v1.RefundService/CreateRefund", code: "OK", reason: "", total };
        tracing::dispatcher::with_default(&dispatch, || a_change().line(end));
        let line = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        if std::env::var("UPDATE_GOLDEN").is_ok() {
            std::fs::write(GOLDEN, &line).unwrap();
        }
        assert_eq!(line, std::fs::read_to_string(GOLDEN).unwrap());
    }

    #[test]
    fn times_have_two_decimals() {
        assert_eq!(millis(Duration::from_micros(1256)), 1.26);
        assert_eq!(millis(Duration::ZERO), 0.0);
    }
}
