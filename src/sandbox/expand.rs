//! `expand[]`: which fields can be expanded, and putting the objects in place of their ids. It must not change state.
//! Source: <https://docs.stripe.com/expand>.

use serde_json::{Value, json};

use super::error::Error;
use super::object::{Object, text};
use super::state::State;

/// Deepest expansion, as `a.b.c.d`.
const DEPTH_MAX: usize = 4;

/// Most items in a list that appears by expansion.
const INCLUDED_MAX: usize = 10;

/// Stands for an object of any kind.
const ANY: &str = "*";

/// Expandable fields: the kind that has them, the field, the kind of what they hold. A kind with a dot is a hash inside
/// another object, which is walked through and not looked up.
const FIELDS: &[(&str, &str, &str)] = &[
    ("balance_transaction", "source", ANY),
    ("charge", "balance_transaction", "balance_transaction"),
    ("charge", "customer", "customer"),
    ("charge", "failure_balance_transaction", "balance_transaction"),
    ("charge", "payment_intent", "payment_intent"),
    ("charge", "refunds", "refund"),
    ("charge", "review", "review"),
    ("customer", "cash_balance", "cash_balance"),
    ("customer", "default_source", ANY),
    ("customer", "invoice_credit_balance", "customer.invoice_credit_balance"),
    ("customer", "invoice_settings", "customer.invoice_settings"),
    ("customer", "sources", ANY),
    ("customer", "subscriptions", ANY),
    ("customer", "tax", "customer.tax"),
    ("customer", "tax_ids", "tax_id"),
    ("customer", "test_clock", ANY),
    ("customer.invoice_settings", "default_payment_method", "payment_method"),
    ("customer_balance_transaction", "credit_note", ANY),
    ("customer_balance_transaction", "customer", "customer"),
    ("customer_balance_transaction", "invoice", ANY),
    ("dispute", "charge", "charge"),
    ("dispute", "evidence", "dispute.evidence"),
    ("dispute", "payment_intent", "payment_intent"),
    ("dispute.evidence", "cancellation_policy", "file"),
    ("dispute.evidence", "customer_communication", "file"),
    ("dispute.evidence", "customer_signature", "file"),
    ("dispute.evidence", "duplicate_charge_documentation", "file"),
    ("dispute.evidence", "receipt", "file"),
    ("dispute.evidence", "refund_policy", "file"),
    ("dispute.evidence", "service_documentation", "file"),
    ("dispute.evidence", "shipping_documentation", "file"),
    ("dispute.evidence", "uncategorized_file", "file"),
    ("payment_intent", "customer", "customer"),
    ("payment_intent", "latest_charge", "charge"),
    ("payment_intent", "payment_method", "payment_method"),
    ("payment_intent", "review", "review"),
    ("payment_method", "customer", "customer"),
    ("payout", "balance_transaction", "balance_transaction"),
    ("payout", "failure_balance_transaction", "balance_transaction"),
    ("radar.early_fraud_warning", "charge", "charge"),
    ("radar.early_fraud_warning", "payment_intent", "payment_intent"),
    ("refund", "balance_transaction", "balance_transaction"),
    ("refund", "charge", "charge"),
    ("refund", "customer", "customer"),
    ("refund", "failure_balance_transaction", "balance_transaction"),
    ("refund", "payment_intent", "payment_intent"),
    ("refund", "payment_method", "payment_method"),
    ("tax_id", "customer", "customer"),
];

/// Refuses expansions that the endpoint's object does not have. Runs before the endpoint, so that a refused call has no
/// effect. `many` says that the answer is a list, whose expansions begin with `data.`.
pub(super) fn check(kind: &str, many: bool, params: &Object) -> Result<(), Error> {
    for path in paths(params) {
        let steps: Vec<_> = path.split('.').collect();
        let inner = match (many, steps.as_slice()) {
            (true, ["total_count"]) => continue,
            (true, ["data", inner @ ..]) if !inner.is_empty() => inner,
            (true, _) => {
                return Err(refused(path, &format!(" You may want to expand 'data.{path}' instead.")));
            }
            (false, steps) => steps,
        };
        if inner.len() > DEPTH_MAX {
            return Err(refused(path, " Expansions go at most four levels deep."));
        }
        let mut kind = kind;
        for step in inner {
            kind = match target(kind, step) {
                Some(target) => target,
                None => return Err(refused(path, "")),
            };
        }
    }
    Ok(())
}

fn refused(path: &str, hint: &str) -> Error {
    Error::invalid(format!("This property cannot be expanded ({path}).{hint}")).param("expand")
}

fn target(kind: &str, field: &str) -> Option<&'static str> {
    if kind == ANY {
        return Some(ANY);
    }
    FIELDS.iter().find(|(of, name, _)| *of == kind && *name == field).map(|(_, _, target)| *target)
}

fn paths(params: &Object) -> impl Iterator<Item = &str> {
    params.get("expand").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Puts objects in place of ids along every asked-for path.
pub(super) fn apply(state: &State, answer: &mut Value, params: &Object) {
    for path in paths(params) {
        let steps: Vec<_> = path.split('.').collect();
        walk(state, answer, &steps);
    }
}

fn walk(state: &State, value: &mut Value, steps: &[&str]) {
    let Some((step, rest)) = steps.split_first() else { return };
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| walk(state, item, steps)),
        Value::Object(object) if text(object, "object") == "list" && *step != "data" => {
            if let Some(data) = object.get_mut("data") {
                walk(state, data, steps);
            }
        }
        Value::Object(object) => {
            if !object.contains_key(*step)
                && let Some(list) = included(state, object, step)
            {
                object.insert((*step).to_owned(), list);
            }
            let Some(field) = object.get_mut(*step) else { return };
            if let Value::String(id) = field
                && let Some(found) = state.any(id)
            {
                *field = Value::Object(found.clone());
            }
            walk(state, field, rest);
        }
        _ => {}
    }
}

/// What is only there when asked for.
fn included(state: &State, owner: &Object, field: &str) -> Option<Value> {
    let id = text(owner, "id");
    let list = |kind: &str, by: &str, url: String| {
        let mut items = state.all(kind).rev().filter(|item| text(item, by) == id);
        let data: Vec<_> = items.by_ref().take(INCLUDED_MAX).collect();
        json!({"object": "list", "data": data, "has_more": items.next().is_some(), "url": url})
    };
    match (text(owner, "object"), field) {
        ("charge", "refunds") => Some(list("refund", "charge", format!("/v1/charges/{id}/refunds"))),
        ("customer", "tax_ids") => Some(list("tax_id", "customer", format!("/v1/customers/{id}/tax_ids"))),
        ("customer", "sources" | "subscriptions") => {
            Some(list("none", "customer", format!("/v1/customers/{id}/{field}")))
        }
        ("customer", "cash_balance") => Some(super::customer_items::cash_balance(owner)),
        ("customer", "invoice_credit_balance") => Some(json!({})),
        ("customer", "tax") => {
            Some(json!({"automatic_tax": "unrecognized_location", "ip_address": null, "location": null}))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::check;
    use crate::sandbox::object::{from, text};

    #[test]
    fn only_expandable_fields_within_four_levels_pass() {
        let ok = |kind: &str, many: bool, path: &str| check(kind, many, &from(json!({"expand": [path]})));
        assert!(ok("refund", false, "charge.payment_intent.latest_charge.customer").is_ok());
        assert!(ok("refund", true, "data.charge").is_ok());
        assert!(ok("dispute", false, "evidence.receipt").is_ok());
        for (many, path) in [(false, "amount"), (true, "charge"), (false, "charge.charge"), (true, "data")] {
            let error = ok("refund", many, path).unwrap_err();
            assert_eq!(text(&error.body, "param"), "expand", "{path}");
        }
        assert!(ok("refund", false, "charge.payment_intent.latest_charge.customer.tax_ids").is_err());
    }
}
