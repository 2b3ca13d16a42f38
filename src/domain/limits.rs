//! Every limit of the product, by name and unit.

/// Longest order id or operation id, in characters.
pub const ORDER_ID_CHARS_MAX: usize = 200;
/// Longest Stripe object id, in characters (docs.stripe.com/upgrades: ids may grow up to 255).
pub const STRIPE_ID_CHARS_MAX: usize = 255;
/// Metadata keys of a caller: Stripe allows 50 and the gateway needs one.
pub const METADATA_KEYS_MAX: usize = 49;
/// Longest metadata key, in characters (docs.stripe.com/api/metadata).
pub const METADATA_KEY_CHARS_MAX: usize = 40;
/// Longest metadata value, in characters (docs.stripe.com/api/metadata).
pub const METADATA_VALUE_CHARS_MAX: usize = 500;
/// What begins the metadata keys that belong to the gateway.
pub const METADATA_RESERVED_PREFIX: &str = "tollgate_";
/// The metadata key that carries the operation's stamp.
pub const METADATA_STAMP: &str = "tollgate_operation";
/// Violations reported for one request; what is beyond it adds nothing.
pub const VIOLATIONS_MAX: usize = 50;
/// Items on a page when the caller names no number.
pub const PAGE_ITEMS_DEFAULT: i32 = 10;
/// Most items on a page (docs.stripe.com/api/pagination).
pub const PAGE_ITEMS_MAX: i32 = 100;
