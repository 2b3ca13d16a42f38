//! Amounts as people read them in messages. It must not compute with them.
//! Source: <https://docs.stripe.com/currencies>.

const WITHOUT_MINOR_UNIT: &[&str] = &[
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf",
];
const WITH_THREE_DIGITS: &[&str] = &["bhd", "jod", "kwd", "omr", "tnd"];

/// An amount of minor units with its currency's sign and digits, such as `$12.30`.
pub(super) fn shown(minor: i64, currency: &str) -> String {
    let digits = match currency {
        currency if WITHOUT_MINOR_UNIT.contains(&currency) => 0,
        currency if WITH_THREE_DIGITS.contains(&currency) => 3,
        _ => 2,
    };
    let unit = 10_u64.pow(digits);
    let sign = if minor < 0 { "-" } else { "" };
    let (whole, part) = (minor.unsigned_abs() / unit, minor.unsigned_abs() % unit);
    let width = usize::try_from(digits).unwrap_or_default();
    let number = if digits == 0 { whole.to_string() } else { format!("{whole}.{part:0width$}") };
    match currency {
        "usd" => format!("{sign}${number}"),
        "eur" => format!("{sign}€{number}"),
        "gbp" => format!("{sign}£{number}"),
        "jpy" => format!("{sign}¥{number}"),
        other => format!("{sign}{number} {}", other.to_uppercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn each_currency_has_its_own_digits() {
        let cases = [(4000, "usd"), (5, "eur"), (700, "jpy"), (12_345, "kwd"), (-1, "sek")];
        let texts = cases.map(|(minor, currency)| shown(minor, currency));
        assert_eq!(texts, ["$40.00", "€0.05", "¥700", "12.345 KWD", "-0.01 SEK"]);
    }
}
