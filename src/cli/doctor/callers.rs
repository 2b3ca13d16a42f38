//! Looks at who may call and what the policies let them do. It decides nothing.

use std::fs;

use super::report::Report;
use crate::config::Config;
use crate::config::identity::{CallerConfig, KeySource};
use crate::domain::caller::Caller;
use crate::domain::clock::{Clock as _, SystemClock, UnixMillis};
use crate::identity::TokenRecord;
use crate::policy::{self, Known, PolicySet};

/// How long before its end a token is worth a word, in milliseconds.
const ENDING_MS: UnixMillis = 14 * 24 * 3_600_000;

/// Looks at the settings of callers and their policies.
pub(super) fn look(config: &Config, report: &mut Report) {
    if config.callers.is_empty() {
        report.warn(
            "callers",
            format!("no caller is set: whoever reaches `{}` may do everything", config.listen.grpc),
            "name the callers (`callers.NAME`) and what they may do (`policy.files`, `tollgate policy init`)",
        );
        return;
    }
    issuers(config, report);
    match policy::read(&config.policy_files).and_then(|sources| PolicySet::parse(&sources)) {
        Ok(set) => rules(config, &set, report),
        Err(faults) => {
            for fault in faults.0 {
                let fix = "correct it; `tollgate policy check` says when it is right, `tollgate policy schema` what \
                           rules can speak of";
                report.fail("policy", fault.to_string(), fix);
            }
        }
    }
    budgets(config, report);
    report.pass_if_nothing_else("callers", format!("{} are set", config.callers.len()));
}

fn rules(config: &Config, set: &PolicySet, report: &mut Report) {
    let known = Known::of(config);
    for warning in set.warnings(Some(&known)) {
        report.warn("policy", warning.to_string(), "correct the rule, or the name in the configuration");
    }
    for CallerConfig { name, namespace, groups, .. } in &config.callers {
        let caller = Caller { groups: groups.clone(), ..Caller::own(name, namespace) };
        if !set.speaks_for(&caller) {
            report.warn(
                "policy",
                format!("no rule permits the caller `{name}` anything"),
                format!("write a rule for `Caller::\"{name}\"` or one of its groups, or remove the caller"),
            );
        }
    }
    report.pass_if_nothing_else("policy", format!("{} rules are sound", set.rules().count()));
}

fn budgets(config: &Config, report: &mut Report) {
    let known = |name: &String| config.callers.iter().any(|caller| caller.name == *name);
    for budget in &config.budgets {
        for caller in budget.callers.iter().filter(|name| !known(name)) {
            report.warn(
                "budgets",
                format!("the budget `{}` is for `{caller}`, which is no caller", budget.name),
                format!("correct `budgets.{}.callers`", budget.name),
            );
        }
    }
    if config.budgets.is_empty() {
        report.warn(
            "budgets",
            "no budget is set: a caller may move as much as its rules and Stripe let it",
            "cap what each caller can move in a day: `budgets.NAME`, see docs/config.md",
        );
    }
    report.pass_if_nothing_else("budgets", format!("{} are set", config.budgets.len()));
}

fn issuers(config: &Config, report: &mut Report) {
    for issuer in &config.issuers {
        let KeySource::File(file) = &issuer.keys else { continue };
        if let Err(error) = fs::read(file) {
            report.fail(
                "callers",
                format!(
                    "the keys of the issuer `{}` cannot be read from `{}`: {error}",
                    issuer.name,
                    file.display()
                ),
                format!("put the issuer's JSON Web Key Set there, or set `issuers.{}.jwks_url`", issuer.name),
            );
        }
    }
}

/// Looks at the API tokens that the gateway has made.
pub(super) fn tokens(config: &Config, tokens: &[TokenRecord], report: &mut Report) {
    let now = SystemClock::new().wall();
    for token in tokens.iter().filter(|token| token.usable(now).is_ok()) {
        let TokenRecord { id, caller, .. } = token;
        if !config.callers.iter().any(|known| known.name == *caller) {
            report.warn(
                "tokens",
                format!("the token `{id}` is for `{caller}`, which is no caller any more"),
                format!("run `tollgate tokens revoke {id}`"),
            );
        } else if token.expires_ms.is_some_and(|end| end - now < ENDING_MS) {
            report.warn(
                "tokens",
                format!("the token `{id}` of `{caller}` ends within two weeks"),
                format!("run `tollgate tokens rotate {id}` and give the new one to `{caller}`"),
            );
        }
    }
    report.pass_if_nothing_else("tokens", format!("{} are known, none ends soon", tokens.len()));
}
