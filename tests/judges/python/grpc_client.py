"""A newcomer's Python client on grpcio, with stubs generated from `proto/`, against `tollgate dev`.

It opens a stream first, then makes every kind of change once and again, and looks for the events of each on the stream.
"""

import threading
import uuid

import grpc
import stripe
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

import judge

judge.stubs()

from tollgate.v1 import (  # noqa: E402
    balance_pb2,
    balance_pb2_grpc,
    common_pb2,
    customer_pb2,
    customer_pb2_grpc,
    dispute_pb2,
    dispute_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    file_pb2,
    file_pb2_grpc,
    operation_pb2,
    operation_pb2_grpc,
    payment_intent_pb2,
    payment_intent_pb2_grpc,
    payment_method_pb2,
    payment_method_pb2_grpc,
    refund_pb2,
    refund_pb2_grpc,
)

CALL_SECONDS_MAX = 30
EVENT_SECONDS_MAX = 30
PDF = b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n"


def reference(order, operation=""):
    return common_pb2.OperationRef(order_id=order, operation_id=operation)


class Stream:
    """Events as they come, on a thread of their own."""

    def __init__(self, call):
        self.call = call
        self.events = []
        self.caught_up = False
        self.ended = None
        self.changed = threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for message in self.call:
                with self.changed:
                    if message.WhichOneof("item") == "event":
                        self.events.append(message.event)
                    elif message.WhichOneof("item") == "caught_up":
                        self.caught_up = True
                    self.changed.notify_all()
        except grpc.RpcError as error:
            with self.changed:
                self.ended = error
                self.changed.notify_all()

    def wait(self, what, found):
        """Waits until `found` holds."""
        with self.changed:
            held = self.changed.wait_for(lambda: found() or self.ended, EVENT_SECONDS_MAX)
            seen = [(event.type, event.object_id) for event in self.events]
            assert held and found(), f"{what} did not come; the stream has {seen}, ended by {self.ended}"

    def event(self, type, object_id, order=None):
        """Waits for an event of the object; with an order, one that carries an idempotency key of the gateway."""

        def found():
            return any(
                event.type == type and event.object_id == object_id
                and (order is None or event.idempotency_key.startswith("tg1-"))
                for event in self.events
            )

        self.wait(f"{type} of {object_id}", found)


class Client:
    """All the stubs on one channel."""

    def __init__(self, ready):
        self.ready = ready
        self.channel = grpc.insecure_channel(judge.address(ready["grpc"]))
        self.metadata = [("authorization", f"Bearer {ready['token']}")]
        self.stream = None

    def call(self, method, request):
        return method(request, metadata=self.metadata, timeout=CALL_SECONDS_MAX)

    def subscribe(self, **start):
        stub = event_pb2_grpc.EventServiceStub(self.channel)
        return Stream(stub.Subscribe(event_pb2.SubscribeRequest(**start), metadata=self.metadata))

    def refund(self, operation, amount):
        stub = refund_pb2_grpc.RefundServiceStub(self.channel)
        request = refund_pb2.CreateRefundRequest(
            operation=reference("order-1001", operation),
            payment_intent=self.ready["payment_intent"],
            amount=amount,
            reason=refund_pb2.REFUND_REASON_REQUESTED_BY_CUSTOMER,
        )
        return self.call(stub.CreateRefund, request)


def details(error):
    """The rich details of an error by type name, and its status."""
    status = rpc_status.from_call(error)
    known = {}
    for detail in status.details:
        kind = detail.TypeName().split(".")[-1]
        message = getattr(error_details_pb2, kind)()
        assert detail.Unpack(message)
        known.setdefault(kind, message)
    return known


def refused(code, call, *arguments):
    """Expects the call to fail with the code; returns its details."""
    try:
        call(*arguments)
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()}: {error.details()}"
        known = details(error)
        assert known["ErrorInfo"].reason, known
        return known
    raise AssertionError(f"no {code}")


def a_stream_opens_before_anything_happens(client):
    client.stream = client.subscribe(latest=True)
    client.stream.wait("caught up", lambda: client.stream.caught_up)


def a_customer_is_created(client):
    stub = customer_pb2_grpc.CustomerServiceStub(client.channel)
    request = customer_pb2.CreateCustomerRequest(
        operation=reference("order-1001"), name="Jenny Rosen", email="jenny@example.com", metadata={"ticket": "7"}
    )
    answer = client.call(stub.CreateCustomer, request)
    assert answer.customer.id.startswith("cus_") and not answer.call.replayed
    assert answer.customer.metadata["ticket"] == "7"
    assert answer.call.stripe_request_id.startswith("req_") and answer.call.audit_id.startswith("aud_")
    client.stream.event("customer.created", answer.customer.id, "order-1001")
    again = client.call(stub.CreateCustomer, request)
    assert again.call.replayed and again.customer.id == answer.customer.id and again.call.attempts == 0
    return answer.customer.id


def a_card_is_attached(client, customer):
    stub = payment_method_pb2_grpc.PaymentMethodServiceStub(client.channel)
    request = payment_method_pb2.AttachPaymentMethodRequest(
        operation=reference("order-1001"), id="pm_card_visa", customer=customer
    )
    answer = client.call(stub.AttachPaymentMethod, request)
    assert answer.payment_method.customer == customer and answer.payment_method.card.last4 == "4242"
    client.stream.event("payment_method.attached", answer.payment_method.id, "order-1001")
    again = client.call(stub.AttachPaymentMethod, request)
    assert again.call.replayed and again.payment_method.id == answer.payment_method.id


def the_payment_is_refunded_in_two_halves_each_once(client):
    stub = payment_intent_pb2_grpc.PaymentIntentServiceStub(client.channel)
    request = payment_intent_pb2.GetPaymentIntentRequest(id=client.ready["payment_intent"])
    intent = client.call(stub.GetPaymentIntent, request).payment_intent
    assert intent.amount > 0 and intent.amount % 2 == 0
    half = intent.amount // 2
    first, second = client.refund("first-half", half), client.refund("second-half", half)
    assert first.refund.id != second.refund.id
    for answer in (first, second):
        assert answer.refund.amount == half and not answer.call.replayed
        assert answer.refund.status == refund_pb2.REFUND_STATUS_SUCCEEDED
        client.stream.event("refund.created", answer.refund.id, "order-1001")
    client.stream.event("charge.refunded", first.refund.charge)
    for operation, answer in (("first-half", first), ("second-half", second)):
        again = client.refund(operation, half)
        assert again.call.replayed and again.refund.id == answer.refund.id
    listed = refund_pb2_grpc.RefundServiceStub(client.channel)
    page = client.call(listed.ListRefunds, refund_pb2.ListRefundsRequest(payment_intent=client.ready["payment_intent"]))
    assert sorted(refund.id for refund in page.refunds) == sorted([first.refund.id, second.refund.id])
    return half


def another_amount_under_the_same_name_is_refused(client, half):
    known = refused(grpc.StatusCode.ALREADY_EXISTS, client.refund, "first-half", half - 1)
    told = json_format.MessageToJson(known["ErrorInfo"]) + "".join(map(str, known.values()))
    assert "amount" in told, told


def more_than_remains_is_refused_by_stripe(client, half):
    known = refused(grpc.StatusCode.FAILED_PRECONDITION, client.refund, "third-half", half)
    assert known["ErrorInfo"].metadata, known


def a_request_with_several_mistakes_hears_of_all(client, _):
    stub = refund_pb2_grpc.RefundServiceStub(client.channel)
    request = refund_pb2.CreateRefundRequest(charge="ch_1", payment_intent="pi_1", amount=-5)
    known = refused(grpc.StatusCode.INVALID_ARGUMENT, client.call, stub.CreateRefund, request)
    fields = {violation.field for violation in known["BadRequest"].field_violations}
    assert {"operation", "amount"} <= {field.split(".")[0] for field in fields} and len(fields) >= 3, fields


def what_became_of_an_operation_can_be_asked(client):
    stub = operation_pb2_grpc.OperationServiceStub(client.channel)
    request = operation_pb2.GetOperationRequest(
        operation=reference("order-1001", "first-half"), rpc="RefundService/CreateRefund"
    )
    answer = json_format.MessageToDict(client.call(stub.GetOperation, request))
    assert "SUCCEEDED" in str(answer), answer


def evidence_with_a_file_is_staged_and_submitted(client):
    files = file_pb2_grpc.FileServiceStub(client.channel)
    header = file_pb2.UploadFileHeader(
        operation=reference("order-1001", "receipt"),
        purpose=file_pb2.FILE_PURPOSE_DISPUTE_EVIDENCE,
        filename="receipt.pdf",
        size=len(PDF),
    )

    def parts():
        yield file_pb2.UploadFileRequest(header=header)
        for at in range(0, len(PDF), 16):
            yield file_pb2.UploadFileRequest(chunk=PDF[at : at + 16])

    upload = client.call(files.UploadFile, parts())
    assert upload.file.id.startswith("file_") and upload.file.size == len(PDF)
    assert upload.file.purpose == file_pb2.FILE_PURPOSE_DISPUTE_EVIDENCE
    again = client.call(files.UploadFile, parts())
    assert again.call.replayed and again.file.id == upload.file.id

    disputes = dispute_pb2_grpc.DisputeServiceStub(client.channel)
    dispute = client.call(disputes.ListDisputes, dispute_pb2.ListDisputesRequest()).disputes[0]
    evidence = dispute_pb2.DisputeEvidenceParams(
        receipt=upload.file.id, customer_name="Jenny Rosen", uncategorized_text="winning_evidence"
    )
    staged = client.call(
        disputes.StageDisputeEvidence,
        dispute_pb2.StageDisputeEvidenceRequest(
            operation=reference("order-1002", "stage"), id=dispute.id, evidence=evidence
        ),
    )
    assert staged.dispute.evidence.receipt == upload.file.id
    assert staged.dispute.evidence_details.has_evidence and staged.dispute.evidence_details.submission_count == 0
    client.stream.event("charge.dispute.updated", dispute.id, "order-1002")
    submitted = client.call(
        disputes.SubmitDisputeEvidence,
        dispute_pb2.SubmitDisputeEvidenceRequest(operation=reference("order-1002", "submit"), id=dispute.id),
    )
    assert submitted.dispute.evidence_details.submission_count == 1
    client.stream.event("charge.dispute.closed", dispute.id)


def a_payment_that_is_only_authorized_is_cancelled(client):
    shop = stripe.StripeClient(
        client.ready["stripe_key"], base_addresses={"api": judge.url(client.ready["stripe"])}
    ).v1
    intent = shop.payment_intents.create(
        {
            "amount": 1500,
            "currency": "usd",
            "payment_method": "pm_card_visa",
            "capture_method": "manual",
            "confirm": True,
            "allowed_payment_method_types": ["card"],
        }
    )
    assert intent.status == "requires_capture"
    stub = payment_intent_pb2_grpc.PaymentIntentServiceStub(client.channel)
    request = payment_intent_pb2.CancelPaymentIntentRequest(
        operation=reference("order-1003"),
        id=intent.id,
        cancellation_reason=payment_intent_pb2.PAYMENT_INTENT_CANCELLATION_REASON_ABANDONED,
    )
    answer = client.call(stub.CancelPaymentIntent, request)
    assert answer.payment_intent.status == payment_intent_pb2.PAYMENT_INTENT_STATUS_CANCELED
    assert answer.payment_intent.cancellation_reason == request.cancellation_reason and not answer.call.replayed
    client.stream.event("payment_intent.canceled", intent.id, "order-1003")
    assert client.call(stub.CancelPaymentIntent, request).call.replayed
    request.operation.operation_id = "again"
    refused(grpc.StatusCode.FAILED_PRECONDITION, client.call, stub.CancelPaymentIntent, request)


def the_balance_is_read(client):
    stub = balance_pb2_grpc.BalanceServiceStub(client.channel)
    balance = client.call(stub.GetBalance, balance_pb2.GetBalanceRequest()).balance
    assert balance.available and balance.available[0].currency == "usd"


def the_whole_log_comes_again_from_the_earliest_cursor(client):
    seen = [event.id for event in client.stream.events]
    assert len(seen) == len(set(seen))
    again = client.subscribe(earliest=True)
    again.wait("what the first stream saw", lambda: set(seen) <= {event.id for event in again.events})
    positions = [event.position for event in again.events]
    assert positions == sorted(positions) and len(positions) == len(set(positions))
    second = client.subscribe(after_cursor=again.events[0].cursor)
    second.wait("the rest behind a cursor", lambda: set(seen) <= {event.id for event in second.events} | {again.events[0].id})
    assert again.events[0].id not in {event.id for event in second.events}
    for stream in (client.stream, again, second):
        stream.call.cancel()


def nobody_calls_without_a_token(client):
    stub = balance_pb2_grpc.BalanceServiceStub(client.channel)
    for metadata in ([], [("authorization", f"Bearer {uuid.uuid4().hex}")]):
        known = refused(
            grpc.StatusCode.UNAUTHENTICATED,
            lambda metadata=metadata: stub.GetBalance(
                balance_pb2.GetBalanceRequest(), metadata=metadata, timeout=CALL_SECONDS_MAX
            ),
        )
        assert known


def health_answers_a_stock_client(client):
    stub = health_pb2_grpc.HealthStub(client.channel)
    for service in ("", "tollgate.v1.RefundService", "tollgate.v1.EventService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_SECONDS_MAX)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, service
    first = next(stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=CALL_SECONDS_MAX))
    assert first.status == health_pb2.HealthCheckResponse.SERVING
    try:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=CALL_SECONDS_MAX)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND
    else:
        raise AssertionError("a service that nobody serves is healthy")


def reflection_answers_a_stock_client(client):
    class WithToken(grpc.StreamStreamClientInterceptor):
        def intercept_stream_stream(self, continuation, call, requests):
            return continuation(call._replace(metadata=client.metadata), requests)

    database = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(client.channel, WithToken()))
    services = set(database.get_services())
    assert {"tollgate.v1.RefundService", "grpc.health.v1.Health"} <= services, services
    file = database.FindFileContainingSymbol("tollgate.v1.RefundService")
    assert file.name == "tollgate/v1/refund.proto"
    # The messages of v1 are those of v1alpha under another name.
    call = client.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    answer = next(call(asked, metadata=client.metadata, timeout=CALL_SECONDS_MAX))
    assert "tollgate.v1.RefundService" in {service.name for service in answer.list_services_response.service}


def main():
    count = judge.Count()
    with judge.dev() as ready:
        client = Client(ready)
        count.run(a_stream_opens_before_anything_happens, client)
        customer = count.run(a_customer_is_created, client)
        count.run(a_card_is_attached, client, customer)
        half = count.run(the_payment_is_refunded_in_two_halves_each_once, client)
        count.run(another_amount_under_the_same_name_is_refused, client, half)
        count.run(more_than_remains_is_refused_by_stripe, client, half)
        count.run(a_request_with_several_mistakes_hears_of_all, client, half)
        count.run(what_became_of_an_operation_can_be_asked, client)
        count.run(evidence_with_a_file_is_staged_and_submitted, client)
        count.run(a_payment_that_is_only_authorized_is_cancelled, client)
        count.run(the_balance_is_read, client)
        count.run(nobody_calls_without_a_token, client)
        count.run(health_answers_a_stock_client, client)
        count.run(reflection_answers_a_stock_client, client)
        count.run(the_whole_log_comes_again_from_the_earliest_cursor, client)
        client.channel.close()
    count.end()


main()
