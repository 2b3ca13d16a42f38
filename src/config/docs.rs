//! The reference of all keys as Markdown, made from the table.

use std::fmt::Write as _;

use super::bytes;
use super::keys::{KEYS, Key, Shape};

const INTRODUCTION: &str = "\
# Configuration

<!-- Made from the table of keys; `UPDATE_GOLDEN=1 cargo test reference` writes it anew. -->

Settings come from, the later winning: defaults, a TOML file (`--config`, else `TOLLGATE_CONFIG`, else `tollgate.toml` in
the working directory if there is one), environment variables, flags. `tollgate serve` checks them as a whole and names
every fault at once. A setting or a `TOLLGATE_` variable that does not exist is a fault too.

A secret can stand in a file of its own: `stripe.key_file = \"/run/secrets/stripe\"`, or `TOLLGATE_STRIPE_KEY_FILE`, or in a
systemd credential that is named like the key. Blanks and line ends at the end do not count. Two sources for one secret are a
fault. There are no flags for secrets, because other users of a machine can read a process's arguments. What changes
while the gateway runs is taken over: [secrets.md](secrets.md).

```toml
data = \"/var/lib/tollgate\"

[stripe]
key_file = \"/run/secrets/stripe_key\"

[webhook]
secret_file = \"/run/secrets/webhook_secret\"

[callers.billing]
token_file = \"/run/secrets/billing_token\"
```

| Key | Variable | Value | Default | Since | Meaning |
|---|---|---|---|---|---|
";

const COMMAND_LINE: &str = "
More variables are for the command line as a client: `TOLLGATE_ADDRESS` (the gateway, `host:port`, or `https://host:port`),
`TOLLGATE_TOKEN` (the bearer token to send), and for `https` `TOLLGATE_TLS_CA` (the authorities to believe), `TOLLGATE_TLS_CERT`
and `TOLLGATE_TLS_KEY` (the certificate to present and its key), each a file in PEM.
";

/// The text of `docs/config.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    for key in KEYS {
        let Key { path, since, about, .. } = key;
        let row = writeln!(
            text,
            "| `{path}` | {} | {} | {} | {since} | {about} |",
            code(key.variable),
            value(key.shape),
            code(key.default)
        );
        debug_assert!(row.is_ok(), "a String takes all that is written to it");
    }
    text + COMMAND_LINE
}

fn code(text: &str) -> String {
    if text.is_empty() { "–".into() } else { format!("`{text}`") }
}

/// What a value looks like, in words.
pub(super) fn value(shape: Shape) -> String {
    match shape {
        Shape::Texts => "text, or several in an array or separated by commas".into(),
        Shape::Text => "text".into(),
        Shape::Secret => "secret".into(),
        Shape::Secrets => "secret, or several: an array, or separated by commas".into(),
        Shape::Url => "URL".into(),
        Shape::Address => "`ip:port`".into(),
        Shape::Seconds(low, high) => format!("seconds, {low} to {high}"),
        Shape::Days(low, high) => format!("days, {low} to {high}"),
        Shape::Amount => "whole number".into(),
        Shape::Folder => "folder".into(),
        Shape::File => "file".into(),
        Shape::Count(low, high) => format!("number, {low} to {high}"),
        Shape::Bytes(low, high) => {
            format!("bytes, such as `64MiB`; {} to {}", bytes::shown(low), bytes::shown(high))
        }
        Shape::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the flag that refreshes golden files comes from the environment"
    )]
    fn the_reference_is_up_to_date() {
        if std::env::var("UPDATE_GOLDEN").is_ok() {
            std::fs::write("docs/config.md", markdown()).unwrap();
        }
        assert_eq!(std::fs::read_to_string("docs/config.md").unwrap(), markdown());
    }
}
