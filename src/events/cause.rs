//! What caused an event, as the log keeps it: which calls through the gateway it goes back to, and who may know. How they
//! are found is not its business.

use serde::{Deserialize, Serialize};

use super::envelope::Envelope;
use crate::proto::v1::{self, CauseKind, EventSource};

/// A call through the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The caller's namespace, in which alone the rest means anything.
    pub namespace: String,
    /// The order that it was made for.
    pub order_id: String,
    /// Tells apart several changes of one kind for the order.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation_id: String,
    /// The RPC, as `Service/Rpc`.
    pub rpc: String,
    /// The caller's name; empty where that is not known any more.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub caller: String,
    /// The trace that it belonged to; empty where there was none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
}

/// The calls that an event goes back to; none for most of what other people do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The one that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Call>,
    /// The one that made its object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Call>,
}

/// Whose causes somebody may know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Viewer {
    /// Its own namespace.
    pub namespace: String,
    /// Those of every other one too.
    pub every: bool,
}

/// How much of the calls behind an event somebody may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// None, or there are none.
    Nothing,
    /// One of two.
    Part,
    /// All.
    All,
}

impl Cause {
    /// Who caused the event, in one word. An API request that no call of ours stands behind is somebody else's, even under
    /// a key that looks like ours: another gateway's calls are outside of this one.
    #[must_use]
    pub fn kind(&self, envelope: &Envelope, source: i32) -> CauseKind {
        if source == i32::from(EventSource::Synthetic) {
            return CauseKind::Unspecified;
        }
        match &self.call {
            Some(_) => CauseKind::ThisGateway,
            None if envelope.request_id.is_empty() && envelope.idempotency_key.is_empty() => {
                CauseKind::Stripe
            }
            None => CauseKind::Outside,
        }
    }

    /// The contract's message, with as much as the viewer may know.
    #[must_use]
    pub fn message(&self, kind: CauseKind, viewer: &Viewer) -> v1::Cause {
        let shown =
            |call: &Option<Call>| call.as_ref().filter(|call| viewer.may_know(call)).map(Call::message);
        v1::Cause { kind: kind.into(), call: shown(&self.call), origin: shown(&self.origin) }
    }

    /// The calls that a viewer may know.
    pub(super) fn known_to<'a>(&'a self, viewer: &'a Viewer) -> impl Iterator<Item = &'a Call> {
        [&self.call, &self.origin].into_iter().flatten().filter(|call| viewer.may_know(call))
    }
}

impl Call {
    fn message(&self) -> v1::CausingCall {
        v1::CausingCall {
            order_id: self.order_id.clone(),
            operation_id: self.operation_id.clone(),
            rpc: self.rpc.clone(),
            caller: self.caller.clone(),
            trace_id: self.trace_id.clone(),
        }
    }
}

impl Viewer {
    /// Whether a call may be shown.
    #[must_use]
    pub fn may_know(&self, call: &Call) -> bool {
        self.every || (!call.namespace.is_empty() && self.namespace == call.namespace)
    }

    /// Whether a call of the viewer's own is behind an event.
    pub(super) fn is_one_of(&self, cause: &Cause) -> bool {
        let own = |call: &Call| !call.namespace.is_empty() && call.namespace == self.namespace;
        [&cause.call, &cause.origin].into_iter().flatten().any(own)
    }

    /// How much of a cause the viewer may know.
    #[must_use]
    pub fn share_of(&self, cause: &Cause) -> Share {
        match (cause.known_to(self).count(), [&cause.call, &cause.origin].into_iter().flatten().count()) {
            (0, _) => Share::Nothing,
            (known, all) if known == all => Share::All,
            _ => Share::Part,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(namespace: &str) -> Call {
        Call {
            namespace: namespace.into(),
            order_id: "1001".into(),
            caller: "orders".into(),
            ..Call::default()
        }
    }

    fn envelope(request: &str) -> Envelope {
        let json = format!(
            r#"{{"id":"evt_1","object":"event","created":1,"type":"a.b","livemode":false,"request":{request}}}"#
        );
        Envelope::parse(&json).unwrap()
    }

    #[test]
    fn a_request_without_a_call_of_ours_is_somebody_elses() {
        let webhook = EventSource::Webhook.into();
        let ours = Cause { call: Some(call("shop")), origin: None };
        let key = envelope(r#"{"id":"req_1","idempotency_key":"tg1-00"}"#);
        assert_eq!(ours.kind(&key, webhook), CauseKind::ThisGateway);
        for (request, kind) in [
            (r#"{"id":"req_1","idempotency_key":"tg1-00"}"#, CauseKind::Outside),
            (r#"{"id":"req_1","idempotency_key":null}"#, CauseKind::Outside),
            (r#"{"id":null,"idempotency_key":null}"#, CauseKind::Stripe),
            ("null", CauseKind::Stripe),
        ] {
            let made = Cause { call: None, origin: Some(call("shop")) };
            assert_eq!(made.kind(&envelope(request), webhook), kind, "{request}");
        }
        let synthetic = EventSource::Synthetic.into();
        assert_eq!(Cause::default().kind(&envelope("null"), synthetic), CauseKind::Unspecified);
    }

    #[test]
    fn a_call_is_known_in_its_namespace_and_to_those_who_may_know_all() {
        let cause = Cause { call: Some(call("shop")), origin: Some(call("mill")) };
        let shown = |namespace: &str, every| {
            let viewer = Viewer { namespace: namespace.into(), every };
            let message = cause.message(CauseKind::ThisGateway, &viewer);
            let share = match (message.call.is_some(), message.origin.is_some()) {
                (true, true) => Share::All,
                (false, false) => Share::Nothing,
                _ => Share::Part,
            };
            assert_eq!(viewer.share_of(&cause), share);
            assert_eq!(message.kind(), CauseKind::ThisGateway);
            (message.call.is_some(), message.origin.is_some())
        };
        assert_eq!(shown("shop", false), (true, false));
        assert_eq!(shown("mill", false), (false, true));
        assert_eq!(shown("", false), (false, false));
        assert_eq!(shown("", true), (true, true));
    }
}
