//! The settings of what callers may do: where the policies are. What they say is not read here.

use std::path::PathBuf;

use super::Reader;

/// The key with the files.
const FILES: &str = "policy.files";

impl Reader<'_> {
    /// The files with policies. Callers may do nothing without them, so that a gateway with callers and without policies
    /// would be of no use.
    pub(super) fn policy_files(&mut self, callers: bool) -> Option<Vec<PathBuf>> {
        let files = self.optional(FILES, parse_files)?;
        if files.is_none() && callers {
            let how = "is required once there are callers, who may do nothing without it; `tollgate policy init \
                       policy.cedar` writes a first file, to be named here or in `TOLLGATE_POLICY_FILES`";
            self.faults.add(FILES, how.to_owned(), "");
        }
        Some(files.unwrap_or_default())
    }
}

fn parse_files(text: &str) -> Result<Vec<PathBuf>, String> {
    let files: Vec<&str> = text.split(',').map(str::trim).collect();
    if files.iter().any(|file| file.is_empty()) {
        return Err("names an empty file".into());
    }
    Ok(files.into_iter().map(PathBuf::from).collect())
}
