//! What the values of keys look like. How they are read is `check`'s business.

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Any text.
    Text,
    /// A secret; can also be read from a file that the key with `_file` (variable: `_FILE`) names.
    Secret,
    /// Secrets in an array or separated by commas; from a file too.
    Secrets,
    /// Texts in an array or separated by commas.
    Texts,
    /// `http://` or `https://`, a host and perhaps a port.
    Url,
    /// `ip:port`.
    Address,
    /// Whole seconds within these bounds.
    Seconds(u64, u64),
    /// Whole days within these bounds.
    Days(u32, u32),
    /// A whole number of a currency's smallest unit.
    Amount,
    /// A folder.
    Folder,
    /// A file.
    File,
    /// A whole number within these bounds.
    Count(u32, u32),
    /// Bytes within these bounds: a whole number, perhaps of `KiB`, `MiB` or `GiB`.
    Bytes(u64, u64),
    /// One of these words.
    Choice(&'static [&'static str]),
}

impl Shape {
    /// Whether the value can come from a file of its own.
    #[must_use]
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::Secrets)
    }
}
