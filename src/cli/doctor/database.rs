//! Looks at the database and, where a gateway has it, at that gateway. It changes neither.

use std::net::SocketAddr;
use std::path::Path;

use super::super::http;
use super::callers;
use super::report::Report;
use crate::config::Config;
use crate::identity::{TokenRecord, token};
use crate::server::pinned_at;
use crate::store::{Error, Inspection};

/// Whether a gateway has the folder.
pub(super) async fn look(config: &Config, accounts: &[(&str, Option<String>)], report: &mut Report) -> bool {
    match Inspection::of(&config.data) {
        Ok(None) => report.pass("database", "there is none yet; the first start makes it"),
        Ok(Some(seen)) => found(config, &seen, accounts, report),
        Err(Error::Locked) => {
            report.pass("database", "a gateway has it open");
            running(config, report).await;
            return true;
        }
        Err(error) => report.fail("database", error.to_string(), fix(&error, &config.data)),
    }
    false
}

fn found(config: &Config, seen: &Inspection, accounts: &[(&str, Option<String>)], report: &mut Report) {
    for (alias, id) in accounts {
        let pinned = match seen.setting(&pinned_at(alias)) {
            Ok(pinned) => pinned.map(|id| String::from_utf8_lossy(&id).into_owned()),
            Err(error) => {
                report.fail("database", error.to_string(), "restore it from a copy: see docs/operations.md");
                return;
            }
        };
        if let Some((pinned, id)) = pinned.zip(id.as_ref()).filter(|(pinned, id)| pinned != *id) {
            report.fail(
                "database",
                format!("`{alias}` belongs to the account `{pinned}` in it, and the key to `{id}`"),
                "use a key of that account, or a data folder of its own for this one",
            );
            return;
        }
    }
    // A database of an older build has no place for tokens.
    let tokens = seen.entries(token::KIND).unwrap_or_default();
    let tokens: Vec<TokenRecord> =
        tokens.iter().filter_map(|(_, body)| serde_json::from_slice(body).ok()).collect();
    if !tokens.is_empty() {
        callers::tokens(config, &tokens, report);
    }
    let checked =
        if seen.checked { "it is whole" } else { "it opens; it is too large to be read as a whole" };
    report.pass("database", checked);
}

fn fix(error: &Error, dir: &Path) -> String {
    match error {
        Error::TooNew { .. } => "start the build that wrote it, or a newer one".to_owned(),
        Error::Corrupt(_) | Error::Vanished { .. } => {
            "restore it from a copy, and read about restored copies in docs/operations.md before you start"
                .to_owned()
        }
        Error::Busy => "close the other program that has it open".to_owned(),
        Error::Full => "make room on the disk".to_owned(),
        _ => format!("run `doctor` as the user of the gateway, and let that user own `{}`", dir.display()),
    }
}

/// Asks the gateway that has the folder.
async fn running(config: &Config, report: &mut Report) {
    let address = config.listen.ops;
    if config.tls.as_ref().is_some_and(|tls| tls.ops) {
        // Whether the certificate is right is looked at elsewhere.
        match tokio::net::TcpStream::connect(address).await {
            Ok(_) => report.pass("gateway", "it runs and answers over TLS"),
            Err(_) => gone(address, report),
        }
        return;
    }
    match http::ask(&format!("http://{address}"), "GET", "/readyz", None, "").await {
        Ok((status, said)) if status.is_success() => {
            // Each line after the first is something to look after.
            for concern in said.as_str().unwrap_or_default().lines().skip(1) {
                report.warn("gateway", format!("it runs, and says: {concern}"), "its log says more");
            }
            report.pass_if_nothing_else("gateway", "it runs and is ready");
        }
        Ok((status, _)) => report.warn(
            "gateway",
            format!("it runs and is not ready (status {})", status.as_u16()),
            "wait until it has started; its log says what it waits for",
        ),
        Err(_) => gone(address, report),
    }
}

fn gone(address: SocketAddr, report: &mut Report) {
    report.fail(
        "gateway",
        format!("a gateway has the data folder, and nothing answers on `{address}`"),
        "use the configuration of the gateway that runs, or stop it: two gateways cannot share a folder",
    );
}
