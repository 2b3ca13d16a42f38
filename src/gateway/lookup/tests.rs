//! What is read for every change of the contract, and what the answers prove.

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::contract::{Effect, METHODS};
use crate::domain::limits::METADATA_STAMP;
use crate::domain::planted;
use crate::stripe::{AccountHeader, Trouble};

const STAMP: &str = "5ca1ab1e";
const SENT_S: i64 = 1_800_000_000;

/// One change: what was sent, an object that proves it, and one that does not.
struct Row {
    name: &'static str,
    path: &'static str,
    body: &'static str,
    read: &'static str,
    effect: Value,
    other: Value,
}

fn row(
    name: &'static str,
    path: &'static str,
    body: &'static str,
    read: &'static str,
    effect: Value,
    other: Value,
) -> Row {
    Row { name, path, body, read, effect, other }
}

/// Every change of the contract that is looked up by reading.
#[expect(clippy::too_many_lines, reason = "a table")]
fn rows() -> Vec<Row> {
    let stamped = |mut object: Value| {
        object["created"] = json!(SENT_S + 1);
        object["metadata"] = json!({ METADATA_STAMP: STAMP });
        object
    };
    let created = |mut object: Value| {
        object["created"] = json!(SENT_S + 1);
        object
    };
    let refund = json!({"id": "re_1", "object": "refund", "amount": 500, "payment_intent": "pi_1"});
    let credit =
        json!({"id": "cbtxn_1", "object": "customer_balance_transaction", "amount": -5, "currency": "eur"});
    let tax_id = json!({"id": "txi_1", "object": "tax_id", "type": "eu_vat", "value": "DE1"});
    let customer = json!({"id": "cus_1", "object": "customer", "name": "Ada"});
    let dispute = json!({"id": "du_1", "object": "dispute", "status": "needs_response",
        "evidence": {"customer_name": "Ada"}, "metadata": {"a": "1"}, "intended_submission_method": "manual",
        "evidence_details": {"submission_method": "not_submitted"}});
    let with = |object: &Value, name: &str, value: Value| {
        let mut object = object.clone();
        object[name] = value;
        object
    };
    let submitted = with(&dispute, "evidence_details", json!({"submission_method": "manual"}));
    let method =
        json!({"id": "pm_1", "object": "payment_method", "customer": "cus_1", "allow_redisplay": "always"});
    let discount = json!({"id": "di_1", "object": "discount"});
    vec![
        row(
            "refunds.create",
            "/v1/refunds",
            "payment_intent=pi_1&amount=500",
            "/v1/refunds?payment_intent=pi_1&limit=100",
            stamped(refund.clone()),
            created(refund.clone()),
        ),
        row(
            "customers.create",
            "/v1/customers",
            "email=ada%40example.com&name=Ada",
            "/v1/customers?created[gte]=1799996400&limit=100",
            stamped(customer.clone()),
            created(customer.clone()),
        ),
        row(
            "customers.balance_transactions.create",
            "/v1/customers/cus_1/balance_transactions",
            "amount=-5&currency=eur",
            "/v1/customers/cus_1/balance_transactions?limit=100",
            stamped(credit.clone()),
            created(credit.clone()),
        ),
        row(
            "customers.tax_ids.create",
            "/v1/customers/cus_1/tax_ids",
            "type=eu_vat&value=DE1",
            "/v1/customers/cus_1/tax_ids?limit=100",
            created(tax_id.clone()),
            created(with(&tax_id, "value", json!("DE2"))),
        ),
        row(
            "customers.update",
            "/v1/customers/cus_1",
            "name=Ada&expand[0]=tax",
            "/v1/customers/cus_1",
            customer.clone(),
            with(&customer, "name", json!("Bea")),
        ),
        row(
            "customers.delete",
            "/v1/customers/cus_1",
            "",
            "/v1/customers/cus_1",
            json!({"id": "cus_1", "object": "customer", "deleted": true}),
            customer.clone(),
        ),
        row(
            "customers.tax_ids.delete",
            "/v1/customers/cus_1/tax_ids/txi_1",
            "",
            "/v1/customers/cus_1/tax_ids/txi_1",
            json!({"id": "txi_1", "object": "tax_id", "deleted": true}),
            tax_id,
        ),
        row(
            "customers.balance_transactions.update",
            "/v1/customers/cus_1/balance_transactions/cbtxn_1",
            "description=d",
            "/v1/customers/cus_1/balance_transactions/cbtxn_1",
            with(&credit, "description", json!("d")),
            credit,
        ),
        row(
            "customers.cash_balance.update",
            "/v1/customers/cus_1/cash_balance",
            "settings[reconciliation_mode]=manual",
            "/v1/customers/cus_1/cash_balance",
            json!({"object": "cash_balance", "settings": {"reconciliation_mode": "manual"}}),
            json!({"object": "cash_balance", "settings": {"reconciliation_mode": "automatic"}}),
        ),
        row(
            "customers.discount.delete",
            "/v1/customers/cus_1/discount",
            "",
            "/v1/customers/cus_1",
            customer.clone(),
            with(&customer, "discount", discount),
        ),
        row(
            "disputes.stage_evidence",
            "/v1/disputes/du_1",
            "evidence[customer_name]=Ada&submit=false",
            "/v1/disputes/du_1",
            dispute.clone(),
            with(&dispute, "evidence", json!({})),
        ),
        row(
            "disputes.submit_evidence",
            "/v1/disputes/du_1",
            "evidence[customer_name]=Ada&submit=true",
            "/v1/disputes/du_1",
            submitted,
            dispute.clone(),
        ),
        row(
            "disputes.update",
            "/v1/disputes/du_1",
            "metadata[a]=1&submit=false",
            "/v1/disputes/du_1",
            dispute.clone(),
            with(&dispute, "metadata", json!({"a": "2"})),
        ),
        row(
            "disputes.close",
            "/v1/disputes/du_1/close",
            "",
            "/v1/disputes/du_1",
            with(&dispute, "status", json!("lost")),
            dispute,
        ),
        row(
            "refunds.update",
            "/v1/refunds/re_1",
            "metadata[a]=1",
            "/v1/refunds/re_1",
            with(&refund, "metadata", json!({"a": "1"})),
            refund.clone(),
        ),
        row(
            "refunds.cancel",
            "/v1/refunds/re_1/cancel",
            "",
            "/v1/refunds/re_1",
            with(&refund, "status", json!("canceled")),
            with(&refund, "status", json!("succeeded")),
        ),
        row(
            "payment_intents.cancel",
            "/v1/payment_intents/pi_1/cancel",
            "cancellation_reason=duplicate",
            "/v1/payment_intents/pi_1",
            json!({"id": "pi_1", "object": "payment_intent", "status": "canceled"}),
            json!({"id": "pi_1", "object": "payment_intent", "status": "requires_capture"}),
        ),
        row(
            "payment_methods.update",
            "/v1/payment_methods/pm_1",
            "allow_redisplay=always",
            "/v1/payment_methods/pm_1",
            method.clone(),
            with(&method, "allow_redisplay", json!("limited")),
        ),
        row(
            "payment_methods.attach",
            "/v1/payment_methods/pm_1/attach",
            "customer=cus_1",
            "/v1/payment_methods/pm_1",
            method.clone(),
            with(&method, "customer", Value::Null),
        ),
        row(
            "payment_methods.detach",
            "/v1/payment_methods/pm_1/detach",
            "",
            "/v1/payment_methods/pm_1",
            with(&method, "customer", Value::Null),
            method,
        ),
    ]
}

fn spec(name: &str) -> &'static Spec {
    METHODS.iter().copied().find(|spec| spec.ledger_name == name).unwrap()
}

fn sent(name: &str, path: &str, body: &str) -> Outgoing {
    let spec = spec(name);
    let body = if spec.verb == Verb::Post { Body::Form(body.to_owned()) } else { Body::Empty };
    Outgoing {
        verb: spec.verb,
        host: spec.host,
        template: spec.path.to_owned(),
        path: path.to_owned(),
        query: String::new(),
        body,
        idempotency_key: None,
        version: STRIPE_VERSION.to_owned(),
        account: AccountHeader::StripeAccount("acct_1".to_owned()),
    }
}

fn answer(status: u16, json: &Value) -> Attempt {
    let body = Bytes::from(json.to_string());
    Attempt::Answered(Answer { status, body, request_id: Some("req_1".to_owned()), ..Answer::default() })
}

fn list(items: &[Value], has_more: bool) -> Attempt {
    answer(200, &json!({"object": "list", "data": items, "has_more": has_more}))
}

fn ask<'a>(name: &str, outgoing: &'a Outgoing) -> Question<'a> {
    Question::of(spec(name), outgoing, STAMP.to_owned(), SENT_S * 1000 + 999).unwrap()
}

fn found(name: &str, path: &str, body: &str, attempt: &Attempt) -> Finding {
    let outgoing = sent(name, path, body);
    match ask(name, &outgoing).take(Some(attempt)) {
        Step::Done(finding) => finding,
        Step::Read(next) => panic!("{name} reads on: {next:?}"),
    }
}

fn refunds(items: &[Value]) -> Finding {
    found("refunds.create", "/v1/refunds", "payment_intent=pi_1&amount=500", &list(items, false))
}

fn refund(id: &str, more: Value) -> Value {
    let mut refund = json!({"id": id, "object": "refund", "amount": 500, "payment_intent": "pi_1", "created": SENT_S,
        "metadata": {METADATA_STAMP: STAMP}});
    for (name, value) in more.as_object().unwrap() {
        refund[name] = value.clone();
    }
    refund
}

#[test]
fn every_change_is_looked_up_by_the_strategy_that_its_rpc_names() {
    for Row { name, path, body, read, effect, other } in rows() {
        let outgoing = sent(name, path, body);
        let first = ask(name, &outgoing).first();
        let query = if first.query.is_empty() { String::new() } else { format!("?{}", first.query) };
        assert_eq!(format!("{}{query}", first.path), read, "{name}");
        assert_eq!((first.verb, &first.account), (Verb::Get, &outgoing.account), "{name}");

        let listed = matches!(spec(name).lookup.as_ref().unwrap().by, LookupBy::List(_));
        let shown = |object: &Value| {
            if listed { list(std::slice::from_ref(object), false) } else { answer(200, object) }
        };
        let Finding::Effected(success) = found(name, path, body, &shown(&effect)) else {
            panic!("{name}: the effect was not found")
        };
        let json: Value = serde_json::from_str(&success.json.unwrap()).unwrap();
        assert_eq!(json["object"], spec(name).object, "{name}");
        assert_eq!(success.request_id.as_deref(), Some("req_1"));
        let not_shown = found(name, path, body, &shown(&other));
        // Values that are not there any more may have been there.
        let overwritable = !listed && spec(name).lookup.as_ref().unwrap().reached.is_empty();
        let undecided = matches!(not_shown, Finding::Undecided { .. });
        let absent = matches!(not_shown, Finding::Absent { .. });
        assert_eq!((undecided, absent), (overwritable, !overwritable), "{name}: {not_shown:?}");
    }
}

#[test]
fn no_change_is_left_out() {
    let known: Vec<&str> = rows().iter().map(|row| row.name).collect();
    for spec in METHODS.iter().filter(|spec| spec.mutates() && spec.effect != Effect::Repeatable) {
        assert!(known.contains(&spec.ledger_name), "{}", spec.ledger_name);
        let lookup = spec.lookup.as_ref().unwrap();
        if spec.effect == Effect::Money && matches!(lookup.by, LookupBy::List(_)) {
            assert!(spec.stamped, "{}: money is recognised by its stamp", spec.ledger_name);
        }
    }
}

#[test]
fn an_upload_can_be_read_by_its_id() {
    let mut outgoing = sent("files.upload", "/v1/files", "");
    outgoing.body = Body::Multipart { boundary: "x".to_owned(), bytes: Bytes::new() };
    let read = ask("files.upload", &outgoing).named("file_1");
    assert_eq!((read.host, read.path.as_str()), (Host::Api, "/v1/files/file_1"));
}

#[test]
fn a_refund_needs_the_stamp_and_then_the_target_and_the_amount() {
    assert!(matches!(refunds(&[refund("re_1", json!({}))]), Finding::Effected(_)));
    // Another's, or nobody's: shown to the operator, and no effect of this operation.
    for other in
        [json!({"metadata": {METADATA_STAMP: "other"}}), json!({"metadata": {}}), json!({"metadata": null})]
    {
        let Finding::Absent { found } = refunds(&[refund("re_2", other)]) else {
            panic!("it was taken for the effect")
        };
        assert_eq!(found[0].object_id, "re_2");
    }
    for (name, value) in [("amount", json!(501)), ("payment_intent", json!("pi_2"))] {
        let Finding::Undecided { why, found } = refunds(&[refund("re_1", json!({ name: value }))]) else {
            panic!("another `{name}` was let pass")
        };
        assert!(why.contains(name) && found.len() == 1, "{why}");
    }
    let early = refund("re_1", json!({"created": SENT_S - LOOKUP_CLOCK_S_MAX - 1}));
    assert!(matches!(refunds(&[early]), Finding::Effected(_)), "the stamp tells whatever the clock showed");
    let slow_clock = refund("re_1", json!({"created": SENT_S - 60}));
    assert!(matches!(refunds(&[slow_clock]), Finding::Effected(_)));
}

#[test]
fn a_look_that_ignores_the_stamp_is_caught() {
    let _held = planted::plant("stamp-ignored");
    let taken = refunds(&[refund("re_2", json!({"metadata": {}}))]);
    assert!(matches!(taken, Finding::Effected(_)), "somebody else's refund would have been taken for ours");
}

#[test]
fn two_objects_with_one_stamp_are_for_an_operator() {
    let both = refunds(&[refund("re_2", json!({})), refund("re_1", json!({}))]);
    assert!(matches!(both, Finding::Undecided { ref found, .. } if found.len() == 2), "{both:?}");
}

#[test]
fn an_operator_sees_facts_and_nobodys_personal_data() {
    let more = json!({"charge": {"id": "ch_1", "billing_details": {"name": "Ada"}}, "email": "ada@example.com",
        "metadata": {"note": "Ada", METADATA_STAMP: "other"}, "status": "failed"});
    let Finding::Absent { found } = refunds(&[refund("re_1", more)]) else {
        panic!("it was taken for the effect")
    };
    let summary: Value = serde_json::from_str(&found[0].summary).unwrap();
    let expected = json!({"object": "refund", "amount": 500, "status": "failed", "created": SENT_S,
        "payment_intent": "pi_1", "charge": "ch_1", "stamp": "other"});
    assert_eq!(summary, expected);
}

#[test]
fn pages_are_read_until_the_effect_or_the_end_or_the_limit() {
    let outgoing = sent("refunds.create", "/v1/refunds", "charge=ch_1");
    let other = |id: &str, created: i64| refund(id, json!({"created": created, "metadata": {}}));
    let mut question = ask("refunds.create", &outgoing);
    let Step::Read(next) = question.take(Some(&list(&[other("re_3", SENT_S + 3)], true))) else {
        panic!("it stopped")
    };
    assert_eq!(next.query, "charge=ch_1&limit=100&starting_after=re_3");
    let old = other("re_0", SENT_S - LOOKUP_CLOCK_S_MAX - 1);
    let Step::Done(Finding::Absent { found: seen }) =
        question.take(Some(&list(&[other("re_2", SENT_S), old], false)))
    else {
        panic!("it read on past the end")
    };
    assert_eq!(seen.iter().map(|found| found.object_id.as_str()).collect::<Vec<_>>(), ["re_3", "re_2"]);

    // Customers are listed without a target, so the list ends with the intent.
    let earlier = json!({"id": "cus_0", "created": SENT_S - LOOKUP_CLOCK_S_MAX - 1});
    let past = found("customers.create", "/v1/customers", "name=Ada", &list(&[earlier], true));
    assert!(matches!(past, Finding::Absent { .. }), "{past:?}");
    let mut question = ask("refunds.create", &outgoing);
    let page = list(&[other("re_9", SENT_S)], true);
    for _ in 1..LOOKUP_PAGES_MAX {
        assert!(matches!(question.take(Some(&page)), Step::Read(_)));
    }
    let last = question.take(Some(&page));
    assert!(matches!(last, Step::Done(Finding::Undecided { .. })), "{last:?}");
}

#[test]
fn what_was_deleted_is_gone_even_where_stripe_no_longer_shows_it() {
    let gone =
        json!({"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such"}});
    let path = "/v1/customers/cus_1/tax_ids/txi_1";
    let Finding::Effected(success) = found("customers.tax_ids.delete", path, "", &answer(404, &gone)) else {
        panic!("it counts as there")
    };
    assert_eq!(success.json.unwrap(), r#"{"id":"txi_1","object":"tax_id","deleted":true}"#);
    let update = found("refunds.update", "/v1/refunds/re_1", "metadata[a]=1", &answer(404, &gone));
    assert!(matches!(update, Finding::Undecided { .. }), "{update:?}");
    let deleted = json!({"id": "cus_1", "object": "customer", "deleted": true});
    let update = found("customers.update", "/v1/customers/cus_1", "name=Ada", &answer(200, &deleted));
    assert!(matches!(update, Finding::Undecided { .. }), "{update:?}");
}

#[test]
fn an_update_that_cannot_be_compared_stays_undecided() {
    let customer = json!({"id": "cus_1", "object": "customer", "name": "Ada", "phone": "1"});
    for body in
        ["tax[validate_location]=auto", "expand[0]=tax", "", "name=Ada&source=tok_1", "name=Ada&phone=2"]
    {
        let finding = found("customers.update", "/v1/customers/cus_1", body, &answer(200, &customer));
        assert!(matches!(finding, Finding::Undecided { .. }), "{body}: {finding:?}");
    }
}

#[test]
fn a_read_that_failed_teaches_nothing_and_one_that_was_refused_is_for_an_operator() {
    let error = json!({"error": {"type": "invalid_request_error", "code": "no", "message": "no"}});
    let of = |attempt: &Attempt| found("refunds.create", "/v1/refunds", "charge=ch_1", attempt);
    for status in [401, 409, 429, 500, 502, 503, 302] {
        assert!(matches!(of(&answer(status, &error)), Finding::Unread { .. }), "{status}");
    }
    for status in [400, 403, 404] {
        assert!(matches!(of(&answer(status, &error)), Finding::Undecided { .. }), "{status}");
    }
    for attempt in [
        Attempt::NotSent(Trouble::Connect),
        Attempt::Broken(Trouble::Timeout),
        answer(200, &json!({"object": "refund", "id": "re_1"})),
        answer(200, &json!("list")),
        answer(404, &json!("not stripe's")),
    ] {
        assert!(matches!(of(&attempt), Finding::Unread { .. }), "{attempt:?}");
    }
    let outgoing = sent("refunds.create", "/v1/refunds", "charge=ch_1");
    assert!(matches!(ask("refunds.create", &outgoing).take(None), Step::Done(Finding::Unread { .. })));
}

#[test]
fn a_named_object_is_read_where_the_change_put_it() {
    let path = |name: &str, path: &str, id: &str| ask(name, &sent(name, path, "")).named(id).path;
    assert_eq!(path("refunds.create", "/v1/refunds", "re_1"), "/v1/refunds/re_1");
    let credits = "/v1/customers/cus_1/balance_transactions";
    assert_eq!(
        path("customers.balance_transactions.create", credits, "cbtxn_1"),
        format!("{credits}/cbtxn_1")
    );
    assert_eq!(path("disputes.close", "/v1/disputes/du_1/close", "du_1"), "/v1/disputes/du_1");
}

#[test]
fn a_named_object_must_be_able_to_be_the_effect() {
    let outgoing = sent("refunds.create", "/v1/refunds", "payment_intent=pi_1&amount=500");
    let question = ask("refunds.create", &outgoing);
    let named = |status: u16, object: Value| {
        let Attempt::Answered(answer) = answer(status, &object) else { panic!("an answer is an answer") };
        question.is_effect("re_1", &answer)
    };
    let by_hand = json!({"metadata": {}, "amount": 499});
    for refund in [refund("re_1", json!({})), refund("re_1", by_hand)] {
        assert!(matches!(named(200, refund), Named::Effect(_)));
    }
    for (refund, why) in [
        (refund("re_2", json!({})), "another object"),
        (refund("re_1", json!({"object": "charge"})), "no `refund`"),
        (refund("re_1", json!({"metadata": {METADATA_STAMP: "other"}})), "operation `other`"),
        (refund("re_1", json!({"payment_intent": "pi_2"})), "another `payment_intent`"),
    ] {
        let Named::Other(said) = named(200, refund) else { panic!("{why} was let pass") };
        assert!(said.contains(why), "{said}");
    }
    let gone =
        json!({"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such"}});
    assert!(matches!(named(404, gone.clone()), Named::Missing));
    let delete = sent("customers.delete", "/v1/customers/cus_1", "");
    let Attempt::Answered(answer) = answer(404, &gone) else { panic!("an answer is an answer") };
    assert!(matches!(ask("customers.delete", &delete).is_effect("cus_1", &answer), Named::Effect(_)));
}
