//! What the gateway has to know of an event, read out of Stripe's JSON; the JSON itself is never changed.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::limits::{EVENT_TYPE_CHARS_MAX, STRIPE_ID_CHARS_MAX};

/// Latest second that a `google.protobuf.Timestamp` can name: the end of the year 9999.
const CREATED_S_MAX: i64 = 253_402_300_799;

/// The outside of an event, of either kind that Stripe sends: a snapshot (`event`), which carries the object as it was,
/// or a thin one (`v2.core.event`), which only names it (docs.stripe.com/event-destinations).
///
/// A text that is absent, null or of an unexpected shape is empty: an event must not be lost over a detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Stripe's id, `evt_...`.
    pub id: String,
    /// Type, such as `charge.refunded`.
    pub kind: String,
    /// When it happened, in whole seconds since the Unix epoch.
    pub created_s: i64,
    /// Whether it is of live mode.
    pub livemode: bool,
    /// Version in which the object was rendered; empty on thin events.
    pub api_version: String,
    /// Account that it belongs to, where that is another than the endpoint's; empty otherwise.
    pub connected_account: String,
    /// Id of the object that it is about.
    pub object_id: String,
    /// Kind of that object.
    pub object_type: String,
    /// Id of the customer that the object is or belongs to.
    pub customer: String,
    /// Id of the API request that caused it.
    pub request_id: String,
    /// Idempotency key of that request.
    pub idempotency_key: String,
}

/// Why a body is not an event. The texts go to whoever sent it, so none repeats any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEnvelope {
    /// Not UTF-8, not JSON, or no JSON object.
    #[error("the body is not a JSON object")]
    NotJson,
    /// JSON, but not what Stripe calls an event.
    #[error("the body is not an event: `object` must be `event` or `v2.core.event`")]
    NotAnEvent,
    /// A part that every event has is missing or malformed.
    #[error("the event's `{0}` is missing or malformed")]
    Field(&'static str),
}

/// Members of both kinds. Everything is raw: one member of an odd shape must not hide the others.
#[derive(Deserialize)]
struct Outside<'a> {
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    created: Option<&'a RawValue>,
    #[serde(borrow)]
    livemode: Option<&'a RawValue>,
    #[serde(borrow)]
    api_version: Option<&'a RawValue>,
    #[serde(borrow)]
    account: Option<&'a RawValue>,
    #[serde(borrow)]
    context: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    request: Option<&'a RawValue>,
    #[serde(borrow)]
    related_object: Option<&'a RawValue>,
    #[serde(borrow)]
    reason: Option<&'a RawValue>,
}

/// The members of an inner object that matter, whichever object it is.
#[derive(Default, Deserialize)]
struct Inside<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    customer: Option<&'a RawValue>,
    #[serde(borrow)]
    idempotency_key: Option<&'a RawValue>,
    #[serde(borrow)]
    request: Option<&'a RawValue>,
}

impl Envelope {
    /// Reads an event. Nesting of any depth is passed over without recursion.
    ///
    /// # Errors
    /// When the text is not an event with an id, a type, a creation time and a mode.
    pub fn parse(json: &str) -> Result<Self, BadEnvelope> {
        let outside: Outside<'_> = serde_json::from_str(json).map_err(|_| BadEnvelope::NotJson)?;
        let (about, request, created_s) = match text(outside.object).as_str() {
            "event" => {
                let object = inside(inside(outside.data).object);
                let customer = customer(&object);
                (
                    (object.id, object.object, customer),
                    inside(outside.request),
                    whole_seconds(outside.created),
                )
            }
            "v2.core.event" => {
                let object = inside(outside.related_object);
                let request = inside(inside(outside.reason).request);
                ((object.id, object.kind, String::new()), request, instant(outside.created))
            }
            _ => return Err(BadEnvelope::NotAnEvent),
        };
        Ok(Self {
            id: name(outside.id, STRIPE_ID_CHARS_MAX).ok_or(BadEnvelope::Field("id"))?,
            kind: name(outside.kind, EVENT_TYPE_CHARS_MAX).ok_or(BadEnvelope::Field("type"))?,
            created_s: created_s.ok_or(BadEnvelope::Field("created"))?,
            livemode: read(outside.livemode).ok_or(BadEnvelope::Field("livemode"))?,
            api_version: text(outside.api_version),
            connected_account: connected(outside.account, outside.context),
            object_id: text(about.0),
            object_type: text(about.1),
            customer: about.2,
            request_id: text(request.id),
            idempotency_key: text(request.idempotency_key),
        })
    }
}

/// The account that an event of another account than the endpoint's names: in `account`, or at the end of the path in
/// `context` where an organisation receives it (docs.stripe.com/event-destinations).
fn connected(account: Option<&RawValue>, context: Option<&RawValue>) -> String {
    let account = text(account);
    if !account.is_empty() {
        return account;
    }
    text(context).rsplit('/').next().unwrap_or_default().to_owned()
}

/// The customer that an object is, or names as an id or expanded.
fn customer(object: &Inside<'_>) -> String {
    if text(object.object) == "customer" {
        return text(object.id);
    }
    let named = text(object.customer);
    if named.is_empty() { text(inside(object.customer).id) } else { named }
}

/// The object that a snapshot event carries, as it stands there; `None` for a thin event, which carries none.
#[must_use]
pub fn snapshot(json: &str) -> Option<&str> {
    let outside: Outside<'_> = serde_json::from_str(json).ok()?;
    let object = inside(outside.data).object?.get();
    object.starts_with('{').then_some(object)
}

fn read<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

fn text(raw: Option<&RawValue>) -> String {
    read(raw).unwrap_or_default()
}

fn inside(raw: Option<&RawValue>) -> Inside<'_> {
    read(raw).unwrap_or_default()
}

/// A text that serves as a name: printable ASCII without spaces, neither empty nor longer than `chars_max`.
fn name(raw: Option<&RawValue>, chars_max: usize) -> Option<String> {
    let name = text(raw);
    let sound =
        !name.is_empty() && name.len() <= chars_max && name.bytes().all(|byte| byte.is_ascii_graphic());
    sound.then_some(name)
}

fn whole_seconds(raw: Option<&RawValue>) -> Option<i64> {
    read(raw).filter(|seconds| (0..=CREATED_S_MAX).contains(seconds))
}

fn instant(raw: Option<&RawValue>) -> Option<i64> {
    let parsed: prost_types::Timestamp = text(raw).parse().ok()?;
    (0..=CREATED_S_MAX).contains(&parsed.seconds).then_some(parsed.seconds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SNAPSHOT: &str = r#"{"id":"evt_1","object":"event","api_version":"2026-10-28.endive","account":"acct_9",
        "created":1700000000,"type":"refund.created","livemode":false,"pending_webhooks":1,
        "data":{"object":{"id":"re_1","object":"refund","charge":{"id":"ch_1"}}},
        "request":{"id":"req_1","idempotency_key":"tg1-00"}}"#;
    const THIN: &str = r#"{"id":"evt_test_2","object":"v2.core.event","type":"v1.refund.created","livemode":true,
        "created":"2026-11-23T01:02:03.456Z","related_object":{"id":"re_2","type":"refund","url":"/v1/refunds/re_2"},
        "reason":{"type":"request","request":{"id":"req_2","idempotency_key":"key"}}}"#;

    #[test]
    fn a_snapshot_event_is_read() {
        let expected = Envelope {
            id: "evt_1".into(),
            kind: "refund.created".into(),
            created_s: 1_700_000_000,
            livemode: false,
            api_version: "2026-10-28.endive".into(),
            connected_account: "acct_9".into(),
            object_id: "re_1".into(),
            object_type: "refund".into(),
            customer: String::new(),
            request_id: "req_1".into(),
            idempotency_key: "tg1-00".into(),
        };
        assert_eq!(Envelope::parse(SNAPSHOT), Ok(expected));
    }

    #[test]
    fn the_object_of_a_snapshot_comes_out_as_it_stands() {
        assert_eq!(snapshot(SNAPSHOT), Some(r#"{"id":"re_1","object":"refund","charge":{"id":"ch_1"}}"#));
        for none in [THIN, "", "{}", r#"{"data":{"object":7}}"#, r#"{"data":{"object":null}}"#] {
            assert_eq!(snapshot(none), None, "{none}");
        }
    }

    #[test]
    fn a_thin_event_is_read() {
        let thin = Envelope::parse(THIN).unwrap();
        assert_eq!((thin.id.as_str(), thin.kind.as_str()), ("evt_test_2", "v1.refund.created"));
        assert_eq!((thin.created_s, thin.livemode, thin.api_version.as_str()), (1_795_395_723, true, ""));
        assert_eq!((thin.object_id.as_str(), thin.object_type.as_str()), ("re_2", "refund"));
        assert_eq!((thin.request_id.as_str(), thin.idempotency_key.as_str()), ("req_2", "key"));
    }

    #[test]
    fn the_customer_is_the_object_or_named_by_it() {
        for (object, customer) in [
            (r#"{"id":"cus_1","object":"customer"}"#, "cus_1"),
            (r#"{"id":"ch_1","object":"charge","customer":"cus_1"}"#, "cus_1"),
            (r#"{"id":"ch_1","object":"charge","customer":{"id":"cus_1","object":"customer"}}"#, "cus_1"),
            (r#"{"id":"ch_1","object":"charge","customer":null}"#, ""),
            (r#"{"id":"ch_1","object":"charge","customer":[7]}"#, ""),
        ] {
            let whole = SNAPSHOT.replace(snapshot(SNAPSHOT).unwrap(), object);
            assert_eq!(Envelope::parse(&whole).unwrap().customer, customer, "{object}");
        }
    }

    #[test]
    fn odd_details_do_not_lose_an_event() {
        let odd = r#"{"id":"evt_1","object":"event","created":1,"type":"a.b","livemode":false,"account":7,
            "api_version":null,"data":[1],"request":"req_old"}"#;
        let envelope = Envelope::parse(odd).unwrap();
        assert_eq!((envelope.connected_account.as_str(), envelope.object_id.as_str()), ("", ""));
    }

    #[test]
    fn what_is_no_event_is_refused_with_its_reason() {
        for (body, reason) in [
            ("", BadEnvelope::NotJson),
            ("[]", BadEnvelope::NotJson),
            ("{} {}", BadEnvelope::NotJson),
            ("{}", BadEnvelope::NotAnEvent),
            (r#"{"object":"refund"}"#, BadEnvelope::NotAnEvent),
            (r#"{"object":"event"}"#, BadEnvelope::Field("id")),
            (r#"{"object":"event","id":"evt 1"}"#, BadEnvelope::Field("id")),
            (r#"{"object":"event","id":"evt_1","type":""}"#, BadEnvelope::Field("type")),
            (r#"{"object":"event","id":"evt_1","type":"a","created":-1}"#, BadEnvelope::Field("created")),
            (r#"{"object":"event","id":"evt_1","type":"a","created":"soon"}"#, BadEnvelope::Field("created")),
            (r#"{"object":"event","id":"evt_1","type":"a","created":1}"#, BadEnvelope::Field("livemode")),
            (r#"{"object":"v2.core.event","id":"e","type":"a","created":1}"#, BadEnvelope::Field("created")),
        ] {
            assert_eq!(Envelope::parse(body), Err(reason), "{body}");
        }
    }

    #[test]
    fn an_id_given_twice_is_refused() {
        let twice = SNAPSHOT.replacen('{', r#"{"id":"evt_0","#, 1);
        assert_eq!(Envelope::parse(&twice), Err(BadEnvelope::NotJson));
    }

    #[test]
    fn deep_nesting_is_passed_over() {
        let depth = 200_000;
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let event = SNAPSHOT.replacen(r#""livemode""#, &format!(r#""deep":{deep},"livemode""#), 1);
        assert_eq!(Envelope::parse(&event).unwrap().object_id, "re_1");
        let inside = SNAPSHOT.replacen(r#""charge""#, &format!(r#""deep":{deep},"charge""#), 1);
        assert_eq!(Envelope::parse(&inside).unwrap().object_id, "re_1");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            drop(Envelope::parse(&text));
        }

        #[test]
        fn no_mutation_of_an_event_makes_it_panic(
            thin: bool,
            cuts in prop::collection::vec((0_usize..600, 0_usize..40, ".{0,6}"), 0..6),
        ) {
            let mut letters: Vec<char> = if thin { THIN } else { SNAPSHOT }.chars().collect();
            for (at, length, instead) in cuts {
                let start = at.min(letters.len());
                let end = (start + length).min(letters.len());
                letters.splice(start..end, instead.chars());
            }
            if let Ok(envelope) = Envelope::parse(&letters.into_iter().collect::<String>()) {
                prop_assert!(!envelope.id.is_empty() && !envelope.kind.is_empty());
                prop_assert!((0..=CREATED_S_MAX).contains(&envelope.created_s));
            }
        }
    }
}
