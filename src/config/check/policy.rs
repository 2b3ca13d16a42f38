//! The settings of what callers may do: where the policies are. What they say is not read here.

use std::path::PathBuf;

use super::Reader;

/// The key with the files.
const FILES: &str = "policy.files";

impl Reader<'_> {
    /// The files with policies.
    pub(super) fn policy_files(&mut self) -> Option<Vec<PathBuf>> {
        Some(self.optional(FILES, parse_files)?.unwrap_or_default())
    }
}

fn parse_files(text: &str) -> Result<Vec<PathBuf>, String> {
    let files: Vec<&str> = text.split(',').map(str::trim).collect();
    if files.iter().any(|file| file.is_empty()) {
        return Err("names an empty file".into());
    }
    Ok(files.into_iter().map(PathBuf::from).collect())
}
