//! Where in a request a fault is, as a caller writes it: `evidence.customer_name`, `items[1].value`.

use std::fmt;

/// A path to a field of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(String);

impl FieldPath {
    /// The request itself.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// A member of what this path names.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// An item of what this path names.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Stripe's parameter name (`evidence[customer_name]`) as a field path (`evidence.customer_name`).
#[must_use]
pub fn of_param(param: &str) -> String {
    let mut path = String::with_capacity(param.len());
    for part in param.split(['[', ']']).filter(|part| !part.is_empty()) {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            path.push_str(&format!("[{part}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(part);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::of_param;

    #[test]
    fn params_read_as_field_paths() {
        assert_eq!(of_param("amount"), "amount");
        assert_eq!(of_param("evidence[prior][0][charge]"), "evidence.prior[0].charge");
    }
}
