//! Refunds out of a customer's cash balance: the customer is asked by email where the money should go. It must not touch
//! the account's own balance. Source: <https://docs.stripe.com/payments/customer-balance/refunding>.

use std::time::Duration;

use serde_json::{Value, json};

use crate::sandbox::error::Error;
use crate::sandbox::object::{self, Object, flag, int, merge, text};
use crate::sandbox::routes::Call;
use crate::sandbox::schedule::Change;
use crate::sandbox::state::State;
use crate::sandbox::{amount, cash_balance};

/// How long the customer has to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(45 * 24 * 60 * 60);

/// Creates a refund that waits for the customer's bank details.
pub(super) fn create(call: &mut Call<'_>) -> Result<Value, Error> {
    let params = &call.params;
    for name in ["customer", "currency", "amount"] {
        if params.get(name).is_none_or(Value::is_null) {
            return Err(Error::required(name));
        }
    }
    let customer = call.state.named("customer", text(params, "customer"), "customer")?;
    if flag(customer, "deleted") {
        return Err(Error::missing("customer", text(params, "customer"), "customer"));
    }
    let (currency, asked) = (text(params, "currency").to_lowercase(), int(params, "amount"));
    let has = cash_balance::available(customer, &currency);
    let email = [text(params, "instructions_email"), text(customer, "email")];
    let Some(email) = email.into_iter().find(|email| !email.is_empty()).map(str::to_owned) else {
        let message = "An email address is needed to ask the customer for bank details.";
        return Err(Error::invalid(message).code("parameter_missing").param("instructions_email"));
    };
    if asked > has {
        let shown = |minor| amount::shown(minor, &currency);
        let message = format!(
            "The customer's cash balance ({}) is less than the refund ({}).",
            shown(has),
            shown(asked)
        );
        return Err(Error::state(message).code("balance_insufficient").param("amount"));
    }
    let expires_at = call.state.now() + i64::try_from(ANSWER_WITHIN.as_secs()).unwrap_or_default();
    let id = call.state.new_id("re");
    let mut refund = object::from(json!({
        "id": id, "object": "refund", "amount": asked, "balance_transaction": null, "charge": null,
        "created": call.state.now(), "currency": currency, "customer": text(params, "customer"),
        "customer_account": null, "destination_details": null, "instructions_email": email, "metadata": {},
        "next_action": {
            "display_details": {
                "email_sent": {"email_sent_at": call.state.now(), "email_sent_to": email}, "expires_at": expires_at,
            },
            "type": "display_details",
        },
        "payment_intent": null, "payment_method": null, "reason": object::or_null(params, "reason"),
        "receipt_number": null, "source_transfer_reversal": null, "status": "requires_action",
        "transfer_reversal": null, "_origin": "customer_balance",
    }));
    merge(&mut refund, params, "metadata");
    let customer = text(params, "customer").to_owned();
    cash_balance::add(call.state, &customer, &currency, -asked);
    call.state.insert(refund.clone());
    call.state.emit("refund.created", &refund);
    call.state.schedule(ANSWER_WITHIN, Change::RefundExpires { refund: id });
    Ok(Value::Object(refund))
}

/// Returns the money to the customer's cash balance, if that is where the refund came from.
pub(super) fn put_back(state: &mut State, refund: &Object) {
    if text(refund, "_origin") == "customer_balance" {
        cash_balance::add(state, text(refund, "customer"), text(refund, "currency"), int(refund, "amount"));
    }
}
