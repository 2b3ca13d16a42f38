"""Runs the Python of the README and of the page about the feed as it stands there, against a gateway of its own."""

import re
import time

import grpc

import judge

judge.stubs()
from tollgate.v1 import common_pb2, event_pb2, event_pb2_grpc, refund_pb2, refund_pb2_grpc  # noqa: E402


def block(page):
    """The page's one block of Python."""
    found = re.findall(r"```python\n(.*?)```", (judge.ROOT / page).read_text(), re.S)
    assert len(found) == 1, f"{page} has {len(found)} blocks of Python"
    return found[0]


def the_python_of_the_readme_refunds(ready):
    names = {
        "channel": grpc.insecure_channel(judge.address(ready["grpc"])),
        "token": ready["token"],
        "common_pb2": common_pb2,
        "refund_pb2": refund_pb2,
        "refund_pb2_grpc": refund_pb2_grpc,
    }
    code = block("README.md").replace("pi_...", ready["payment_intent"])
    assert ready["payment_intent"] in code
    exec(compile(code, "README.md", "exec"), names)
    assert names["answer"].refund.amount == 1000


class Crash(Exception):
    """The reader dies."""


def the_python_of_the_feed_page_goes_on_at_its_cursor(ready):
    kept, positions = {"cursor": ""}, []

    def handle(event):
        positions.append(event.position)
        if len(positions) % 2 == 0:
            raise Crash

    names = {
        "channel": grpc.insecure_channel(judge.address(ready["grpc"])),
        "token": ready["token"],
        "event_pb2": event_pb2,
        "event_pb2_grpc": event_pb2_grpc,
        "grpc": grpc,
        "time": time,
        "load": lambda: kept["cursor"],
        "save": lambda cursor: kept.update(cursor=cursor),
        "handle": handle,
    }
    code = compile(block("docs/feed.md").replace("customer.*", "charge.*"), "docs/feed.md", "exec")
    for _ in range(2):
        try:
            exec(code, names)
        except Crash:
            continue
        raise AssertionError("the reader ended by itself")
    first, second, again, third = positions
    assert first < second == again < third, positions


if __name__ == "__main__":
    count = judge.Count()
    with judge.dev() as ready:
        count.run(the_python_of_the_readme_refunds, ready)
        count.run(the_python_of_the_feed_page_goes_on_at_its_cursor, ready)
    count.end()
