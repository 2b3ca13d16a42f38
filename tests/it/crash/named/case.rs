//! What a case is made of, and how all of them are numbered. It runs none.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};
use tollgate::sandbox::Fault;

use crate::crash::random::Random;

/// Where a change can be killed: a point of the gateway with the passage that counts, or what is seen at the sandbox.
pub(super) const POINTS: [(&str, u64); 23] = [
    ("intent-before", 1),
    ("write-rows", 1),
    ("write-durable", 1),
    ("intent-durable", 1),
    ("send-before", 1),
    ("attempt-before", 1),
    (ARRIVED, 1),
    (EFFECTED, 1),
    ("attempt-headers", 1),
    ("attempt-before", 2),
    ("send-after", 1),
    ("settle-before", 1),
    ("write-rows", 2),
    ("write-durable", 2),
    ("settle-durable", 1),
    ("reply-before", 1),
    ("webhook-verified", 1),
    ("webhook-durable", 1),
    ("index-rows", 1),
    ("index-durable", 1),
    ("terms-durable", 1),
    ("prove-before", 1),
    ("prove-durable", 1),
];
/// The request has arrived at the sandbox.
pub(super) const ARRIVED: &str = "arrived";
/// The sandbox has carried it out.
pub(super) const EFFECTED: &str = "effected";

/// How Stripe answers the first request of a change.
pub(super) const OUTCOMES: [&str; 15] = [
    "executed",
    "declined",
    "invalid",
    "unauthorized",
    "conflict",
    "limited",
    "failed",
    "failed-kept",
    "failed-kept-with-effect",
    "proxy",
    "lost-request",
    "lost-answer",
    "half-answer",
    "reset",
    "slow",
];

/// Where the recovery can be killed in its turn.
pub(super) const SECONDS: [&str; 23] = [
    "open-migrated",
    "start-account",
    "start-before-ready",
    "intent-before",
    "write-rows",
    "write-durable",
    "intent-durable",
    "send-before",
    "attempt-before",
    "attempt-headers",
    "send-after",
    "settle-before",
    "settle-durable",
    "reply-before",
    "webhook-verified",
    "webhook-durable",
    "index-rows",
    "terms-rows",
    "resolve-before-read",
    "found-before",
    "found-durable",
    "prove-before",
    "prove-durable",
];

/// When the equal of the change comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timing {
    /// Together with it.
    Together,
    /// While the gateway starts again.
    AtStart,
    /// When the gateway serves again.
    Later,
}

const TIMINGS: [(&str, Timing); 3] =
    [("together", Timing::Together), ("at-start", Timing::AtStart), ("later", Timing::Later)];

/// Every combination, the recovery left alone being one more.
pub(super) const CASES: usize = POINTS.len() * OUTCOMES.len() * TIMINGS.len() * (SECONDS.len() + 1);

/// Answers of an unknown outcome that a caller takes for the last word. The first may be a refusal of the change itself:
/// fresh, after an attempt that was cut off, it proves nothing. Stripe keeps it, and tells it again at the second.
const UNKNOWN_ANSWERS_MAX: u32 = 2;

/// One story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) point: (&'static str, u64),
    pub(super) outcome: &'static str,
    pub(super) timing: Timing,
    pub(super) second: Option<&'static str>,
}

impl Case {
    /// The case at a place of the run: points and answers in turn, so that a few hundred have all their pairs; the rest
    /// by chance, every other one with a second death.
    pub(super) fn number(seed: u64, at: usize, random: &mut Random) -> Self {
        let at = at + usize::try_from(seed % 1_000).unwrap() * 7;
        Self {
            point: POINTS[at % POINTS.len()],
            // One further at each round, so that all pairs come.
            outcome: OUTCOMES[(at % POINTS.len() + at / POINTS.len()) % OUTCOMES.len()],
            timing: random.pick(&TIMINGS).1,
            second: (random.below(2) == 0).then(|| *random.pick(&SECONDS)),
        }
    }

    /// What the sandbox does with the first request; nothing when it does what it is asked.
    pub(super) fn fault(&self) -> Option<Fault> {
        let status = |status: u16| json!({"kind": "status", "status": status});
        let kept = |status: u16| json!({"kind": "status", "status": status, "saved": true});
        let mut fault = match self.outcome {
            "declined" => {
                json!({"kind": "status", "status": 402, "saved": true, "code": "card_declined"})
            }
            "invalid" => status(400),
            "unauthorized" => status(401),
            "conflict" => status(409),
            "limited" => {
                json!({"kind": "status", "status": 429, "rate_limited_reason": "global-rate"})
            }
            "failed" => status(500),
            "failed-kept" => kept(500),
            "failed-kept-with-effect" => {
                json!({"kind": "status", "status": 500, "saved": true, "effect": true})
            }
            "proxy" => json!({"kind": "html"}),
            "lost-request" => json!({"kind": "drop_before"}),
            "lost-answer" => json!({"kind": "drop_after"}),
            "half-answer" => json!({"kind": "half_body"}),
            "reset" => json!({"kind": "reset"}),
            "slow" => json!({"kind": "latency", "ms": 120}),
            _ => return None,
        };
        fault["times"] = Value::from(1);
        fault["match"] = json!({"method": "POST"});
        Some(Fault::from_json(fault).unwrap())
    }

    /// Whether no resend can tell what came of it: Stripe keeps the failure under the key.
    pub(super) fn may_stay_unknown(&self) -> bool {
        self.outcome.starts_with("failed-kept")
    }

    /// Answers of an unknown outcome after which a caller is content with it, once nothing is killed any more. A refusal
    /// that is neither kept under the key nor tried again within the call is one more, before that of the change itself.
    pub(super) fn unknown_answers_max(&self) -> u32 {
        UNKNOWN_ANSWERS_MAX + u32::from(["invalid", "unauthorized"].contains(&self.outcome))
    }
}

/// `POINT:NTH/ANSWER/TIMING/SECOND`, which `TOLLGATE_PROVE_CASE` takes.
impl fmt::Display for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (timing, _) = TIMINGS.iter().find(|(_, timing)| *timing == self.timing).unwrap();
        let (point, nth) = self.point;
        write!(out, "{point}:{nth}/{}/{timing}/{}", self.outcome, self.second.unwrap_or("none"))
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let [point, outcome, timing, second] = parts[..] else { return Err(format!("no case: `{text}`")) };
        let unknown = |part: &str| format!("`{part}` is no part of a case");
        let point = POINTS.into_iter().find(|(name, nth)| format!("{name}:{nth}") == point);
        Ok(Self {
            point: point.ok_or_else(|| unknown(parts[0]))?,
            outcome: OUTCOMES.into_iter().find(|one| *one == outcome).ok_or_else(|| unknown(outcome))?,
            timing: TIMINGS.into_iter().find(|(name, _)| *name == timing).ok_or_else(|| unknown(timing))?.1,
            second: match second {
                "none" => None,
                second => {
                    Some(SECONDS.into_iter().find(|one| *one == second).ok_or_else(|| unknown(second))?)
                }
            },
        })
    }
}

#[test]
fn a_case_reads_as_it_is_written() {
    let mut random = Random::new(1);
    for at in 0..1_000 {
        let case = Case::number(3, at, &mut random);
        assert_eq!(case.to_string().parse(), Ok(case));
        case.fault();
    }
}
