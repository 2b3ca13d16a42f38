//! Search: Stripe's query language over stored objects. It must not see what it is told is not searchable.
//! Source: <https://docs.stripe.com/search>.

use serde_json::{Value, json};

use super::error::Error;
use super::object::{Object, flag};
use super::page;
use super::routes::Call;

/// Parameters of every search endpoint.
pub(super) const PARAMS: &str = "query! limit:int page";

/// Searchable fields by kind, besides `metadata`.
const FIELDS: &[(&str, &[&str])] = &[
    (
        "charge",
        &[
            "amount",
            "billing_details.address.postal_code",
            "created",
            "currency",
            "customer",
            "disputed",
            "payment_method_details.card.brand",
            "payment_method_details.card.exp_month",
            "payment_method_details.card.exp_year",
            "payment_method_details.card.fingerprint",
            "payment_method_details.card.last4",
            "refunded",
            "status",
        ],
    ),
    ("customer", &["created", "email", "name", "phone"]),
    ("payment_intent", &["amount", "created", "currency", "customer", "status"]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Contains,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, PartialEq)]
struct Clause {
    negated: bool,
    path: Vec<String>,
    operator: Operator,
    /// `null` asks whether the field is absent.
    value: Option<String>,
}

/// Clauses that must all hold, or of which one must.
#[derive(Debug, PartialEq)]
struct Query {
    any: bool,
    clauses: Vec<Clause>,
}

/// The search endpoint of a kind, newest first.
pub(super) fn run(call: &Call<'_>, kind: &str) -> Result<Value, Error> {
    let params = &call.params;
    let query = parse(kind, super::object::text(params, "query"))?;
    let limit = page::limit(params)?;
    let offset = match params.get("page").and_then(Value::as_str) {
        None => 0,
        Some(token) => token
            .strip_prefix("offset_")
            .and_then(|offset| offset.parse::<usize>().ok())
            .ok_or_else(|| Error::invalid("Invalid page token.").param("page"))?,
    };
    let found: Vec<_> = call
        .state
        .all(kind)
        .rev()
        .filter(|object| !flag(object, "deleted") && query.matches(object))
        .collect();
    let has_more = found.len() > offset.saturating_add(limit);
    let data: Vec<_> = found.iter().skip(offset).take(limit).collect();
    let next = has_more.then(|| format!("offset_{}", offset + limit));
    let mut answer = json!({"object": "search_result", "data": data, "has_more": has_more, "next_page": next, "url": call.path});
    let wants_count =
        params.get("expand").and_then(Value::as_array).is_some_and(|e| e.contains(&json!("total_count")));
    if wants_count && let Some(answer) = answer.as_object_mut() {
        answer.insert("total_count".to_owned(), json!(found.len()));
    }
    Ok(answer)
}

impl Query {
    fn matches(&self, object: &Object) -> bool {
        let holds = |clause: &Clause| clause.holds(object) != clause.negated;
        if self.any { self.clauses.iter().any(holds) } else { self.clauses.iter().all(holds) }
    }
}

impl Clause {
    fn holds(&self, object: &Object) -> bool {
        let mut steps = self.path.iter();
        let first = steps.next().and_then(|step| object.get(step));
        let field = steps.fold(first, |value, step| value.and_then(|value| value.get(step)));
        let field = field.filter(|value| !value.is_null());
        let (Some(field), Some(wanted)) = (field, self.value.as_deref()) else {
            return field.is_none() && self.value.is_none();
        };
        if self.operator == Operator::Contains {
            let text = field.as_str().unwrap_or_default().to_lowercase();
            return text.contains(&wanted.to_lowercase());
        }
        let order = match (field.as_i64(), wanted.parse::<i64>()) {
            (Some(number), Ok(wanted)) => number.cmp(&wanted),
            _ => {
                let text = field.as_str().map_or_else(|| field.to_string(), str::to_owned);
                let equal = text.eq_ignore_ascii_case(wanted);
                return self.operator == Operator::Equal && equal;
            }
        };
        match self.operator {
            Operator::Equal | Operator::Contains => order.is_eq(),
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterOrEqual => order.is_ge(),
        }
    }
}

fn parse(kind: &str, text: &str) -> Result<Query, Error> {
    let mut rest = text.trim();
    let mut clauses = Vec::new();
    let mut joined: Option<bool> = None;
    loop {
        clauses.push(clause(kind, &mut rest).ok_or_else(|| malformed(text))?);
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(Query { any: joined == Some(true), clauses });
        }
        let word = rest.split(' ').next().unwrap_or_default();
        let any = match word.to_ascii_uppercase().as_str() {
            "AND" => false,
            "OR" => true,
            _ => return Err(malformed(text)),
        };
        if joined.is_some_and(|before| before != any) {
            return Err(Error::invalid("AND and OR cannot be mixed in one query.").param("query"));
        }
        joined = Some(any);
        rest = rest.get(word.len()..).unwrap_or_default().trim_start();
    }
}

fn malformed(text: &str) -> Error {
    Error::invalid(format!("The search query is not understood: {text}")).param("query")
}

fn clause(kind: &str, rest: &mut &str) -> Option<Clause> {
    let negated = rest.starts_with('-');
    *rest = rest.strip_prefix('-').unwrap_or(rest);
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))?;
    let (field, after) = rest.split_at(end);
    *rest = after;
    let path = if field == "metadata" {
        *rest = rest.strip_prefix('[')?;
        let key = quoted(rest)?;
        *rest = rest.strip_prefix(']')?;
        vec!["metadata".to_owned(), key]
    } else {
        let fields = FIELDS.iter().find(|(of, _)| *of == kind).map(|(_, fields)| *fields)?;
        fields.contains(&field).then(|| field.split('.').map(str::to_owned).collect())?
    };
    let operators = [
        (">=", Operator::GreaterOrEqual),
        ("<=", Operator::LessOrEqual),
        (":", Operator::Equal),
        ("~", Operator::Contains),
        (">", Operator::Greater),
        ("<", Operator::Less),
    ];
    let (sign, operator) = operators.into_iter().find(|(sign, _)| rest.starts_with(sign))?;
    *rest = rest.strip_prefix(sign)?;
    if let Some(after) = rest.strip_prefix("null") {
        *rest = after;
        return Some(Clause { negated, path, operator, value: None });
    }
    let value = if rest.starts_with(['"', '\'']) {
        quoted(rest)?
    } else {
        let end = rest.find(' ').unwrap_or(rest.len());
        let (value, after) = rest.split_at(end);
        *rest = after;
        value.parse::<i64>().is_ok().then(|| value.to_owned())?
    };
    Some(Clause { negated, path, operator, value: Some(value) })
}

/// Takes a string in double or single quotes, in which a backslash keeps the next character.
fn quoted(rest: &mut &str) -> Option<String> {
    let mut chars = rest.char_indices();
    let (_, quote) = chars.next().filter(|(_, c)| matches!(c, '"' | '\''))?;
    let mut text = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => text.push(chars.next()?.1),
            c if c == quote => {
                *rest = rest.get(at + 1..)?;
                return Some(text);
            }
            c => text.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::parse;
    use crate::sandbox::object::from;

    #[test]
    fn queries_match_by_field_metadata_and_range() {
        let charge = from(json!({
            "amount": 500, "status": "succeeded", "customer": null, "metadata": {"order id": "it's"},
            "payment_method_details": {"card": {"last4": "4242"}},
        }));
        for (query, wanted) in [
            ("amount>499 AND amount<=500", true),
            ("amount:'500'", true),
            ("status:\"failed\" OR amount>=500", true),
            ("-status:'succeeded'", false),
            (r"metadata['order id']:'it\'s'", true),
            ("metadata['other']:null", true),
            ("customer:null", true),
            ("status~'ceed'", true),
            ("payment_method_details.card.last4:'4242'", true),
            ("payment_method_details.card.last4:4343", false),
        ] {
            assert_eq!(parse("charge", query).unwrap().matches(&charge), wanted, "{query}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for query in [
            "",
            "amount",
            "amount:",
            "nonsense:'x'",
            "amount:1 AND",
            "amount:1 OR amount:2 AND amount:3",
            "status:'x",
        ] {
            assert!(parse("charge", query).is_err(), "{query}");
        }
    }
}
