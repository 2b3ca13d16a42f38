//! A later state of an object that an operation made, as an event tells it. It knows nothing of who told it and when it
//! may be believed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::outcome::Success;
use crate::contract::Stages;
use crate::stripe::outgoing::STRIPE_VERSION;

/// A later state of an object.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Id of the event that tells of it.
    pub event_id: String,
    /// Its type.
    pub kind: String,
    /// When Stripe made the event, in seconds since the Unix epoch.
    pub created_s: i64,
    /// The object as it is now, as JSON.
    pub object: String,
    /// The version in which the object is written.
    pub api_version: String,
}

impl Turn {
    /// Whether it is news to whoever knows the object as `known` has it. Events come in any order, so the youngest counts;
    /// of two made in one second the one in which the object has come further.
    pub(super) fn is_news_to(&self, known: &Success, stages: Option<&Stages>) -> bool {
        let told = known.turned_by.as_ref() == Some(&self.event_id);
        let newest = known.turned_s.map(|newest_s| order(newest_s, known.json.as_deref(), stages));
        !told && newest <= Some(self.order(stages))
    }

    /// Whether it is news to whoever was told `other` before.
    pub(super) fn follows(&self, other: &Self, stages: Option<&Stages>) -> bool {
        self.event_id != other.event_id && other.order(stages) <= self.order(stages)
    }

    /// The success as it is shown from now on; unchanged if this is about another object.
    pub(super) fn applied_to(&self, success: Success) -> Success {
        if !self.is_about(&success) {
            return success;
        }
        Success {
            json: readable(&self.object, &self.api_version),
            turned_by: Some(self.event_id.clone()),
            turned_s: Some(self.created_s),
            ..success
        }
    }

    /// Whether it tells of the object that was made.
    pub(super) fn is_about(&self, success: &Success) -> bool {
        success.object_id.is_some() && object_id(&self.object, "") == success.object_id
    }

    fn order(&self, stages: Option<&Stages>) -> (i64, usize) {
        order(self.created_s, Some(&self.object), stages)
    }
}

/// When an object was as it is, and how far it had come: what is greater is later.
fn order(created_s: i64, object: Option<&str>, stages: Option<&Stages>) -> (i64, usize) {
    let object: Value = object.and_then(|object| serde_json::from_str(object).ok()).unwrap_or_default();
    let status = object.get("status").and_then(Value::as_str).unwrap_or_default();
    (created_s, stages.map_or(0, |stages| stages.order(status)))
}

/// The object's id, if it is of the expected kind; an empty kind stands for any.
pub(super) fn object_id(object: &str, kind: &str) -> Option<String> {
    let object: Value = serde_json::from_str(object).ok()?;
    let text = |name: &str| object.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let expected = kind.is_empty() || text("object") == Some(kind);
    text("id").filter(|_| expected).map(str::to_owned)
}

/// The object, if it is written in the version that this build reads.
pub(super) fn readable(object: &str, api_version: &str) -> Option<String> {
    (api_version == STRIPE_VERSION).then(|| object.to_owned())
}

/// Objects hold personal data, so `Debug` leaves them out.
impl std::fmt::Debug for Turn {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { event_id, kind, created_s, object, api_version } = self;
        write!(out, "Turn({event_id}, {kind}, {created_s} s, {} bytes of {api_version})", object.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{success, turn};
    use super::*;

    #[test]
    fn of_two_states_in_one_second_the_further_one_counts() {
        let spec = crate::contract::by_ledger_name("refunds.create").unwrap();
        let stages = spec.stages.as_ref();
        let (pending, failed) = (turn("evt_1", 5, "pending"), turn("evt_2", 5, "failed"));
        assert!(failed.follows(&pending, stages) && !pending.follows(&failed, stages));
        assert!(turn("evt_3", 6, "pending").follows(&failed, stages));
        let known = failed.applied_to(success());
        assert!(!pending.is_news_to(&known, stages), "the refund went from pending to failed");
        assert!(!failed.is_news_to(&known, stages), "it was told before");
        assert!(
            turn("evt_3", 5, "failed").is_news_to(&known, stages),
            "of equals the one that was told later"
        );
    }

    #[test]
    fn another_object_is_left_alone_and_none_is_shown_by_debug() {
        let told =
            Turn { object: r#"{"id":"re_2","email":"ada@example.com"}"#.to_owned(), ..turn("evt_1", 5, "") };
        assert_eq!(told.applied_to(success()), success());
        assert!(!format!("{told:?}").contains("ada"));
    }
}
