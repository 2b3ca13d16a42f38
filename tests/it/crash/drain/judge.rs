//! Judges the ends: what callers were not told against what the gateway recorded, and what it left open.

use std::collections::BTreeSet;

use super::super::compare::{Rule, Violations};
use super::super::feed::compare::Read;
use super::super::records::Audit;
use super::callers::Seen;

/// What stands for the method in the records of a gateway's beginning and end.
const STARTED: &str = "tollgate/start";
const STOPPED: &str = "tollgate/stop";

pub(super) fn violations(seen: &Seen, audit: &[Audit], read: &[Read]) -> Violations {
    let mut found = Violations::new();
    let accepted: BTreeSet<&str> = audit.iter().filter_map(|row| row.trace_id.as_deref()).collect();
    for cut in &seen.cut {
        if accepted.contains(cut.trace.as_str()) {
            let what = format!("it is on record, and its caller was told nothing; {}", cut.what);
            found.entry(Rule::CallCut).or_default().push(what);
        } else if !cut.is_known {
            let what = format!("its caller cannot know that it was not accepted; {}", cut.what);
            found.entry(Rule::CallCut).or_default().push(what);
        }
    }
    found.entry(Rule::WrongAnswer).or_default().extend(seen.failed.iter().cloned());
    found.entry(Rule::LeftOpen).or_default().extend(left_open(audit));
    for one in read {
        let cut = one.cut.iter().map(|what| format!("{}: {what}", one.name));
        found.entry(Rule::StreamCut).or_default().extend(cut);
    }
    found.retain(|_, what| !what.is_empty());
    found
}

/// What was open when a gateway said that it ended, and lives that did not say so.
fn left_open(audit: &[Audit]) -> Vec<String> {
    let (mut open, mut found, mut lives) = (BTreeSet::new(), Vec::new(), false);
    for row in audit {
        let of = row.operation.as_deref().unwrap_or_default();
        match (row.phase.as_str(), row.rpc.as_str()) {
            ("intent", rpc) => drop(open.insert((rpc, of))),
            ("outcome", rpc) => drop(open.remove(&(rpc, of))),
            (_, STARTED) if lives => found.push("a gateway went without a record of its end".to_owned()),
            (_, STARTED) => lives = true,
            (_, STOPPED) => {
                lives = false;
                let left = std::mem::take(&mut open).into_iter();
                found.extend(left.map(|(rpc, of)| format!("{rpc} {of} had no outcome at the end")));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::callers::Cut;
    use super::*;

    fn row(phase: &str, rpc: &str, operation: &str) -> Audit {
        Audit {
            phase: phase.to_owned(),
            rpc: rpc.to_owned(),
            operation: Some(operation.to_owned()),
            trace_id: Some(format!("trace-{operation}")),
            ..Audit::default()
        }
    }

    fn life(rows: impl IntoIterator<Item = Audit>) -> Vec<Audit> {
        let mut life = vec![row("admin", STARTED, "")];
        life.extend(rows);
        life.push(row("admin", STOPPED, ""));
        life
    }

    fn broken(seen: &Seen, audit: &[Audit]) -> Vec<Rule> {
        violations(seen, audit, &[]).into_keys().collect()
    }

    #[test]
    fn an_end_with_everything_on_record_breaks_nothing() {
        let audit = life([row("intent", "a", "1"), row("outcome", "a", "1")]);
        let cut = Cut { trace: "trace-2".to_owned(), is_known: true, what: String::new() };
        assert_eq!(broken(&Seen { cut: vec![cut], ..Seen::default() }, &audit), []);
    }

    #[test]
    fn what_is_open_at_the_end_is_found() {
        let seen = Seen::default();
        assert_eq!(broken(&seen, &life([row("intent", "a", "1")])), [Rule::LeftOpen]);
        let killed = [row("admin", STARTED, "")].into_iter().chain(life([])).collect::<Vec<_>>();
        assert_eq!(broken(&seen, &killed), [Rule::LeftOpen]);
    }

    #[test]
    fn a_call_that_was_cut_is_found_by_its_record_and_by_what_its_caller_knows() {
        let audit = life([row("intent", "a", "1"), row("outcome", "a", "1")]);
        let seen = |trace: &str, is_known| Seen {
            cut: vec![Cut { trace: trace.to_owned(), is_known, what: String::new() }],
            ..Seen::default()
        };
        assert_eq!(broken(&seen("trace-1", true), &audit), [Rule::CallCut]);
        assert_eq!(broken(&seen("trace-2", false), &audit), [Rule::CallCut]);
    }
}
