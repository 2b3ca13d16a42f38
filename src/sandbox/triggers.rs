//! Flows that end in an event of a wanted type, each a short script of API calls. It must not touch objects itself.

use serde_json::Value;

use super::error::Error;
use super::form;
use super::object::{Object, text};
use super::payouts::DESTINATION_CLOSED;
use super::routes::{self, Call};
use super::shape;
use super::state::State;

type Flow = fn(&mut State) -> Result<Object, Error>;

/// Every event type that can be asked for, with the flow that leads to it.
const FLOWS: &[(&str, Flow)] = &[
    ("charge.captured", |state| {
        let intent = pay(state, "pm_card_visa", "&capture_method=manual")?;
        ask(state, &format!("/v1/payment_intents/{}/capture", text(&intent, "id")), "")
    }),
    ("charge.dispute.closed", |state| {
        let dispute = dispute(state)?;
        ask(state, &format!("/v1/disputes/{}/close", text(&dispute, "id")), "")
    }),
    ("charge.dispute.created", dispute),
    ("charge.dispute.funds_reinstated", |state| {
        let dispute = dispute(state)?;
        answer(state, &dispute, "winning_evidence")
    }),
    ("charge.dispute.funds_withdrawn", dispute),
    ("charge.dispute.updated", |state| {
        let dispute = dispute(state)?;
        answer(state, &dispute, "It was delivered.")
    }),
    ("charge.failed", |state| pay(state, "pm_card_visa_chargeDeclined", "")),
    ("charge.refund.updated", updated_refund),
    ("charge.refunded", |state| refund(state, "pm_card_visa")),
    ("charge.succeeded", |state| pay(state, "pm_card_visa", "")),
    ("charge.updated", |state| {
        let intent = pay(state, "pm_card_visa", "")?;
        ask(state, &format!("/v1/charges/{}", text(&intent, "latest_charge")), "description=triggered")
    }),
    ("customer.created", customer),
    ("customer.deleted", |state| {
        let customer = customer(state)?;
        call(state, "DELETE", &format!("/v1/customers/{}", text(&customer, "id")), "")
    }),
    ("customer.tax_id.created", |state| {
        let customer = customer(state)?;
        let path = format!("/v1/customers/{}/tax_ids", text(&customer, "id"));
        ask(state, &path, "type=eu_vat&value=DE123456789")
    }),
    ("customer.updated", |state| {
        let customer = customer(state)?;
        ask(state, &format!("/v1/customers/{}", text(&customer, "id")), "description=triggered")
    }),
    ("customer_cash_balance_transaction.created", |state| {
        let customer = customer(state)?;
        let path = format!("/v1/test_helpers/customers/{}/fund_cash_balance", text(&customer, "id"));
        ask(state, &path, AMOUNT)
    }),
    ("payment_intent.amount_capturable_updated", |state| {
        pay(state, "pm_card_visa", "&capture_method=manual")
    }),
    ("payment_intent.canceled", |state| {
        let intent = ask(state, "/v1/payment_intents", AMOUNT)?;
        ask(state, &format!("/v1/payment_intents/{}/cancel", text(&intent, "id")), "")
    }),
    ("payment_intent.created", |state| ask(state, "/v1/payment_intents", AMOUNT)),
    ("payment_intent.payment_failed", |state| pay(state, "pm_card_visa_chargeDeclined", "")),
    ("payment_intent.requires_action", |state| pay(state, "pm_card_authenticationRequired", "")),
    ("payment_intent.succeeded", |state| pay(state, "pm_card_visa", "")),
    ("payment_method.attached", attached),
    ("payment_method.detached", |state| {
        let method = attached(state)?;
        ask(state, &format!("/v1/payment_methods/{}/detach", text(&method, "id")), "")
    }),
    ("payout.canceled", |state| {
        let payout = payout(state, "")?;
        ask(state, &format!("/v1/payouts/{}/cancel", text(&payout, "id")), "")
    }),
    ("payout.created", |state| payout(state, "")),
    ("payout.failed", |state| payout(state, &format!("&destination={DESTINATION_CLOSED}"))),
    ("payout.paid", |state| payout(state, "")),
    ("payout.updated", |state| payout(state, "")),
    ("radar.early_fraud_warning.created", |state| pay(state, "pm_card_createIssuerFraudRecord", "")),
    ("radar.early_fraud_warning.updated", |state| refund(state, "pm_card_createIssuerFraudRecord")),
    ("refund.created", |state| refund(state, "pm_card_visa")),
    ("refund.failed", |state| refund(state, "pm_card_refundFail")),
    ("refund.updated", updated_refund),
];

const AMOUNT: &str = "amount=2000&currency=usd";

/// Runs the flow for an event type and answers the object it ended with.
pub(super) fn run(state: &mut State, event_type: &str) -> Result<Value, String> {
    let Some((_, flow)) = FLOWS.iter().find(|(name, _)| *name == event_type) else {
        let known: Vec<_> = FLOWS.iter().map(|(name, _)| *name).collect();
        return Err(format!("no flow leads to `{event_type}`; there are flows for {}", known.join(", ")));
    };
    match flow(state) {
        Ok(object) => Ok(super::object::shown(&object)),
        // A declined payment is what some flows are for; its error tells of the PaymentIntent.
        Err(error) if error.status == 402 => {
            Ok(error.body.get("payment_intent").cloned().unwrap_or_default())
        }
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn ask(state: &mut State, path: &str, form: &str) -> Result<Object, Error> {
    call(state, "POST", path, form)
}

fn call(state: &mut State, method: &str, path: &str, form: &str) -> Result<Object, Error> {
    let (route, captures) = routes::find(method, path)?;
    let params = shape::check(&route.shape(), &form::tree(&form::pairs(form)?)?)?;
    (route.handler)(&mut Call { state, params, path, captures, upload: None }).map(super::object::from)
}

fn pay(state: &mut State, card: &str, more: &str) -> Result<Object, Error> {
    let form = format!("{AMOUNT}&confirm=true&payment_method={card}{more}");
    ask(state, "/v1/payment_intents", &form)
}

fn refund(state: &mut State, card: &str) -> Result<Object, Error> {
    let intent = pay(state, card, "")?;
    ask(state, "/v1/refunds", &format!("payment_intent={}", text(&intent, "id")))
}

fn updated_refund(state: &mut State) -> Result<Object, Error> {
    let refund = refund(state, "pm_card_visa")?;
    ask(state, &format!("/v1/refunds/{}", text(&refund, "id")), "metadata[triggered]=true")
}

fn answer(state: &mut State, dispute: &Object, evidence: &str) -> Result<Object, Error> {
    let form = format!("evidence[uncategorized_text]={}", evidence.replace(' ', "+"));
    ask(state, &format!("/v1/disputes/{}", text(dispute, "id")), &form)
}

fn dispute(state: &mut State) -> Result<Object, Error> {
    let intent = pay(state, "pm_card_createDispute", "")?;
    let charge = text(&intent, "latest_charge");
    let dispute = state.all("dispute").rev().find(|dispute| text(dispute, "charge") == charge);
    dispute.cloned().ok_or_else(|| Error::state("the payment opened no dispute"))
}

fn customer(state: &mut State) -> Result<Object, Error> {
    ask(state, "/v1/customers", "name=Jenny+Rosen&email=jenny.rosen%40example.com")
}

fn attached(state: &mut State) -> Result<Object, Error> {
    let customer = customer(state)?;
    let form = format!("customer={}", text(&customer, "id"));
    ask(state, "/v1/payment_methods/pm_card_visa/attach", &form)
}

fn payout(state: &mut State, more: &str) -> Result<Object, Error> {
    ask(state, "/v1/payouts", &format!("amount=1000&currency=usd{more}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::FLOWS;
    use crate::sandbox::tests::Stage;

    #[tokio::test]
    async fn every_flow_ends_in_its_event() {
        let stage = Stage::new().await;
        let control = stage.handle.control();
        assert!(FLOWS.is_sorted_by_key(|(kind, _)| *kind));
        for (kind, _) in FLOWS {
            let before = stage.get(&format!("/v1/events?type={kind}&limit=100")).await;
            control.trigger(kind).unwrap();
            control.advance(Duration::from_secs(10));
            let after = stage.get(&format!("/v1/events?type={kind}&limit=100")).await;
            let count = |list: &crate::sandbox::tests::Got| list.body["data"].as_array().unwrap().len();
            assert!(count(&after) > count(&before), "{kind}");
        }
        assert!(control.trigger("nothing.happened").unwrap_err().contains("charge.refunded"));
    }
}
