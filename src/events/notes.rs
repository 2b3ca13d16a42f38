//! What the log keeps of an event beside Stripe's JSON, which does not tell it. How it is found out is not decided here.

use serde::{Deserialize, Serialize};

use super::cause::Cause;

/// The notes on one event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notes {
    /// What caused it.
    #[serde(flatten)]
    pub(super) cause: Cause,
    /// Account that it belongs to, where that is another than the endpoint's. What Stripe lists of a connected account is
    /// read under its name, and need not repeat it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) connected_account: String,
}

impl Notes {
    /// The stored form: nothing where there is nothing to say.
    pub(super) fn encode(&self) -> Vec<u8> {
        if self == &Self::default() {
            return Vec::new();
        }
        // Text in named members can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the stored form. What is damaged says nothing: an event must not be lost over it.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}

impl From<Cause> for Notes {
    fn from(cause: Cause) -> Self {
        Self { cause, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::events::Call;

    #[test]
    fn damage_says_nothing() {
        for bytes in [&b"{"[..], b"null", b"\xff", b"7"] {
            assert_eq!(Notes::decode(bytes), Notes::default());
        }
        assert!(Notes::default().encode().is_empty());
    }

    #[test]
    fn a_cause_that_was_kept_alone_is_still_read() {
        let call = Call { namespace: "shop".into(), ..Call::default() };
        let kept = br#"{"call":{"namespace":"shop","order_id":"","rpc":""}}"#;
        assert_eq!(Notes::decode(kept), Cause { call: Some(call), origin: None }.into());
    }

    fn calls() -> impl Strategy<Value = Option<Call>> {
        let text = || ".{0,4}";
        prop::option::of((text(), text(), text(), text(), text(), text()).prop_map(|parts| {
            let (namespace, order_id, operation_id, rpc, caller, trace_id) = parts;
            Call { namespace, order_id, operation_id, rpc, caller, trace_id }
        }))
    }

    proptest! {
        #[test]
        fn what_is_stored_comes_out_again(call in calls(), origin in calls(), connected_account in ".{0,4}") {
            let notes = Notes { cause: Cause { call, origin }, connected_account };
            prop_assert_eq!(Notes::decode(&notes.encode()), notes);
        }
    }
}
