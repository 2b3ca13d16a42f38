//! Evidence: its fields and limits, merging a caller's fields into what is there, what the networks still miss. It must
//! not submit anything. Source: <https://docs.stripe.com/api/disputes/evidence_object>.

use serde_json::{Value, json};

use crate::sandbox::error::Error;
use crate::sandbox::object::{self, Object, flag, int, sub, text};
use crate::sandbox::state::State;

/// Fields that hold a file's id.
const FILES: &[&str] = &[
    "cancellation_policy",
    "customer_communication",
    "customer_signature",
    "duplicate_charge_documentation",
    "receipt",
    "refund_policy",
    "service_documentation",
    "shipping_documentation",
    "uncategorized_file",
];

/// Fields that hold text.
const TEXTS: &[&str] = &[
    "access_activity_log",
    "billing_address",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_tracking_number",
    "uncategorized_text",
];

/// Most characters in all text fields together.
const TEXT_CHARS_MAX: usize = 150_000;

/// Most bytes in all files together; a file named in two fields counts twice.
const FILES_BYTES_MAX: i64 = 4_718_592;

/// Earlier transactions that compelling evidence names.
const PRIOR_TRANSACTIONS: usize = 2;

/// The purpose a file must have been uploaded for.
const PURPOSE: &str = "dispute_evidence";

/// The parameter's shape.
pub(super) const SHAPE: &str = "evidence{access_activity_log:20000 billing_address:5000 cancellation_policy \
    cancellation_policy_disclosure:20000 cancellation_rebuttal:20000 customer_communication \
    customer_email_address:5000 customer_name:5000 customer_purchase_ip:5000 customer_signature \
    duplicate_charge_documentation duplicate_charge_explanation:20000 duplicate_charge_id:5000 \
    product_description:20000 receipt refund_policy refund_policy_disclosure:20000 \
    refund_refusal_explanation:20000 service_date:5000 service_documentation shipping_address:5000 \
    shipping_carrier:5000 shipping_date:5000 shipping_documentation shipping_tracking_number:5000 \
    uncategorized_file uncategorized_text:20000 \
    appeal{card{reason_for_filing supporting_files:list}} \
    enhanced_evidence{mastercard_compliance{fee_acknowledged:bool} visa_compliance{fee_acknowledged:bool} \
    visa_compelling_evidence_3{disputed_transaction{customer_account_id customer_device_fingerprint \
    customer_device_id customer_email_address customer_purchase_ip merchandise_or_services:merchandise|services \
    product_description shipping_address{city country line1 line2 postal_code state}} \
    prior_undisputed_transactions[charge! customer_account_id customer_device_fingerprint customer_device_id \
    customer_email_address customer_purchase_ip product_description \
    shipping_address{city country line1 line2 postal_code state}]}}}";

/// Evidence with nothing in it.
pub(super) fn blank() -> Value {
    let mut names: Vec<_> = FILES.iter().chain(TEXTS).collect();
    names.sort();
    let mut evidence: Object = names.into_iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
    evidence.insert("enhanced_evidence".to_owned(), json!({}));
    Value::Object(evidence)
}

/// Whether anything was given so far.
pub(super) fn any(evidence: &Object) -> bool {
    let given = |value: &Value| match value {
        Value::Null => false,
        Value::Object(object) => !object.is_empty(),
        _ => true,
    };
    evidence.values().any(given)
}

/// The evidence after merging the caller's fields into it, or the first reason to refuse all of them.
pub(super) fn merged(state: &State, dispute: &Object, params: &Object) -> Result<Object, Error> {
    let mut holder = dispute.clone();
    let Some(given) = sub(params, "evidence") else {
        return Ok(sub(dispute, "evidence").cloned().unwrap_or_default());
    };
    object::merge(&mut holder, params, "evidence");
    let mut evidence = holder.remove("evidence").map(object::from).unwrap_or_default();
    if evidence.get("enhanced_evidence").is_none_or(Value::is_null) {
        evidence.insert("enhanced_evidence".to_owned(), json!({}));
    }
    check_texts(&evidence)?;
    check_files(state, given, &evidence)?;
    if let Some(enhanced) = sub(given, "enhanced_evidence") {
        check_enhanced(state, dispute, enhanced)?;
    }
    Ok(evidence)
}

fn check_texts(evidence: &Object) -> Result<(), Error> {
    let chars: usize = TEXTS.iter().map(|name| text(evidence, name).chars().count()).sum();
    if chars > TEXT_CHARS_MAX {
        let message = format!(
            "Evidence text fields have {chars} characters together; at most {TEXT_CHARS_MAX} are accepted."
        );
        return Err(Error::state(message).param("evidence"));
    }
    Ok(())
}

fn check_files(state: &State, given: &Object, evidence: &Object) -> Result<(), Error> {
    for name in FILES {
        let id = text(given, name);
        if !id.is_empty() {
            check_file(state, id, &format!("evidence[{name}]"))?;
        }
    }
    let appeal = sub(given, "appeal").and_then(|appeal| sub(appeal, "card"));
    let supporting = appeal.and_then(|card| card.get("supporting_files")).and_then(Value::as_array);
    for id in supporting.into_iter().flatten().filter_map(Value::as_str) {
        check_file(state, id, "evidence[appeal][card][supporting_files]")?;
    }
    let size = |name: &&str| state.get("file", text(evidence, name)).map_or(0, |file| int(file, "size"));
    let bytes: i64 = FILES.iter().map(size).sum();
    if bytes > FILES_BYTES_MAX {
        let message = "The combined size of all evidence files must not exceed 5 MB.";
        return Err(Error::state(message).param("evidence"));
    }
    Ok(())
}

fn check_file(state: &State, id: &str, param: &str) -> Result<(), Error> {
    let file = state.named("file", id, param)?;
    if text(file, "purpose") != PURPOSE {
        let message = format!("File {id} has the purpose {}; it must be {PURPOSE}.", text(file, "purpose"));
        return Err(Error::state(message).param(param));
    }
    Ok(())
}

/// Enhanced evidence is taken only where the network offers it for this dispute.
fn check_enhanced(state: &State, dispute: &Object, enhanced: &Object) -> Result<(), Error> {
    let offered = dispute.get("enhanced_eligibility_types").and_then(Value::as_array);
    for kind in enhanced.keys() {
        if !offered.is_some_and(|offered| offered.iter().any(|one| one.as_str() == Some(kind))) {
            let message = format!("This dispute is not eligible for {kind}.");
            return Err(Error::state(message).param(&format!("evidence[enhanced_evidence][{kind}]")));
        }
    }
    let at = "evidence[enhanced_evidence][visa_compelling_evidence_3][prior_undisputed_transactions]";
    let prior = sub(enhanced, "visa_compelling_evidence_3")
        .and_then(|compelling| compelling.get("prior_undisputed_transactions"))
        .and_then(Value::as_array);
    let Some(prior) = prior else { return Ok(()) };
    if prior.len() != PRIOR_TRANSACTIONS {
        let message = format!("Exactly {PRIOR_TRANSACTIONS} prior undisputed transactions must be given.");
        return Err(Error::state(message).param(at));
    }
    for transaction in prior.iter().filter_map(Value::as_object) {
        let charge = state.named("charge", text(transaction, "charge"), at)?;
        if flag(charge, "disputed") {
            return Err(Error::state(format!("Charge {} was disputed.", text(charge, "id"))).param(at));
        }
    }
    Ok(())
}

/// Brings the dispute's evidence details in line with its evidence.
pub(super) fn assess(dispute: &mut Object) {
    let evidence = sub(dispute, "evidence").cloned().unwrap_or_default();
    let enhanced = sub(&evidence, "enhanced_evidence").cloned().unwrap_or_default();
    super::details(dispute, |details| {
        details.insert("has_evidence".to_owned(), json!(any(&evidence)));
        let Some(eligibility) = details.get_mut("enhanced_eligibility").and_then(Value::as_object_mut) else {
            return;
        };
        for (kind, status) in eligibility.iter_mut() {
            let given = sub(&enhanced, kind).cloned().unwrap_or_default();
            *status = match kind.as_str() {
                "visa_compelling_evidence_3" => {
                    let missing = missing(&given);
                    let status = if missing.is_empty() { "qualified" } else { "requires_action" };
                    json!({"required_actions": missing, "status": status})
                }
                _ if flag(&given, "fee_acknowledged") => json!({"status": "fee_acknowledged"}),
                _ => json!({"status": "requires_fee_acknowledgement"}),
            };
        }
    });
}

/// What compelling evidence still lacks, in Stripe's words.
pub(super) fn missing(given: &Object) -> Vec<&'static str> {
    let none = Object::new();
    let disputed = sub(given, "disputed_transaction").unwrap_or(&none);
    let prior: Vec<_> = given
        .get("prior_undisputed_transactions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .collect();
    let identified = ["customer_purchase_ip", "customer_device_id", "customer_device_fingerprint"]
        .iter()
        .any(|name| !text(disputed, name).is_empty());
    let described = |transaction: &Object| !text(transaction, "product_description").is_empty();
    let lacks = [
        (!identified, "missing_customer_identifiers"),
        (!described(disputed), "missing_disputed_transaction_description"),
        (text(disputed, "merchandise_or_services").is_empty(), "missing_merchandise_or_services"),
        (!prior.iter().all(|one| described(one)), "missing_prior_undisputed_transaction_description"),
        (prior.len() != PRIOR_TRANSACTIONS, "missing_prior_undisputed_transactions"),
    ];
    lacks.into_iter().filter(|(lacks, _)| *lacks).map(|(_, what)| what).collect()
}
