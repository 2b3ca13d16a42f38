//! From files to policies: each is read, parsed and checked against the schema, and every fault is named with its place.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use cedar_policy::{Policy, PolicyId, Schema, ValidationMode, Validator};
use miette::Diagnostic;

use super::fault::line_of;
use super::set::{PolicySet, Rule};
use super::{DEFAULT_DENY, EVALUATION_ERROR, Fault, Faults, ON_LOOPBACK, SCHEMA};

/// How the name of a file with policies ends.
const EXTENSION: &str = "cedar";
/// Longest name of a rule, in characters.
const RULE_CHARS_MAX: usize = 100;

/// The text of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it was read.
    pub file: String,
    /// What it says.
    pub text: String,
}

/// The files that `paths` name: a folder stands for every `.cedar` file in it, in the order of their names.
///
/// # Errors
/// When a folder cannot be read or has none.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Faults> {
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    for path in paths {
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let fault = |what: String| Fault { file: path.display().to_string(), line: None, what };
        let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match entries {
            Ok(entries) => {
                let paths = entries.into_iter().map(|entry| entry.path());
                let mut here: Vec<_> = paths.filter(|path| is_policy(path)).collect();
                here.sort();
                if here.is_empty() {
                    faults.push(fault(format!("the folder has no `.{EXTENSION}` file")));
                }
                found.extend(here);
            }
            Err(error) => faults.push(fault(format!("cannot be read: {error}"))),
        }
    }
    if faults.is_empty() { Ok(found) } else { Err(Faults(faults)) }
}

fn is_policy(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}

/// The text of every file that `paths` name.
///
/// # Errors
/// With every file that cannot be read.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Source>, Faults> {
    let (mut sources, mut faults) = (Vec::new(), Vec::new());
    for path in files(paths)? {
        let file = path.display().to_string();
        match fs::read_to_string(&path) {
            Ok(text) => sources.push(Source { file, text }),
            Err(error) => faults.push(Fault { file, line: None, what: format!("cannot be read: {error}") }),
        }
    }
    if faults.is_empty() { Ok(sources) } else { Err(Faults(faults)) }
}

impl PolicySet {
    /// The policies of these texts, checked against the schema.
    ///
    /// # Errors
    /// With every fault: what is not Cedar, a rule without a name or with a name that is taken, what the schema does not
    /// know.
    pub fn parse(sources: &[Source]) -> Result<Self, Faults> {
        Self::checked(sources, schema().map_err(|fault| Faults(vec![fault]))?)
    }

    pub(super) fn checked(sources: &[Source], schema: Schema) -> Result<Self, Faults> {
        let mut set = cedar_policy::PolicySet::new();
        let (mut rules, mut faults) = (BTreeMap::new(), Vec::new());
        for source in sources {
            match cedar_policy::PolicySet::from_str(&source.text) {
                Ok(parsed) => {
                    if let Some(template) = parsed.templates().next() {
                        faults
                            .push(source.fault(template, "templates are not supported; write the names out"));
                    }
                    for policy in in_order(&parsed) {
                        match named(&policy, source, &rules) {
                            Ok((policy, rule)) => {
                                // A name that is taken was refused just now, so that nothing can go wrong here.
                                if let Err(error) = set.add(policy) {
                                    faults.push(Fault {
                                        file: source.file.clone(),
                                        line: None,
                                        what: error.to_string(),
                                    });
                                }
                                rules.insert(rule.id.clone(), rule);
                            }
                            Err(fault) => faults.push(fault),
                        }
                    }
                }
                Err(errors) => faults.extend(errors.iter().map(|error| source.diagnosed(error))),
            }
        }
        faults.extend(violations(&set, &rules, sources, schema.clone()));
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        Self::assemble(set, rules, schema, sources)
    }

    /// The policies of a gateway without callers: everybody who reaches its loopback address may do everything.
    ///
    /// # Errors
    /// Never in a build that passes its tests.
    pub fn on_loopback() -> Result<Self, Faults> {
        let text = format!("@id(\"{ON_LOOPBACK}\")\npermit(principal, action, resource);\n");
        Self::parse(&[Source { file: "(built in)".to_owned(), text }])
    }
}

impl Source {
    /// A fault at the place that a policy takes.
    fn fault(&self, at: &impl PlacedIn, what: impl Into<String>) -> Fault {
        let line = at.byte().map(|byte| line_of(&self.text, byte));
        Fault { file: self.file.clone(), line, what: what.into() }
    }

    /// What Cedar says, at the place that it says it of.
    fn diagnosed(&self, error: &(impl Diagnostic + ?Sized)) -> Fault {
        let label = error.labels().and_then(|mut labels| labels.next());
        let line = label.map(|label| line_of(&self.text, label.offset()));
        let help = error.help().map(|help| format!("; {help}")).unwrap_or_default();
        Fault { file: self.file.clone(), line, what: format!("{error}{help}") }
    }
}

/// Something with a place in its file.
trait PlacedIn {
    fn byte(&self) -> Option<usize>;
}

impl PlacedIn for Policy {
    fn byte(&self) -> Option<usize> {
        self.as_ref().loc().map(|loc| loc.span.offset())
    }
}

impl PlacedIn for cedar_policy::Template {
    fn byte(&self) -> Option<usize> {
        self.as_ref().loc().map(|loc| loc.span.offset())
    }
}

/// The policies in the order in which they stand in the file.
fn in_order(parsed: &cedar_policy::PolicySet) -> Vec<Policy> {
    let mut policies: Vec<Policy> = parsed.policies().cloned().collect();
    policies.sort_by_key(PlacedIn::byte);
    policies
}

/// The policy under the name that its author gave it.
fn named(policy: &Policy, source: &Source, rules: &BTreeMap<String, Rule>) -> Result<(Policy, Rule), Fault> {
    let Some(id) = policy.annotation("id") else {
        return Err(source.fault(policy, "the rule has no name; write `@id(\"...\")` above it"));
    };
    let fits = (1..=RULE_CHARS_MAX).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !fits {
        let what = format!(
            "`{}` is not a name of a rule: 1 to {RULE_CHARS_MAX} letters, digits, `-`, `_` and `.`",
            id.escape_debug()
        );
        return Err(source.fault(policy, what));
    }
    if [DEFAULT_DENY, EVALUATION_ERROR].contains(&id) {
        return Err(source.fault(policy, format!("`{id}` is the gateway's own name")));
    }
    if let Some(other) = rules.get(id) {
        return Err(source.fault(policy, format!("the name `{id}` is taken by a rule in `{}`", other.file)));
    }
    let line = policy.byte().map(|byte| line_of(&source.text, byte));
    Ok((policy.new_id(PolicyId::new(id)), Rule::of(id, policy, &source.file, line)))
}

/// What the schema does not allow.
fn violations(
    set: &cedar_policy::PolicySet,
    rules: &BTreeMap<String, Rule>,
    sources: &[Source],
    schema: Schema,
) -> Vec<Fault> {
    let result = Validator::new(schema).validate(set, ValidationMode::Strict);
    let faults = result.validation_errors().map(|error| {
        let rule = rules.get(AsRef::<str>::as_ref(error.policy_id()));
        let source = sources.iter().find(|source| rule.is_some_and(|rule| rule.file == source.file));
        match source {
            Some(source) => source.diagnosed(error),
            None => Fault { file: String::new(), line: None, what: error.to_string() },
        }
    });
    faults.collect()
}

/// The schema that every policy is checked against.
pub(super) fn schema() -> Result<Schema, Fault> {
    let parsed = Schema::from_cedarschema_str(SCHEMA);
    parsed.map(|(schema, _)| schema).map_err(|error| Fault {
        file: "the built-in schema".to_owned(),
        line: None,
        what: error.to_string(),
    })
}
