//! The runs of a gateway over its event log, by which a place in the log is known to be of this log: a copy that is put back
//! goes on from where it was taken, and has other events at the positions that were given out since. Who asks is not its
//! business.

use rusqlite::Connection;

use super::commit::{self, number};
use super::error::Error;
use super::rows::Setting;
use super::{query, settings};

/// Under which name they are kept.
const RUNS: &str = "log_runs";
/// Bytes of one that is kept: its name, and the position from which on its events stand.
const RUN_BYTES: usize = 16;

/// The runs, the first at first; there is at least one.
#[derive(Debug)]
pub(super) struct Runs(Vec<Run>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    name: u64,
    /// Its events stand from here on, up to those of the next run.
    first: u64,
}

impl Runs {
    /// Begins a run behind the event at `last`. What came before there were any goes by the name of the log. On a disk that
    /// takes no write the last one goes on: whoever can still read must not be kept from it.
    pub(super) fn begin(connection: &Connection, log_id: u64, last: i64) -> Result<Self, Error> {
        let kept = query::setting(connection, RUNS)?.map(|bytes| decode(&bytes)).transpose()?;
        let kept = kept.unwrap_or_else(|| vec![Run { name: log_id, first: 0 }]);
        let mut runs = kept.clone();
        let first = number(last).saturating_add(1);
        // One that left no event here may have left some in what this is a copy of. Its name is not given out anew.
        runs.retain(|run| run.first < first);
        runs.push(Run { name: u64::from_be_bytes(settings::random()?), first });
        // Nobody can go on at a place that retention has passed.
        let oldest = query::events_oldest(connection)?.unwrap_or_default();
        let gone = runs.iter().skip(1).take_while(|run| run.first < oldest).count();
        runs.drain(..gone);
        let setting = Setting { name: RUNS.to_owned(), value: encode(&runs) };
        Ok(Self(match commit::replace_settings(connection, &[setting]) {
            Ok(()) => runs,
            Err(error) => {
                tracing::error!(%error, "the start is not put on record, as long as the disk takes nothing");
                kept
            }
        }))
    }

    /// The name of the run that the event at a position is of; before the first event it is that of the log.
    pub(super) fn at(&self, position: u64) -> u64 {
        let behind = self.0.partition_point(|run| run.first <= position);
        self.0.get(behind.saturating_sub(1)).map(|run| run.name).unwrap_or_default()
    }
}

fn encode(runs: &[Run]) -> Vec<u8> {
    runs.iter().flat_map(|run| [run.name.to_be_bytes(), run.first.to_be_bytes()].concat()).collect()
}

fn decode(bytes: &[u8]) -> Result<Vec<Run>, Error> {
    let damaged = || Error::Corrupt(format!("setting `{RUNS}` is damaged"));
    let (pairs, rest) = bytes.as_chunks::<RUN_BYTES>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(damaged());
    }
    let run = |pair: &[u8; RUN_BYTES]| {
        let (name, first) = pair.split_first_chunk()?;
        Some(Run { name: u64::from_be_bytes(*name), first: u64::from_be_bytes(first.try_into().ok()?) })
    };
    pairs.iter().map(run).collect::<Option<_>>().ok_or_else(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of so many events, of which those up to `gone` have left.
    fn database(events: i64, gone: i64) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB);
                 CREATE TABLE state (name TEXT PRIMARY KEY, value BLOB);
                 CREATE TABLE events (position INTEGER PRIMARY KEY);",
            )
            .unwrap();
        fill(&connection, gone + 1, events);
        connection
    }

    fn fill(connection: &Connection, first: i64, last: i64) {
        for position in first..=last {
            connection.execute("INSERT INTO events VALUES (?1)", [position]).unwrap();
        }
    }

    #[test]
    fn a_position_goes_by_the_run_in_which_its_event_came() {
        let connection = database(0, 0);
        let first = Runs::begin(&connection, 7, 0).unwrap();
        assert_eq!(first.at(0), 7);
        assert!(first.at(1) != 7 && first.at(1) == first.at(9));
        fill(&connection, 1, 5);
        let second = Runs::begin(&connection, 7, 5).unwrap();
        assert_eq!((second.at(0), second.at(1), second.at(5)), (7, first.at(1), first.at(1)));
        assert_ne!(second.at(6), first.at(6), "what came after the copy was taken is not here");
    }

    #[test]
    fn what_was_before_there_were_runs_goes_by_the_name_of_the_log() {
        let runs = Runs::begin(&database(3, 0), 7, 3).unwrap();
        assert_eq!((runs.at(0), runs.at(3)), (7, 7));
        assert_ne!(runs.at(4), 7);
    }

    #[test]
    fn a_run_without_events_leaves_no_name_behind() {
        let connection = database(3, 0);
        let copied = Runs::begin(&connection, 7, 3).unwrap();
        for _ in 0..5 {
            let again = Runs::begin(&connection, 7, 3).unwrap();
            assert!(again.at(4) != copied.at(4) && again.at(3) == 7);
            assert_eq!(again.0.len(), 2);
        }
    }

    #[test]
    fn runs_leave_with_their_events() {
        let connection = database(4, 0);
        let first = Runs::begin(&connection, 7, 4).unwrap();
        fill(&connection, 5, 9);
        Runs::begin(&connection, 7, 9).unwrap();
        connection.execute("DELETE FROM events WHERE position <= 4", ()).unwrap();
        let kept = Runs::begin(&connection, 7, 9).unwrap();
        assert_eq!(kept.at(4), 7, "it is the place before the oldest event");
        connection.execute("DELETE FROM events WHERE position <= 5", ()).unwrap();
        let kept = Runs::begin(&connection, 7, 9).unwrap();
        assert_eq!((kept.0.len(), kept.at(5), kept.at(9)), (2, first.at(5), first.at(9)));
    }

    #[test]
    fn a_disk_that_takes_nothing_lets_the_last_run_go_on() {
        let connection = database(3, 0);
        let first = Runs::begin(&connection, 7, 3).unwrap();
        fill(&connection, 4, 5);
        connection.pragma_update(None, "query_only", true).unwrap();
        let going_on = Runs::begin(&connection, 7, 5).unwrap();
        assert_eq!(going_on.0, first.0);
        connection.pragma_update(None, "query_only", false).unwrap();
        let next = Runs::begin(&connection, 7, 6).unwrap();
        assert_eq!((next.at(3), next.at(6)), (7, first.at(6)), "what it gave out stays good");
    }

    #[test]
    fn what_is_damaged_is_not_guessed_at() {
        for damaged in [&b""[..], b"0123456789abcde", b"0123456789abcdef0"] {
            let connection = database(0, 0);
            connection.execute("INSERT INTO state VALUES (?1, ?2)", (RUNS, damaged)).unwrap();
            assert!(matches!(Runs::begin(&connection, 7, 0), Err(Error::Corrupt(_))), "{damaged:?}");
        }
    }
}
