"""Stripe's own Python library against the sandbox: the same flows that the gateway is used for, and webhooks both ways."""

import http.server
import io
import json
import queue
import threading
import time
import urllib.error
import urllib.request

import grpc
import stripe

import judge

judge.stubs()

from tollgate.v1 import event_pb2, event_pb2_grpc  # noqa: E402

WAIT_SECONDS_MAX = 30
SECRET = "whsec_of_the_judge"


class Receiver:
    """A merchant's own webhook endpoint."""

    def __init__(self):
        self.deliveries = queue.Queue()
        deliveries = self.deliveries

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                deliveries.put((body, self.headers["stripe-signature"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}/"

    def find(self, type):
        """The next delivery of an event of the type: body and signature."""
        end = time.monotonic() + WAIT_SECONDS_MAX
        while True:
            body, signature = self.deliveries.get(timeout=max(end - time.monotonic(), 0.001))
            if json.loads(body)["type"] == type:
                return body, signature


def post(url, body, headers):
    """Status of a POST."""
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS_MAX) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


class Shop:
    """The library, pointed at the sandbox."""

    def __init__(self, ready):
        self.ready = ready
        base = judge.url(ready["stripe"])
        self.api = stripe.StripeClient(
            ready["stripe_key"], base_addresses={"api": base, "files": base}, max_network_retries=2
        ).v1
        self.receiver = Receiver()
        targets = [
            {"url": f"{judge.url(ready['webhook'])}/webhooks/stripe", "secrets": [ready["webhook_secret"]]},
            {"url": self.receiver.url(), "secrets": [SECRET]},
        ]
        status = post(
            f"{base}/_sandbox/webhooks", json.dumps(targets).encode(), {"content-type": "application/json"}
        )
        assert status == 200, status

    def pay(self, method="pm_card_visa"):
        return self.api.payment_intents.create(
            {
                "amount": 3000,
                "currency": "usd",
                "payment_method": method,
                "confirm": True,
                "allowed_payment_method_types": ["card"],
            }
        )


def a_customer_gets_a_card(shop):
    customer = shop.api.customers.create({"name": "Jenny Rosen", "email": "jenny@example.com"})
    attached = shop.api.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    assert attached.customer == customer.id and attached.card.last4 == "4242"
    listed = shop.api.customers.payment_methods.list(customer.id)
    assert [method.id for method in listed.data] == [attached.id]
    default = {"invoice_settings": {"default_payment_method": attached.id}}
    assert shop.api.customers.update(customer.id, default).invoice_settings.default_payment_method == attached.id
    assert shop.api.customers.retrieve(customer.id).email == "jenny@example.com"


def two_halves_are_refunded_each_once(shop):
    intent = shop.pay()
    half = {"payment_intent": intent.id, "amount": 1500}
    first = shop.api.refunds.create(half, {"idempotency_key": f"{intent.id}-first"})
    again = shop.api.refunds.create(half, {"idempotency_key": f"{intent.id}-first"})
    second = shop.api.refunds.create(half, {"idempotency_key": f"{intent.id}-second"})
    assert first.id == again.id != second.id and first.status == "succeeded"
    assert again.last_response.headers["idempotent-replayed"] == "true"
    assert {refund.id for refund in shop.api.refunds.list({"payment_intent": intent.id}).data} == {first.id, second.id}
    return intent.id


def another_amount_under_the_same_key_is_refused(shop, intent):
    try:
        shop.api.refunds.create(
            {"payment_intent": intent, "amount": 1400}, {"idempotency_key": f"{intent}-first"}
        )
    except stripe.IdempotencyError as error:
        assert error.http_status == 400
    else:
        raise AssertionError("the key took other parameters")


def more_than_was_paid_is_refused(shop, intent):
    try:
        shop.api.refunds.create({"payment_intent": intent, "amount": 1})
    except stripe.InvalidRequestError as error:
        assert error.code == "charge_already_refunded", error.code
    else:
        raise AssertionError("more was refunded than was paid")


def a_declined_card_is_a_card_error(shop):
    try:
        shop.pay("pm_card_chargeDeclined")
    except stripe.CardError as error:
        assert error.code == "card_declined" and error.error.decline_code == "generic_decline"
    else:
        raise AssertionError("the card was not declined")


def a_dispute_takes_evidence_with_a_file(shop):
    intent = shop.pay("pm_card_createDispute")
    end = time.monotonic() + WAIT_SECONDS_MAX
    while not (found := shop.api.disputes.list({"payment_intent": intent.id}).data):
        assert time.monotonic() < end, "no dispute"
        time.sleep(0.05)
    receipt = io.BytesIO(b"%PDF-1.4\n%%EOF\n")
    receipt.name = "receipt.pdf"
    upload = shop.api.files.create({"purpose": "dispute_evidence", "file": receipt})
    evidence = {"receipt": upload.id, "uncategorized_text": "winning_evidence"}
    staged = shop.api.disputes.update(found[0].id, {"evidence": evidence, "submit": False})
    assert staged.evidence_details.submission_count == 0 and staged.evidence.receipt == upload.id
    submitted = shop.api.disputes.update(found[0].id, {"submit": True})
    assert submitted.evidence_details.submission_count == 1


def the_balance_and_the_events_are_read(shop):
    assert shop.api.balance.retrieve().available[0].currency == "usd"
    types = {event.type for event in shop.api.events.list({"limit": 100}).auto_paging_iter()}
    assert {"customer.created", "refund.created", "charge.dispute.created"} <= types, types


def its_verifier_takes_the_sandbox_s_webhooks(shop):
    body, signature = shop.receiver.find("refund.created")
    event = stripe.Webhook.construct_event(body, signature, SECRET)
    assert event.type == "refund.created" and event.data.object.object == "refund"
    try:
        stripe.Webhook.construct_event(body.replace(b"1500", b"1501"), signature, SECRET)
    except stripe.SignatureVerificationError:
        pass
    else:
        raise AssertionError("a tampered body was taken")


def the_gateway_takes_what_the_library_signs(shop):
    url = f"{judge.url(shop.ready['webhook'])}/webhooks/stripe"
    event = {
        "id": "evt_1SignedByTheLibrary",
        "object": "event",
        "api_version": stripe.api_version,
        "created": int(time.time()),
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": "refund.updated",
        "data": {"object": {"id": "re_1SignedByTheLibrary", "object": "refund", "amount": 1500}},
    }
    body = json.dumps(event)
    at = int(time.time())
    signature = stripe.WebhookSignature._compute_signature(f"{at}.{body}", shop.ready["webhook_secret"])
    header = {"stripe-signature": f"t={at},v1={signature}", "content-type": "application/json"}
    assert post(url, body.replace("1500", "1501").encode(), header) == 400
    assert post(url, body.encode(), {"content-type": "application/json"}) == 400
    assert post(url, body.encode(), header) == 200
    stub = event_pb2_grpc.EventServiceStub(grpc.insecure_channel(judge.address(shop.ready["grpc"])))
    stored = stub.GetEvent(
        event_pb2.GetEventRequest(id=event["id"]),
        metadata=[("authorization", f"Bearer {shop.ready['token']}")],
        timeout=WAIT_SECONDS_MAX,
    ).event
    assert stored.json == body and stored.object_id == "re_1SignedByTheLibrary"


def main():
    count = judge.Count()
    with judge.dev() as ready:
        shop = Shop(ready)
        count.run(a_customer_gets_a_card, shop)
        intent = count.run(two_halves_are_refunded_each_once, shop)
        count.run(another_amount_under_the_same_key_is_refused, shop, intent)
        count.run(more_than_was_paid_is_refused, shop, intent)
        count.run(a_declined_card_is_a_card_error, shop)
        count.run(a_dispute_takes_evidence_with_a_file, shop)
        count.run(the_balance_and_the_events_are_read, shop)
        count.run(its_verifier_takes_the_sandbox_s_webhooks, shop)
        count.run(the_gateway_takes_what_the_library_signs, shop)
    count.end()


main()
