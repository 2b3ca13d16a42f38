"""One call as others see it: a collector of the official components takes its trace and the metrics over OTLP,
Prometheus' own parser reads the exemplars, and log and audit log name the same trace."""

import contextlib
import json
import pathlib
import signal
import socket
import subprocess
import tempfile

import grpc
import requests
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import judge

judge.stubs()
from tollgate.v1 import audit_pb2, audit_pb2_grpc, common_pb2, customer_pb2, customer_pb2_grpc  # noqa: E402

COLLECTOR = judge.ROOT / ".cache" / "bin" / "collector"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER_SPAN = "b7ad6b7169203331"
SECONDS_MAX = 60
KEY = "sk_test_sandbox"
# The name of a customer stands for all that is personal.
PERSONAL = "Ada Lovelace"
OPEN_METRICS = "application/openmetrics-text;version=1.0.0"
COLLECTOR_CONFIG = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "{address}"}}}}}}}}
exporters: {{stdout: {{}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [stdout]}}
    metrics: {{receivers: [otlp], exporters: [stdout]}}
"""


def listens(address):
    host, port = address.split(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
        return True
    return False


@contextlib.contextmanager
def running(command, out, error, **more):
    with open(out, "wb") as stdout, open(error, "wb") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, **more)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(judge.STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def lines(path):
    """The JSON objects of a file that may still be written to."""
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line.startswith("{")]


def make_a_customer(address):
    """One change as part of a caller's trace; Stripe fails the first attempt."""
    request = customer_pb2.CreateCustomerRequest(name=PERSONAL)
    request.operation.CopyFrom(common_pb2.OperationRef(order_id="traced", operation_id="1"))
    with grpc.insecure_channel(address) as channel:
        metadata = [("traceparent", f"00-{TRACE}-{CALLER_SPAN}-01")]
        return customer_pb2_grpc.CustomerServiceStub(channel).CreateCustomer(
            request, timeout=SECONDS_MAX, metadata=metadata
        )


def observe(folder):
    """Makes the call, and collects what everybody has seen of it."""
    otlp, stripe = judge.free_addresses(2)
    config = folder / "collector.yaml"
    config.write_text(COLLECTOR_CONFIG.format(address=otlp))
    seen = folder / "seen.jsonl"
    collector = [COLLECTOR, "--config", f"file:{config}"]
    sandbox = [judge.PROGRAM, "sandbox", "--listen", stripe, "--key", KEY]
    sandbox += ["--fault", "status:POST:/v1/customers:status=500,times=1"]
    environment = {
        "TOLLGATE_STRIPE_KEY": KEY,
        "TOLLGATE_STRIPE_API_BASE": f"http://{stripe}",
        "TOLLGATE_STRIPE_FILES_BASE": f"http://{stripe}",
        "TOLLGATE_WEBHOOK_SECRET": "whsec_for_the_judge_of_telemetry",
        "TOLLGATE_LISTEN_GRPC": "127.0.0.1:0",
        "TOLLGATE_LISTEN_WEBHOOK": "127.0.0.1:0",
        "TOLLGATE_LISTEN_OPS": "127.0.0.1:0",
        "TOLLGATE_LISTEN_LAME_DUCK_S": "0",
        "TOLLGATE_DATA": str(folder / "data"),
        "TOLLGATE_OTLP_ENDPOINT": f"http://{otlp}",
        "TOLLGATE_LOG_FORMAT": "json",
    }
    log = folder / "gateway.log"
    with running(collector, seen, folder / "collector.log"), running(sandbox, folder / "sandbox.out", folder / "sandbox.log"):
        judge.until(lambda: listens(otlp), "collector that listens")
        judge.until(lambda: listens(stripe), "sandbox that listens")
        with running([judge.PROGRAM, "serve"], folder / "gateway.out", log, env=environment):
            said = lambda: [line for line in lines(log) if line.get("message") == "ready"]  # noqa: E731
            (ready,) = judge.until(said, "gateway that is ready")
            answer = make_a_customer(ready["grpc"])
            metrics = requests.get(f"http://{ready['ops']}/metrics", headers={"Accept": OPEN_METRICS}, timeout=10)
            with grpc.insecure_channel(ready["grpc"]) as channel:
                wanted = audit_pb2.GetAuditRecordRequest(id=answer.call.audit_id)
                record = audit_pb2_grpc.AuditServiceStub(channel).GetAuditRecord(wanted, timeout=10).record
        exported = lines(seen)
    calls = [line for line in lines(log) if line.get("target") == "tollgate::call"]
    return {"exported": exported, "metrics": metrics, "record": record, "calls": calls, "answer": answer}


def attributes(span):
    return {pair["key"]: next(iter(pair["value"].values()), None) for pair in span.get("attributes", [])}


def spans(seen):
    groups = [group for line in seen["exported"] for group in line.get("resourceSpans", [])]
    every = [span for group in groups for scope in group["scopeSpans"] for span in scope["spans"]]
    return [span for span in every if span["traceId"] == TRACE]


def one_trace_leads_from_the_caller_through_every_attempt_to_the_ledger(seen):
    by_name = {}
    for span in spans(seen):
        by_name.setdefault(span["name"], []).append(span)
    (call,) = by_name["tollgate.v1.CustomerService/CreateCustomer"]
    assert call["parentSpanId"] == CALLER_SPAN, call
    assert attributes(call)["rpc.response.status_code"] == "OK"
    for name in ["policy", "ledger begin", "send", "ledger settle"]:
        (stage,) = by_name[name]
        assert stage["parentSpanId"] == call["spanId"], stage
    (send,) = by_name["send"]
    attempts = sorted(by_name["POST /v1/customers"], key=lambda span: int(span["startTimeUnixNano"]))
    assert [attributes(span)["http.response.status_code"] for span in attempts] == ["500", "200"]
    assert all(span["parentSpanId"] == send["spanId"] for span in attempts)
    for name in ["ledger begin", "ledger settle"]:
        assert int(by_name[name][0]["endTimeUnixNano"]) > int(by_name[name][0]["startTimeUnixNano"])


def no_span_tells_anything_personal_or_secret(seen):
    text = json.dumps([line for line in seen["exported"] if "resourceSpans" in line])
    for hidden in [PERSONAL, KEY, "whsec_for", seen["answer"].customer.id]:
        assert hidden not in text, hidden


def the_metrics_come_over_otlp_as_well(seen):
    groups = [group for line in seen["exported"] for group in line.get("resourceMetrics", [])]
    names = {metric["name"] for group in groups for scope in group["scopeMetrics"] for metric in scope["metrics"]}
    assert {"rpc.server.call.duration", "http.client.request.duration", "process.memory.usage"} <= names, names


def the_log_line_and_the_audit_record_name_the_trace(seen):
    (line,) = [line for line in seen["calls"] if line["rpc"].endswith("CreateCustomer")]
    assert line["trace_id"] == TRACE, line
    assert (line["attempts"], line["account"], line["order_id"]) == (2, "default", "traced"), line
    assert line["total_ms"] >= line["stripe_ms"] > 0 and line["ledger_ms"] > 0, line
    assert seen["record"].id == line["audit_id"] and seen["record"].trace_id == TRACE, seen["record"]


def the_exemplars_of_the_metrics_name_the_trace(seen):
    assert seen["metrics"].headers["content-type"].startswith(OPEN_METRICS.split(";")[0])
    families = {family.name: family for family in text_string_to_metric_families(seen["metrics"].text)}
    for name in ["rpc_server_call_duration_seconds", "http_client_request_duration_seconds"]:
        quoted = [sample.exemplar.labels for sample in families[name].samples if sample.exemplar]
        assert {"trace_id": TRACE} in quoted, (name, quoted)


def main():
    count = judge.Count()
    with tempfile.TemporaryDirectory() as folder:
        seen = count.run(observe, pathlib.Path(folder))
    if seen:
        count.run(one_trace_leads_from_the_caller_through_every_attempt_to_the_ledger, seen)
        count.run(no_span_tells_anything_personal_or_secret, seen)
        count.run(the_metrics_come_over_otlp_as_well, seen)
        count.run(the_log_line_and_the_audit_record_name_the_trace, seen)
        count.run(the_exemplars_of_the_metrics_name_the_trace, seen)
    count.end()


main()
