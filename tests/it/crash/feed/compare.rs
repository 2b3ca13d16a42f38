//! Compares what was made, what the log has and what each stream said.

use std::collections::{BTreeMap, BTreeSet};

use super::super::compare::{Rule, Violations};
use super::super::records::Logged;
use super::consumer::Consumed;

/// Everything that is compared.
pub(crate) struct Sides<'a> {
    /// Events that the sandbox made.
    pub(crate) made: &'a BTreeSet<String>,
    /// Events of which the sandbox was told that they were received.
    pub(crate) acknowledged: &'a [String],
    /// What the gateway left behind, in log order.
    pub(crate) log: &'a [Logged],
    pub(crate) read: &'a [Read],
    pub(crate) consumed: &'a Consumed,
}

/// What one reader was told, over all its lives.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) name: String,
    /// The types that it asked for; empty for all.
    pub(crate) types: Vec<String>,
    pub(crate) streams: Vec<Stream>,
    /// Answers that should not be.
    pub(crate) wrong: Vec<String>,
    /// Streams whose gateway said that it goes, and where they end.
    pub(crate) goodbyes: usize,
    /// How other open streams ended, but for those that the reader left itself.
    pub(crate) cut: Vec<String>,
    /// How often it was killed.
    pub(crate) deaths: usize,
}

/// One stream, from its start to its end.
pub(crate) struct Stream {
    /// The place behind which it was to start.
    pub(crate) after: u64,
    pub(crate) sights: Vec<Sight>,
}

/// One message.
#[derive(Debug)]
pub(crate) enum Sight {
    Event {
        position: u64,
        id: String,
    },
    /// Says that everything up to here has been sent.
    Mark {
        position: u64,
    },
}

impl Sight {
    pub(crate) fn position(&self) -> u64 {
        match self {
            Self::Event { position, .. } | Self::Mark { position } => *position,
        }
    }
}

pub(crate) fn violations(sides: &Sides<'_>) -> Violations {
    let mut found = Violations::new();
    let mut ids = BTreeSet::new();
    for (logged, position) in sides.log.iter().zip(1..) {
        if logged.position != position {
            let what = format!("{} where {position} should be", logged.position);
            found.entry(Rule::LogGap).or_default().push(what);
            break;
        }
    }
    for logged in sides.log {
        if !ids.insert(&logged.id) {
            found.entry(Rule::EventTwice).or_default().push(logged.id.clone());
        }
    }
    for (rule, expected) in [
        (Rule::EventLost, sides.acknowledged.iter().collect::<BTreeSet<_>>()),
        (Rule::EventMissing, sides.made.iter().collect()),
    ] {
        for id in expected.difference(&ids) {
            found.entry(rule).or_default().push((*id).clone());
        }
    }
    for read in sides.read {
        let matching: BTreeMap<u64, &Logged> = sides
            .log
            .iter()
            .filter(|logged| read.types.is_empty() || read.types.iter().any(|of| fits(of, &logged.kind)))
            .map(|logged| (logged.position, logged))
            .collect();
        for (rule, what) in judged(read, &matching) {
            found.entry(rule).or_default().push(format!("{}: {what}", read.name));
        }
    }
    for (rule, what) in consumed(sides.consumed, sides.log) {
        found.entry(rule).or_default().push(format!("subscription: {what}"));
    }
    found
}

/// One reader against the events of the log that it asked for.
fn judged(read: &Read, matching: &BTreeMap<u64, &Logged>) -> Vec<(Rule, String)> {
    let mut found: Vec<(Rule, String)> =
        read.wrong.iter().map(|what| (Rule::WrongAnswer, what.clone())).collect();
    let mut unseen: BTreeSet<u64> = matching.keys().copied().collect();
    for (number, stream) in read.streams.iter().enumerate() {
        let mut at = stream.after;
        for sight in &stream.sights {
            let position = sight.position();
            let name = format!("stream {number} after {}, at {at}: {sight:?}", stream.after);
            let between = match sight {
                Sight::Event { position, id } => {
                    if *position <= at {
                        let rule =
                            if *position <= stream.after { Rule::EventRepeated } else { Rule::EventOrder };
                        found.push((rule, name));
                        continue;
                    }
                    match matching.get(position) {
                        Some(logged) if logged.id == *id => drop(unseen.remove(position)),
                        other => found.push((Rule::EventMoved, format!("{name}, in the log {other:?}"))),
                    }
                    at + 1..*position
                }
                Sight::Mark { position } => {
                    if *position < at {
                        found.push((Rule::EventOrder, name));
                        continue;
                    }
                    at + 1..*position + 1
                }
            };
            let skipped = matching.range(between).next();
            if let Some((skipped, _)) = skipped {
                found.push((Rule::EventSkipped, format!("{name}: without {skipped}")));
            }
            at = position;
        }
    }
    found.extend(unseen.into_iter().map(|position| (Rule::EventUnseen, position.to_string())));
    found
}

/// What a named subscription of all events gave out against what its consumers answered.
fn consumed(consumed: &Consumed, log: &[Logged]) -> Vec<(Rule, String)> {
    let mut found: Vec<(Rule, String)> =
        consumed.wrong.iter().map(|what| (Rule::WrongAnswer, what.clone())).collect();
    if consumed.streams == 0 {
        return found;
    }
    let by_position: BTreeMap<u64, &Logged> = log.iter().map(|logged| (logged.position, logged)).collect();
    let mut by_object: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for logged in log.iter().filter(|logged| !logged.object.is_empty()) {
        by_object.entry(&logged.object).or_default().push(logged.position);
    }
    let mut given_at_all = BTreeSet::new();
    for given in &consumed.given {
        given_at_all.insert(given.position);
        let Some(logged) = by_position.get(&given.position).filter(|logged| logged.id == given.id) else {
            found.push((Rule::EventMoved, format!("{given:?}")));
            continue;
        };
        let settled = consumed.settled.get(&given.position);
        if let Some(at_ms) = settled.and_then(|settled| settled.confirmed_ms)
            && given.at_ms > at_ms
        {
            found.push((Rule::AcknowledgedAgain, format!("{given:?}, confirmed at {at_ms}")));
        }
        // Of one object's events the earlier ones had to be dealt with before.
        let of_object = by_object.get(logged.object.as_str()).into_iter().flatten();
        for earlier in of_object.take_while(|position| **position < given.position) {
            let asked_ms = consumed.settled.get(earlier).map(|settled| settled.asked_ms);
            if asked_ms.is_none_or(|asked_ms| asked_ms > given.at_ms) {
                let what = format!("{given:?} of {}, but {earlier} was asked at {asked_ms:?}", logged.object);
                found.push((Rule::EventOrder, what));
            }
        }
    }
    for logged in log {
        if !given_at_all.contains(&logged.position) {
            found.push((Rule::EventUnseen, format!("{} {}", logged.position, logged.id)));
        } else if !consumed.settled.contains_key(&logged.position) {
            found.push((Rule::NeverSettled, format!("{} {}", logged.position, logged.id)));
        }
    }
    found
}

/// Whether a type fits an exact type or a prefix with a star.
fn fits(pattern: &str, kind: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == kind, |start| kind.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::super::consumer::{Given, Settled};
    use super::*;

    fn log() -> Vec<Logged> {
        let kinds = ["a.x", "b.x", "a.y", "b.y", "a.z"];
        kinds
            .into_iter()
            .zip(1..)
            .map(|(kind, position)| Logged {
                position,
                id: format!("evt_{position}"),
                kind: kind.to_owned(),
                object: kind[..1].to_owned(),
            })
            .collect()
    }

    fn event(position: u64) -> Sight {
        Sight::Event { position, id: format!("evt_{position}") }
    }

    fn mark(position: u64) -> Sight {
        Sight::Mark { position }
    }

    fn broken(types: &[&str], streams: Vec<(u64, Vec<Sight>)>) -> Vec<Rule> {
        let log = log();
        let read = Read {
            types: types.iter().map(ToString::to_string).collect(),
            streams: streams.into_iter().map(|(after, sights)| Stream { after, sights }).collect(),
            ..Read::default()
        };
        let made = log.iter().map(|logged| logged.id.clone()).collect();
        let sides = Sides {
            made: &made,
            acknowledged: &[],
            log: &log,
            read: &[read],
            consumed: &Consumed::default(),
        };
        violations(&sides).into_keys().collect()
    }

    #[test]
    fn streams_in_order_break_nothing() {
        assert_eq!(broken(&[], vec![(0, (1..=5).map(event).collect())]), []);
        let resumed = vec![
            (0, vec![event(1), event(2), mark(2), event(3)]),
            (2, vec![event(3), event(4)]),
            (4, vec![mark(4), event(5), mark(5)]),
        ];
        assert_eq!(broken(&[], resumed), []);
        assert_eq!(broken(&["a.*"], vec![(0, vec![event(1), mark(2), event(3)]), (4, vec![event(5)])]), []);
        assert_eq!(broken(&["c"], vec![(0, vec![mark(5)])]), []);
    }

    #[test]
    fn each_broken_promise_of_a_stream_is_seen() {
        let all = || (1..=5).map(event).collect::<Vec<_>>();
        assert_eq!(broken(&[], vec![(0, (1..=4).map(event).collect())]), [Rule::EventUnseen]);
        assert_eq!(broken(&[], vec![(0, all()), (1, vec![event(3)])]), [Rule::EventSkipped]);
        assert_eq!(
            broken(&["b.*"], vec![(0, vec![event(2), event(4)]), (0, vec![mark(3)])]),
            [Rule::EventSkipped]
        );
        assert_eq!(broken(&[], vec![(0, all()), (2, vec![event(2), event(3)])]), [Rule::EventRepeated]);
        assert_eq!(
            broken(&[], vec![(0, all()), (0, vec![event(1), event(2), event(1)])]),
            [Rule::EventOrder]
        );
        assert_eq!(broken(&[], vec![(0, all()), (0, vec![event(1), event(2), mark(1)])]), [Rule::EventOrder]);
        let moved = Sight::Event { position: 3, id: "evt_9".to_owned() };
        assert_eq!(broken(&[], vec![(0, all()), (2, vec![moved])]), [Rule::EventMoved]);
        assert_eq!(broken(&["a.*"], vec![(0, all())]), [Rule::EventMoved]);
    }

    /// Events given out at such times, by position, and when each was asked to be settled and confirmed.
    fn judged_consumed(given: &[(u64, i64)], settled: &[(u64, i64, Option<i64>)]) -> Vec<Rule> {
        let given = given.iter().map(|(position, at_ms)| Given {
            position: *position,
            id: format!("evt_{position}"),
            at_ms: *at_ms,
        });
        let settled = settled.iter().map(|(position, asked_ms, confirmed_ms)| {
            (*position, Settled { asked_ms: *asked_ms, confirmed_ms: *confirmed_ms })
        });
        let all = Consumed {
            given: given.collect(),
            settled: settled.collect(),
            streams: 1,
            ..Consumed::default()
        };
        let rules: BTreeSet<Rule> = consumed(&all, &log()[..3]).into_iter().map(|(rule, _)| rule).collect();
        rules.into_iter().collect()
    }

    #[test]
    fn each_broken_promise_of_a_subscription_is_seen() {
        // 1 and 3 are of one object.
        let (given, settled) =
            (vec![(1, 10), (2, 10), (3, 20)], vec![(1, 15, Some(16)), (2, 15, None), (3, 30, Some(31))]);
        assert_eq!(judged_consumed(&given, &settled), []);
        let with = |more: (u64, i64)| [&given[..], &[more]].concat();
        assert_eq!(judged_consumed(&with((1, 16)), &settled), []);
        assert_eq!(judged_consumed(&with((1, 17)), &settled), [Rule::AcknowledgedAgain]);
        // Nobody was told that it is acknowledged.
        assert_eq!(judged_consumed(&with((2, 99)), &settled), []);
        assert_eq!(judged_consumed(&with((3, 14)), &settled), [Rule::EventOrder]);
        assert_eq!(judged_consumed(&given[..2], &settled), [Rule::EventUnseen]);
        assert_eq!(judged_consumed(&given, &settled[..2]), [Rule::NeverSettled]);
        assert_eq!(judged_consumed(&with((4, 40)), &settled), [Rule::EventMoved]);
    }

    #[test]
    fn the_log_has_to_hold_what_was_made_and_acknowledged_once_and_without_gaps() {
        let judged = |log: &[Logged], acknowledged: &[&str]| {
            let acknowledged: Vec<String> = acknowledged.iter().map(ToString::to_string).collect();
            let made = BTreeSet::from(["evt_2".to_owned()]);
            let sides = Sides {
                made: &made,
                acknowledged: &acknowledged,
                log,
                read: &[],
                consumed: &Consumed::default(),
            };
            violations(&sides).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(judged(&log(), &["evt_1"]), []);
        assert_eq!(judged(&log(), &["evt_6"]), [Rule::EventLost]);
        assert_eq!(judged(&log()[..1], &["evt_1"]), [Rule::EventMissing]);
        assert_eq!(judged(&log()[1..], &[]), [Rule::LogGap]);
        let mut twice = log();
        twice[2].id = "evt_2".to_owned();
        assert_eq!(judged(&twice, &[]), [Rule::EventTwice]);
    }
}
