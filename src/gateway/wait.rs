//! Waits, for a caller who asks, until the object of a change has come as far as the caller wants to know. It reads the
//! event log and nothing else, and whatever it finds, the change is on record already: it never fails a call.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::{Instant, sleep_until};

use super::call::{Done, Gateway};
use crate::contract::{Method, Reply, Stages};
use crate::domain::limits::{EVENT_BATCH_EVENTS_MAX, WAIT_ANSWER_MS, WAIT_MS_MAX};
use crate::proto::v1::{CallInfo, Wait};
use crate::store::StoredEvent;

/// What Stripe answered to a change that took effect, and what can be said of the call.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) object: Value,
    pub(super) call: CallInfo,
}

/// The object of a change as it was at some time.
#[derive(Clone, Debug)]
struct Seen {
    /// When, in seconds since the Unix epoch; then how far it had come. What is greater is newer.
    order: (i64, usize),
    object: Map<String, Value>,
}

impl Gateway {
    /// The answer to a change once its object has come as far as `wanted`, or when the time is over.
    pub(super) async fn answer_when<M: Method>(
        &self,
        wanted: Wait,
        (done, accepted): (Done<M::Response>, Option<Accepted>),
        deadline: Option<Instant>,
    ) -> Done<M::Response> {
        let (Some(stages), Some(accepted)) = (M::SPEC.stages, accepted) else { return done };
        let Some(first) = accepted.object.as_object().filter(|_| wanted != Wait::Unspecified) else {
            return done;
        };
        let first = Seen::of(&stages, first.clone(), "created");
        let newest = self
            .follow(&stages, M::SPEC.object, first.clone(), wanted, latest(Instant::now(), deadline))
            .await;
        // What the contract cannot read is passed over for what it could.
        for seen in [newest.with_expanded(&first), first] {
            let call = CallInfo { reached: seen.stage(&stages).into(), ..accepted.call.clone() };
            let json = Value::Object(seen.object);
            if let Ok(response) = M::respond(Reply { json: Some(&json), call, ..Reply::default() }) {
                return Done { response, ..done };
            }
        }
        done
    }

    /// Reads the log about an object, from its beginning and then as it grows, until the object has come far enough.
    async fn follow(&self, stages: &Stages, kind: &str, first: Seen, wanted: Wait, latest: Instant) -> Seen {
        let Ok(_place) = self.waits.try_acquire() else { return first };
        let id = text(&first.object, "id").to_owned();
        let (mut newest, mut read, mut head) = (first, 0, self.feed.head());
        loop {
            let known = *head.borrow_and_update();
            let batch = match self.feed.about(&id, read, EVENT_BATCH_EVENTS_MAX).await {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::warn!(%error, "the event log cannot be read; a wait ends early");
                    break;
                }
            };
            // Large events make a short batch, so only an empty one is the last.
            let full = !batch.is_empty();
            for stored in batch {
                read = stored.position;
                if let Some(seen) = Seen::told(stages, &stored, kind, &id) {
                    newest = newest.or_newer(seen);
                }
            }
            if full {
                continue;
            }
            // What was there before the question is answered; only what comes now is read next.
            read = read.max(known);
            if newest.stage(stages) >= wanted {
                break;
            }
            tokio::select! {
                changed = head.changed() => if changed.is_err() { break },
                () = sleep_until(latest) => break,
                () = self.drain.begun() => break,
            }
        }
        newest
    }
}

impl Seen {
    /// The object as it was at the time that its member `at` says.
    fn of(stages: &Stages, object: Map<String, Value>, at: &str) -> Self {
        let created_s = object.get(at).and_then(Value::as_i64).unwrap_or_default();
        Self { order: (created_s, stages.order(text(&object, "status"))), object }
    }

    /// What an event tells of the object; a thin event tells nothing of its state.
    fn told(stages: &Stages, stored: &StoredEvent, kind: &str, id: &str) -> Option<Self> {
        let mut event: Value = serde_json::from_str(&stored.event.json).ok()?;
        let Value::Object(object) = event.pointer_mut("/data/object")?.take() else { return None };
        let same = text(&object, "object") == kind && text(&object, "id") == id;
        let order = (stored.event.created_s, stages.order(text(&object, "status")));
        same.then_some(Self { order, object })
    }

    fn stage(&self, stages: &Stages) -> Wait {
        stages.of(text(&self.object, "status"))
    }

    /// The newer of the two; of equals the one that came later.
    fn or_newer(self, other: Self) -> Self {
        if other.order >= self.order { other } else { self }
    }

    /// With the members that the answer held whole, where an event holds their ids.
    fn with_expanded(mut self, answer: &Self) -> Self {
        for (name, whole) in &answer.object {
            let id = whole.get("id").filter(|_| whole.is_object());
            if let Some(member) = self.object.get_mut(name).filter(|member| Some(&**member) == id) {
                *member = whole.clone();
            }
        }
        self
    }
}

/// When a wait has to end for its answer to be in time.
fn latest(now: Instant, deadline: Option<Instant>) -> Instant {
    let own = now + Duration::from_millis(WAIT_MS_MAX);
    let answer = Duration::from_millis(WAIT_ANSWER_MS);
    let given = deadline.map(|deadline| deadline.checked_sub(answer).unwrap_or(deadline));
    given.map_or(own, |given| given.min(own))
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::contract;

    fn stages() -> Stages {
        contract::find("RefundService", "CreateRefund").unwrap().stages.unwrap()
    }

    fn seen(created_s: i64, status: &str) -> Seen {
        let Value::Object(object) = json!({"id": "re_1", "created": created_s, "status": status}) else {
            panic!("no object")
        };
        Seen::of(&stages(), object, "created")
    }

    #[test]
    fn a_status_says_how_far_a_refund_has_come() {
        for (status, stage) in [
            ("pending", Wait::Accepted),
            ("requires_action", Wait::Settled),
            ("succeeded", Wait::Terminal),
            ("failed", Wait::Terminal),
            ("canceled", Wait::Terminal),
            ("of a later version", Wait::Accepted),
            ("", Wait::Accepted),
        ] {
            assert_eq!(stages().of(status), stage, "{status}");
        }
    }

    #[test]
    fn the_newest_state_counts_in_whatever_order_events_arrive() {
        let states =
            [seen(1, "pending"), seen(5, "succeeded"), seen(5, "failed"), seen(3, "requires_action")];
        for turn in 0..states.len() {
            let mut arrived = states.to_vec();
            arrived.rotate_left(turn);
            for arrived in [arrived.clone(), arrived.into_iter().rev().collect()] {
                let newest = arrived.into_iter().reduce(Seen::or_newer).unwrap();
                assert_eq!(text(&newest.object, "status"), "failed");
            }
        }
    }

    #[test]
    fn what_the_answer_held_whole_stays_whole_while_it_is_the_same() {
        let with = |charge: Value, transaction: Value| {
            let mut seen = seen(1, "pending");
            seen.object
                .extend([("charge".to_owned(), charge), ("balance_transaction".to_owned(), transaction)]);
            seen
        };
        let answer = with(json!({"id": "ch_1", "amount": 5}), json!({"id": "txn_1"}));
        let shown = with(json!("ch_1"), json!("txn_2")).with_expanded(&answer);
        assert_eq!(shown.object["charge"], json!({"id": "ch_1", "amount": 5}));
        assert_eq!(shown.object["balance_transaction"], json!("txn_2"));
    }

    #[test]
    fn a_wait_ends_before_the_deadline_and_never_later_than_its_own_limit() {
        let (now, own) = (Instant::now(), Duration::from_millis(WAIT_MS_MAX));
        let answer = Duration::from_millis(WAIT_ANSWER_MS);
        assert_eq!(latest(now, None), now + own);
        assert_eq!(latest(now, Some(now + own * 2)), now + own);
        assert_eq!(latest(now, Some(now + own / 2)), now + own / 2 - answer);
    }
}
