"""Consumes a named subscription: every event is handled at least once, and never again once it is acknowledged.

PYTHONPATH=stubs python consumer.py NAME [TYPE...]
"""

import os
import socket
import sys
import time

import grpc
from tollgate.v1 import subscription_pb2 as pb
from tollgate.v1 import subscription_pb2_grpc

# Asks for a sign of life after 15 silent seconds: a connection that died without a word ends 10 seconds later.
KEEPALIVE = [("grpc.keepalive_time_ms", 15_000), ("grpc.keepalive_timeout_ms", 10_000)]
CALL_SECONDS_MAX = 30
PAUSE_SECONDS = 1
# Worth another try: the gateway restarts or is busy, or the subscription was moved and what was out is stale.
PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
}


def handle(event):
    """Your work. After a crash an event can come a second time: keep `event.id` with the effect, and look for it first."""
    print("handled", event.id, event.position, event.type, event.object_id, flush=True)


def consume(subscriptions, name, metadata):
    """Deals with events until the stream ends. What is in hand when the process dies comes again to the next stream."""
    request = pb.ConsumeRequest(name=name, consumer=os.environ.get("CONSUMER", socket.gethostname()))
    for message in subscriptions.Consume(request, metadata=metadata):
        if not message.HasField("event"):
            continue  # A checkpoint: how far behind the subscription is.
        ack_id = message.delivery.ack_id
        try:
            handle(message.event)
        except Exception as error:
            # It comes again in 10 seconds; after the subscription's `max_attempts` it is parked.
            verdict = pb.RejectRequest(name=name, ack_id=ack_id, retry_after_s=10, reason=type(error).__name__)
            subscriptions.Reject(verdict, metadata=metadata, timeout=CALL_SECONDS_MAX)
        else:
            done = pb.AcknowledgeRequest(name=name, ack_ids=[ack_id])
            subscriptions.Acknowledge(done, metadata=metadata, timeout=CALL_SECONDS_MAX)
            print("acknowledged", message.event.id, flush=True)


def main(name, *types):
    address = os.environ.get("TOLLGATE_ADDRESS", "127.0.0.1:7400")
    metadata = [("authorization", f"Bearer {os.environ['TOLLGATE_TOKEN']}")]
    with grpc.insecure_channel(address, KEEPALIVE) as channel:
        subscriptions = subscription_pb2_grpc.SubscriptionServiceStub(channel)
        # The same request again changes nothing: the subscription keeps the place that it has.
        creation = pb.CreateSubscriptionRequest(name=name, types=types, earliest=True)
        subscriptions.CreateSubscription(creation, metadata=metadata, timeout=CALL_SECONDS_MAX, wait_for_ready=True)
        while True:
            try:
                consume(subscriptions, name, metadata)
            except grpc.RpcError as error:
                if error.code() not in PASSING:
                    raise
                print(f"again in a moment: {error.details()}", file=sys.stderr)
            time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
