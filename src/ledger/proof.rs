//! What an attempt proves about the world: one total table, and its sum over the attempts of a call. Pure; it neither
//! stores nor sends.

use serde_json::Value;

use super::outcome::{Case, Refusal, Settled, Success};
use crate::domain::planted;
use crate::stripe::{Answer, Attempt, StripeError};

/// Objects of Stripe that have no id.
const OBJECTS_WITHOUT_ID: [&str; 2] = ["balance", "cash_balance"];

/// What one attempt proves about its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The change took effect.
    Done,
    /// Nothing happened, and nothing of this generation can still happen.
    Refused,
    /// This attempt did nothing; of earlier ones it says nothing.
    Nothing,
    /// Stripe knows the key with other bytes, so it was used by somebody else or before the memory of this ledger.
    KeyConflict,
    /// The change may have taken effect.
    Ambiguous,
}

/// What the answer to a change looks like.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Stripe's `object` value; empty when any will do.
    pub object: &'a str,
    /// Whether the change carries an idempotency key. A DELETE has none, so `Idempotent-Replayed` says nothing there.
    pub keyed: bool,
}

/// How a call ended, all attempts taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The outcome is proven.
    Settled(Settled),
    /// Nothing happened; the operation can be sent again as it is, or with other parameters.
    Open {
        /// The attempt that says why; `None` when there was none.
        last: Option<Attempt>,
    },
    /// The change may have taken effect.
    Unknown {
        /// The last attempt; `None` when there was none.
        last: Option<Attempt>,
        /// Stripe knows the key with other bytes: an alarm.
        conflict: bool,
    },
    /// It may have taken effect, and a person has to decide.
    NeedsOperator(Case),
}

impl Verdict {
    /// Whether the call ended for want of what it alone lacked, so that it says nothing to others who ask for the same.
    pub(super) fn is_its_callers(&self) -> bool {
        match self {
            Self::Open { last: Some(Attempt::NotSent(trouble)) }
            | Self::Unknown { last: Some(Attempt::NotSent(trouble)), .. } => trouble.is_its_senders(),
            Self::Open { .. } | Self::Unknown { .. } | Self::Settled(_) | Self::NeedsOperator(_) => false,
        }
    }
}

/// What `attempt` proves when `ambiguous` says whether an earlier attempt of its generation may have taken effect.
///
/// A refusal after an ambiguous attempt proves something only when Stripe answers from its memory of the key: then it is
/// the outcome of whichever attempt came first (docs.stripe.com/api/idempotent_requests). A fresh refusal may just as
/// well mean that the earlier attempt succeeded.
#[must_use]
pub fn judge(attempt: &Attempt, ambiguous: bool, expected: Expected<'_>) -> Proof {
    let answer = match attempt {
        Attempt::NotSent(_) => return Proof::Nothing,
        Attempt::Broken(_) => return Proof::Ambiguous,
        Attempt::Answered(answer) => answer,
    };
    match (answer.status, error_of(answer)) {
        (200..=299, _) if success_of(answer, expected.object).is_some() => Proof::Done,
        (400 | 402 | 404, Some(error)) if error.kind == "idempotency_error" => Proof::KeyConflict,
        (400 | 402 | 404, Some(_)) if !ambiguous || (answer.replayed && expected.keyed) => Proof::Refused,
        (429, Some(_)) if planted::active("refused-on-429") => Proof::Refused,
        // A request under this key is being carried out: ours, or a copy of it that something on the way made.
        (409, Some(error)) if error.code.as_deref() == Some("idempotency_key_in_use") => Proof::Ambiguous,
        (401 | 403 | 409 | 424 | 429, Some(_)) => Proof::Nothing,
        (500..=599, _) if planted::active("unknown-as-failed") => Proof::Nothing,
        _ => Proof::Ambiguous,
    }
}

/// What all attempts of a call prove together, `ambiguous` standing for those of earlier calls of the generation.
#[must_use]
pub fn verdict(attempts: &[Attempt], ambiguous: bool, expected: Expected<'_>) -> Verdict {
    let (mut ambiguous, mut conflict, mut refusal) = (ambiguous, false, None);
    for attempt in attempts {
        match judge(attempt, ambiguous, expected) {
            Proof::Done => {
                if let Some(success) =
                    answer_of(attempt).and_then(|answer| success_of(answer, expected.object))
                {
                    return Verdict::Settled(Settled::Succeeded(success));
                }
            }
            Proof::Refused => (ambiguous, refusal) = (false, answer_of(attempt).map(refusal_of)),
            Proof::Nothing => {}
            Proof::KeyConflict => (ambiguous, conflict, refusal) = (true, true, None),
            Proof::Ambiguous => (ambiguous, refusal) = (true, None),
        }
    }
    match refusal {
        Some(refusal) => Verdict::Settled(Settled::Refused(refusal)),
        None if ambiguous => Verdict::Unknown { last: attempts.last().cloned(), conflict },
        None => Verdict::Open { last: attempts.last().cloned() },
    }
}

fn answer_of(attempt: &Attempt) -> Option<&Answer> {
    match attempt {
        Attempt::Answered(answer) => Some(answer),
        Attempt::NotSent(_) | Attempt::Broken(_) => None,
    }
}

/// The error in the API's own shape. A body of any other shape may come from something between here and Stripe, which
/// cannot speak for Stripe.
fn error_of(answer: &Answer) -> Option<StripeError> {
    answer.error().filter(|error| !error.kind.is_empty() && error.kind != "oauth_error")
}

/// The answer as a success: a JSON object of the expected kind, with an id unless its kind has none.
fn success_of(answer: &Answer, object: &str) -> Option<Success> {
    let json = std::str::from_utf8(&answer.body).ok()?;
    let Value::Object(members) = serde_json::from_str(json).ok()? else { return None };
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let kind = text("object")?;
    let object_id = text("id").filter(|id| !id.is_empty()).map(str::to_owned);
    let named = object_id.is_some() || OBJECTS_WITHOUT_ID.contains(&kind);
    let expected = object.is_empty() || kind == object;
    (expected && named).then(|| Success {
        json: Some(json.to_owned()),
        request_id: answer.request_id.clone(),
        object_id,
        turned_by: None,
        turned_s: None,
    })
}

fn refusal_of(answer: &Answer) -> Refusal {
    Refusal {
        status: answer.status,
        body: String::from_utf8_lossy(&answer.body).into_owned(),
        request_id: answer.request_id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::stripe::Trouble;
    use crate::stripe::traffic::Why;

    const REFUND: Expected<'_> = Expected { object: "refund", keyed: true };
    const SUCCESS: &str = r#"{"id":"re_1","object":"refund"}"#;
    const ERROR: &str = r#"{"error":{"type":"invalid_request_error","message":"no"}}"#;
    const CONFLICT: &str = r#"{"error":{"type":"idempotency_error","message":"no"}}"#;
    /// Bodies that prove nothing under any status.
    const FOREIGN: [&str; 10] = [
        "",
        "<html>",
        "null",
        "[]",
        r#"{"object":"refund"}"#,
        r#"{"id":"re_1"}"#,
        r#"{"id":"ch_1","object":"charge"}"#,
        r#"{"error":"not found"}"#,
        r#"{"error":{"message":"no type"}}"#,
        r#"{"id":"re_1","object":"refund""#,
    ];

    fn answered(status: u16, replayed: bool, body: &str) -> Attempt {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Attempt::Answered(Answer {
            status,
            replayed,
            body,
            request_id: Some("req_1".to_owned()),
            ..Answer::default()
        })
    }

    /// The table as it is meant, spelled out once more in another way.
    fn meant(status: u16, body: &str, ambiguous: bool, replayed: bool, keyed: bool) -> Proof {
        let error = body == ERROR || body == CONFLICT;
        if (200..300).contains(&status) && body == SUCCESS {
            Proof::Done
        } else if [400, 402, 404].contains(&status) && body == CONFLICT {
            Proof::KeyConflict
        } else if [400, 402, 404].contains(&status) && error {
            match (ambiguous, replayed, keyed) {
                (false, _, _) | (true, true, true) => Proof::Refused,
                (true, _, _) => Proof::Ambiguous,
            }
        } else if [401, 403, 409, 424, 429].contains(&status) && error {
            Proof::Nothing
        } else {
            Proof::Ambiguous
        }
    }

    #[test]
    fn every_status_with_every_kind_of_body_proves_what_the_table_says() {
        let bodies: Vec<&str> = FOREIGN.into_iter().chain([SUCCESS, ERROR, CONFLICT]).collect();
        let both = [false, true];
        for status in 100..=599 {
            for body in &bodies {
                for (ambiguous, replayed, keyed) in
                    both.iter().flat_map(|a| both.iter().flat_map(move |b| both.map(|c| (*a, *b, c))))
                {
                    let expected = Expected { keyed, ..REFUND };
                    assert_eq!(
                        judge(&answered(status, replayed, body), ambiguous, expected),
                        meant(status, body, ambiguous, replayed, keyed),
                        "{status} {body} ambiguous={ambiguous} replayed={replayed} keyed={keyed}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_was_not_sent_proves_nothing_and_what_broke_leaves_it_open() {
        let troubles = [
            Trouble::Dns,
            Trouble::Connect,
            Trouble::Tls,
            Trouble::BreakerOpen { retry_ms: 500 },
            Trouble::Deadline,
            Trouble::Crowded { why: Why::Full, retry_ms: 500 },
            Trouble::Crowded { why: Why::CallerFull, retry_ms: 500 },
            Trouble::Crowded { why: Why::Deadline, retry_ms: 500 },
            Trouble::Crowded { why: Why::Expired, retry_ms: 500 },
            Trouble::Unsendable,
            Trouble::Timeout,
            Trouble::Reset,
            Trouble::TooLarge,
            Trouble::Protocol,
        ];
        for trouble in troubles {
            for ambiguous in [false, true] {
                assert_eq!(judge(&Attempt::NotSent(trouble), ambiguous, REFUND), Proof::Nothing);
                assert_eq!(judge(&Attempt::Broken(trouble), ambiguous, REFUND), Proof::Ambiguous);
            }
        }
    }

    #[test]
    fn an_object_needs_its_kind_and_an_id_unless_its_kind_has_none() {
        let judge =
            |object, body| judge(&answered(200, false, body), false, Expected { object, keyed: true });
        assert_eq!(judge("", SUCCESS), Proof::Done);
        assert_eq!(judge("charge", SUCCESS), Proof::Ambiguous);
        assert_eq!(judge("cash_balance", r#"{"object":"cash_balance"}"#), Proof::Done);
        assert_eq!(judge("refund", r#"{"object":"refund","id":""}"#), Proof::Ambiguous);
        assert_eq!(judge("customer", r#"{"id":"cus_1","object":"customer","deleted":true}"#), Proof::Done);
    }

    #[test]
    fn a_success_keeps_the_answer_as_it_came() {
        let body = "{ \"object\":\"refund\",\"amount\":5.0,\"id\":\"re_1\" , \"x\":\"\\u00fc\"}\n";
        let verdict = verdict(&[answered(200, false, body)], false, REFUND);
        let Verdict::Settled(Settled::Succeeded(success)) = verdict else { panic!("{verdict:?}") };
        assert_eq!(success.json.as_deref(), Some(body));
        assert_eq!(
            (success.object_id.as_deref(), success.request_id.as_deref()),
            (Some("re_1"), Some("req_1"))
        );
    }

    /// One letter an attempt: Done, Refused, replayed refusal (M), Nothing, Conflict, Ambiguous.
    fn fold(attempts: &str, ambiguous: bool) -> &'static str {
        let attempts: Vec<_> = attempts
            .chars()
            .map(|letter| match letter {
                'D' => answered(200, false, SUCCESS),
                'R' => answered(402, false, ERROR),
                'M' => answered(402, true, ERROR),
                'N' => Attempt::NotSent(Trouble::Connect),
                'C' => answered(400, false, CONFLICT),
                _ => Attempt::Broken(Trouble::Reset),
            })
            .collect();
        match verdict(&attempts, ambiguous, REFUND) {
            Verdict::Settled(Settled::Succeeded(_)) => "done",
            Verdict::Settled(Settled::Refused(_)) => "refused",
            Verdict::Open { last } => {
                assert_eq!(last.as_ref(), attempts.last());
                "open"
            }
            Verdict::Unknown { conflict: false, .. } => "unknown",
            Verdict::Unknown { conflict: true, .. } => "conflict",
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn attempts_add_up() {
        let cases = [
            ("", "open", "unknown"),
            ("N", "open", "unknown"),
            ("D", "done", "done"),
            ("R", "refused", "unknown"),
            ("M", "refused", "refused"),
            ("A", "unknown", "unknown"),
            ("AN", "unknown", "unknown"),
            ("AR", "unknown", "unknown"),
            ("AM", "refused", "refused"),
            ("AMN", "refused", "refused"),
            ("ANND", "done", "done"),
            ("RA", "unknown", "unknown"),
            ("RAR", "unknown", "unknown"),
            ("RAM", "refused", "refused"),
            ("RN", "refused", "unknown"),
            ("RD", "done", "done"),
            ("C", "conflict", "conflict"),
            ("CN", "conflict", "conflict"),
            ("CD", "done", "done"),
        ];
        for (attempts, fresh, after_ambiguity) in cases {
            assert_eq!(fold(attempts, false), fresh, "{attempts}");
            assert_eq!(fold(attempts, true), after_ambiguity, "{attempts} after ambiguity");
        }
    }
}
