//! Which settings take effect while the gateway runs, and which of them name files that are read. What follows from a
//! change is not its business.

use super::keys::{Shape, find};

/// Keys, and beginnings of keys, that take effect while the gateway runs.
const RELOADED: &[&str] = &[
    "budgets.",
    "callers.",
    "issuers.",
    "policy.",
    "stripe.key",
    "tls.certificate_file",
    "tls.client_",
    "tls.key_file",
    "webhook.secret",
];
/// Of an account beside the default one.
const RELOADED_OF_ACCOUNT: &[&str] = &["key", "webhook_secret"];
/// The one file that is written and not read.
const WRITTEN: &str = "audit.checkpoint_file";

/// Whether a change of `path`, or of a file that it names, takes effect while the gateway runs; others wait for the next
/// start.
pub(super) fn is_reloaded(path: &str) -> bool {
    let of_account = path.strip_prefix("accounts.").and_then(|rest| rest.split_once('.'));
    RELOADED.iter().any(|begin| path.starts_with(begin))
        || of_account.is_some_and(|(_, name)| RELOADED_OF_ACCOUNT.contains(&name))
}

/// Whether the value of `path` names files that are read, so that a change of theirs is one of the settings.
pub(super) fn names_files(path: &str) -> bool {
    find(path).is_some_and(|key| match key.shape {
        Shape::File => key.path != WRITTEN,
        Shape::Texts => key.path.ends_with("files"),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exchanged_while_running_is_told_from_what_waits() {
        for path in ["stripe.key", "callers.a.token", "accounts.eu.key", "tls.key_file (/run/key)"] {
            assert!(is_reloaded(path), "{path}");
        }
        for path in ["stripe.api_base", "listen.grpc", "accounts.eu.mode", "tls.webhook", "data"] {
            assert!(!is_reloaded(path), "{path}");
        }
        for (path, names) in [
            ("policy.files", true),
            ("tls.client_ca_files", true),
            ("issuers.a.jwks_file", true),
            ("audit.checkpoint_file", false),
            ("callers.a.groups", false),
            ("stripe.key", false),
        ] {
            assert_eq!(names_files(path), names, "{path}");
        }
    }
}
