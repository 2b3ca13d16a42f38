//! Who is calling, once it is known; how it was found out is `identity`'s and the transport's business.

/// An identified caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name from the configuration, for the audit log.
    pub name: String,
    /// Namespace of its order ids: only callers that share it can meet each other's operations.
    pub namespace: String,
    /// Whether it may see and settle the operations of every namespace, and read the whole audit log.
    pub admin: bool,
}
