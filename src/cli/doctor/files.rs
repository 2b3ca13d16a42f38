//! Looks at where secrets and checkpoints are kept, and who else can get at them. It reads no secret.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::report::Report;
use crate::config::{Config, Shown};

/// Looks at the place of each secret that is set.
pub(super) fn secrets(shown: &[Shown], report: &mut Report) {
    for setting in shown.iter().filter(|setting| setting.is_secret()) {
        let key = &setting.key;
        match (setting.secret_file(), setting.configuration_file()) {
            (Some(file), _) | (None, Some(file)) => exposed(key, file, report),
            (None, None) if setting.origin.starts_with("the variable") => report.warn(
                "secret-files",
                format!(
                    "`{key}` comes from {}, which whoever starts the gateway can still read",
                    setting.origin
                ),
                format!("put it into a file that only the gateway's user reads, and set `{key}_file`"),
            ),
            (None, None) => {}
        }
    }
    report.pass_if_nothing_else("secret-files", "nobody but their owner reads the files that hold secrets");
}

pub(super) fn exposed(key: &str, file: &Path, report: &mut Report) {
    let mode = fs::metadata(file).map(|found| found.permissions().mode() & 0o777);
    match mode {
        Ok(mode) if mode & 0o077 != 0 => report.warn(
            "secret-files",
            format!("others on this machine can read `{key}` in `{}` (mode {mode:o})", file.display()),
            format!("chmod 600 {}", file.display()),
        ),
        _ => {}
    }
}

/// Looks at where signed checkpoints go.
pub(super) fn checkpoints(config: &Config, report: &mut Report) {
    let Some(file) = &config.audit.checkpoint_file else {
        report.warn(
            "checkpoints",
            "signed checkpoints of the audit log lie beside the database, where one hand can change both",
            "set `audit.checkpoint_file` to a path on another disk, best one that can only be appended to",
        );
        return;
    };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = match OpenOptions::new().append(true).open(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs::metadata(folder).map(|found| found.dev())
        }
        opened => opened.and_then(|file| file.metadata()).map(|found| found.dev()),
    };
    match (written, fs::metadata(&config.data).map(|found| found.dev())) {
        (Err(error), _) => report.fail(
            "checkpoints",
            format!("`{}` cannot be written: {error}", file.display()),
            "make its folder and let the gateway's user write there, or set `audit.checkpoint_file` anew",
        ),
        (Ok(own), Ok(data)) if own == data => report.warn(
            "checkpoints",
            format!("`{}` is on the same disk as the database", file.display()),
            "set `audit.checkpoint_file` to a path on another disk, best one that can only be appended to",
        ),
        (Ok(_), _) => report.pass("checkpoints", "they go to another disk than the database"),
    }
}
