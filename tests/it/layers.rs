//! Keeps the rooms apart: who may import whom, where a library or the system may be touched, and how a file begins and
//! ends. It reads the sources as text; what a lint can check is left to the lints.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file, in lines.
const FILE_LINES_MAX: usize = 500;

/// Each room's floor; a room imports rooms of lower floors only.
const FLOORS: &[(&str, u8)] = &[
    ("proto", 0),
    ("domain", 0),
    ("config", 1),
    ("telemetry", 1),
    ("contract", 1),
    ("policy", 2),
    ("store", 2),
    ("stripe", 2),
    ("identity", 2),
    ("audit", 3),
    ("ledger", 3),
    ("events", 3),
    ("gateway", 4),
    ("grpc", 5),
    ("webhook", 5),
    ("ops", 5),
    ("server", 6),
    ("cli", 7),
    ("main", 8),
    ("lib", 7),
];
/// The one import on a floor: an operation and its audit record are written in one transaction.
const BESIDE: (&str, &str) = ("ledger", "audit");
/// The stand-in for Stripe lies beside the floors: it shares nothing with the gateway but `domain`, so that one mistake
/// cannot hide in both, and only the command line starts it.
const SANDBOX: &str = "sandbox";
const SANDBOX_FLOOR: u8 = 6;

/// Text that may stand in the sources below these paths only.
const CONFINED: &[(&str, &[&str])] = &[
    ("cedar_policy", &["src/policy"]),
    ("tonic", &["src/grpc", "src/server", "src/proto", "src/cli"]),
    // An issuer's keys are the one other thing that is fetched.
    ("reqwest::", &["src/stripe/transport", "src/identity/jwks/fetch.rs"]),
    ("rusqlite", &["src/store"]),
    ("SystemTime::now", &["src/domain/clock.rs"]),
    ("env::var", &["src/config", "src/domain/planted.rs"]),
];

/// Marks of unfinished work, in two halves so that this file does not carry them.
const UNFINISHED: &[(&str, &str)] =
    &[("TO", "DO"), ("FIX", "ME"), ("todo", "!("), ("unimplemented", "!("), ("#[igno", "re")];

/// One source file of the package.
struct Source {
    /// Path from the package's root, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The room that the file belongs to; empty outside `src`.
    fn room(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or_default();
        inside.split(['/', '.']).next().unwrap_or_default()
    }

    /// The lines that are shipped: the unit tests at the end and comments are left out.
    fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = "#[cfg(test)]\nmod tests {";
        let end = self.text.find(tests).unwrap_or(self.text.len());
        let lines = self.text.get(..end).unwrap_or_default().lines().enumerate();
        lines.filter(|(_, line)| !line.trim_start().starts_with("//")).map(|(at, line)| (at + 1, line))
    }
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(path.to_str().unwrap()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let paths = folders.iter().flat_map(|folder| {
        if Path::new(folder).is_file() { vec![PathBuf::from(folder)] } else { files(folder) }
    });
    paths
        .map(|path| Source {
            path: path.to_str().unwrap().to_owned(),
            text: fs::read_to_string(&path).unwrap(),
        })
        .collect()
}

/// The shipped sources: a module that its parent declares for tests alone is not among them.
fn shipped() -> Vec<Source> {
    let all = sources(&["src"]);
    let test_only: Vec<String> = all
        .iter()
        .flat_map(|source| {
            let folder = match source.path.as_str() {
                "src/lib.rs" | "src/main.rs" => "src",
                path => path.trim_end_matches(".rs"),
            };
            let declared = source.text.split("#[cfg(test)]\n").skip(1);
            let names = declared.filter_map(|rest| {
                let line =
                    rest.lines().next()?.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
                line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
            });
            names.map(move |name| format!("{folder}/{name}.rs")).collect::<Vec<_>>()
        })
        .collect();
    all.into_iter().filter(|source| !test_only.contains(&source.path)).collect()
}

/// The rooms that a line names by `crate::`, or by the library's name in `main`.
fn imports(line: &str) -> Vec<&str> {
    let after = line.split("crate::").skip(1).chain(line.split("tollgate::").skip(1));
    after
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
        .collect()
}

/// Whether the line holds `text` at the beginning of a word.
fn names(line: &str, text: &str) -> bool {
    line.match_indices(text).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().last());
        before.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_')
    })
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

fn may_import(from: &str, to: &str) -> bool {
    if from == to || (from, to) == BESIDE {
        return true;
    }
    match (from, to) {
        (SANDBOX, to) => to == "domain",
        (from, SANDBOX) => floor(from).is_some_and(|floor| floor > SANDBOX_FLOOR),
        (from, to) => floor(from) > floor(to) && floor(to).is_some(),
    }
}

#[test]
fn rooms_import_lower_floors_only() {
    let mut wrong = Vec::new();
    for source in shipped() {
        assert!(floor(source.room()).is_some() || source.room() == SANDBOX, "{} has no floor", source.path);
        for (at, line) in source.shipped() {
            for room in imports(line).into_iter().filter(|room| floor(room).is_some() || *room == SANDBOX) {
                if !may_import(source.room(), room) {
                    wrong.push(format!("{}:{at} imports `{room}`", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_rule_of_floors_can_fail() {
    for (from, to, allowed) in [
        ("ledger", "store", true),
        ("store", "ledger", false),
        ("store", "stripe", false),
        ("identity", "store", false),
        ("ledger", "audit", true),
        ("audit", "ledger", false),
        ("grpc", "webhook", false),
        ("sandbox", "domain", true),
        ("sandbox", "stripe", false),
        ("gateway", "sandbox", false),
        ("cli", "sandbox", true),
    ] {
        assert_eq!(may_import(from, to), allowed, "{from} -> {to}");
    }
}

#[test]
fn libraries_and_the_system_are_touched_where_they_belong() {
    let mut wrong = Vec::new();
    for source in shipped() {
        for (text, homes) in CONFINED {
            if homes.iter().any(|home| source.path.starts_with(home)) {
                continue;
            }
            let lines = source.shipped().filter(|(_, line)| names(line, text));
            wrong.extend(lines.map(|(at, _)| format!("{}:{at} uses `{text}`", source.path)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_say_what_they_own_and_stay_short() {
    let mut wrong = Vec::new();
    for source in sources(&["src", "tests/it", "build", "build.rs"]) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{} has {lines} lines", source.path));
        }
        if !source.text.starts_with("//! ") {
            wrong.push(format!("{} does not begin with `//!`", source.path));
        }
        if source.path.ends_with("/mod.rs") {
            wrong.push(format!("{} is a `mod.rs`", source.path));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_is_left_unfinished_and_no_live_key_is_written_down() {
    let mut wrong = Vec::new();
    for source in sources(&["src", "tests/it", "build", "build.rs"]) {
        for (at, line) in source.text.lines().enumerate() {
            if UNFINISHED.iter().any(|(half, other)| line.contains(&format!("{half}{other}"))) {
                wrong.push(format!("{}:{} is unfinished", source.path, at + 1));
            }
            let key = line
                .split_once("_live_")
                .map(|(_, rest)| rest.chars().take_while(char::is_ascii_alphanumeric));
            if key.is_some_and(|key| key.count() >= 16) {
                wrong.push(format!("{}:{} looks like a live key", source.path, at + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
