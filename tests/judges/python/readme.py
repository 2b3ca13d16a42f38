"""Runs the Python of the README as it stands there, against a gateway of its own."""

import re

import grpc

import judge

judge.stubs()
from tollgate.v1 import common_pb2, refund_pb2, refund_pb2_grpc  # noqa: E402


def block():
    """The README's one block of Python."""
    found = re.findall(r"```python\n(.*?)```", (judge.ROOT / "README.md").read_text(), re.S)
    assert len(found) == 1, f"the README has {len(found)} blocks of Python"
    return found[0]


def the_python_of_the_readme_refunds(ready):
    names = {
        "channel": grpc.insecure_channel(judge.address(ready["grpc"])),
        "token": ready["token"],
        "common_pb2": common_pb2,
        "refund_pb2": refund_pb2,
        "refund_pb2_grpc": refund_pb2_grpc,
    }
    code = block().replace("pi_...", ready["payment_intent"])
    assert ready["payment_intent"] in code
    exec(compile(code, "README.md", "exec"), names)
    assert names["answer"].refund.amount == 1000


if __name__ == "__main__":
    count = judge.Count()
    with judge.dev() as ready:
        count.run(the_python_of_the_readme_refunds, ready)
    count.end()
