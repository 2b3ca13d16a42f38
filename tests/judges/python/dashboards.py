"""A real Prometheus scrapes a gateway that gets every kind of call and meets every kind of trouble, by the very files of
`deploy/`. Then every query of the dashboard and of the alerts has to return data, and what was made to go wrong has to show.
"""

import contextlib
import json
import math
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import grpc

import judge

judge.stubs()

from tollgate.v1 import (  # noqa: E402
    admin_pb2,
    admin_pb2_grpc,
    balance_pb2,
    balance_pb2_grpc,
    common_pb2,
    customer_pb2,
    customer_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    feed_pb2,
    feed_pb2_grpc,
    refund_pb2,
    refund_pb2_grpc,
    subscription_pb2,
    subscription_pb2_grpc,
)

DEPLOY = judge.ROOT / "deploy"
RUNBOOKS = judge.ROOT / "docs" / "runbooks"
KEY, SECRET = "sk_test_dashboards", "whsec_dashboards"
SHOP, CLERK = "token-of-the-shop-1", "token-of-the-clerk-1"
SECONDS_MAX = 30
CALL_SECONDS_MAX = 10
# What Grafana puts in for `$__rate_interval`, which is at least four scrapes of one second each.
RATE_INTERVAL = "10s"
FLOOD = 200

CONFIG = """
data = "{folder}/data"
[stripe]
key = "{key}"
api_base = "{stripe}"
files_base = "{stripe}"
attempt_timeout_s = 2
[webhook]
secret = "{secret}"
[listen]
grpc = "{grpc}"
webhook = "{webhook}"
ops = "{ops}"
lame_duck_s = 0
calls_in_flight_max = 100
[tls]
certificate_file = "{folder}/cert.pem"
key_file = "{folder}/key.pem"
[callers.shop]
token = "{shop}"
[callers.clerk]
token = "{clerk}"
[policy]
files = ["{folder}/rules.cedar"]
[budgets.daily]
callers = ["shop"]
currency = "usd"
window = "rolling_day"
amount = 100000
"""
RULES = """
@id("shop-does-everything")
permit (principal == Caller::"shop", action, resource);
@id("clerk-changes-nothing")
forbid (principal == Caller::"clerk", action == Action::"RefundService.CreateRefund", resource);
"""
# What this judge does not make happen: money that nobody finds, a broken disk, a log that takes no more.
NOT_MADE = ("needs_operator", "store_errors", "lazy_dropped")


def free_address():
    """An address that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return "{}:{}".format(*listener.getsockname())


def ask(url, body=None, headers=None):
    """The answer to a request, as JSON where it is that."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers or {})
    with urllib.request.urlopen(request, timeout=SECONDS_MAX) as answer:
        text = answer.read().decode()
    return json.loads(text) if text[:1] in "[{" else text


def wait_for(url):
    """Waits until something is ready."""
    end = time.monotonic() + SECONDS_MAX
    while True:
        with contextlib.suppress(OSError):
            return ask(url)
        assert time.monotonic() < end, f"{url} does not answer"
        time.sleep(0.05)


class Place:
    """Sandbox, gateway and Prometheus on free ports of this machine, with their files in one folder."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.names = ["grpc", "webhook", "ops", "sandbox", "prometheus"]
        self.at = {name: free_address() for name in self.names}
        self.stripe = f"http://{self.at['sandbox']}"
        self.prometheus = f"http://{self.at['prometheus']}"

    def write(self, name, text):
        (self.folder / name).write_text(text)

    def prepare(self):
        """Puts the files there."""
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            + ["-days", "30", "-subj", "/CN=tollgate", "-addext", "subjectAltName=IP:127.0.0.1"]
            + ["-addext", "basicConstraints=critical,CA:FALSE"]
            + ["-keyout", self.folder / "key.pem", "-out", self.folder / "cert.pem"],
            check=True,
            capture_output=True,
        )
        self.config = CONFIG.format(
            folder=self.folder, key=KEY, secret=SECRET, shop=SHOP, clerk=CLERK, stripe=self.stripe, **self.at
        )
        self.write("tollgate.toml", self.config)
        self.write("rules.cedar", RULES)
        scrape = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
        assert "15s" in scrape and "gateway:7402" in scrape
        self.write("prometheus.yml", scrape.replace("15s", "1s").replace("gateway:7402", self.at["ops"]))
        self.write("alerts.yml", (DEPLOY / "prometheus" / "alerts.yml").read_text())

    def commands(self):
        """What runs, in this order, and where each says that it is ready."""
        hook = f"http://{self.at['webhook']}/webhooks/stripe"
        sandbox = ["sandbox", "--listen", self.at["sandbox"], "--key", KEY]
        sandbox += ["--webhook-url", hook, "--webhook-secret", SECRET]
        yield [judge.PROGRAM, *sandbox], f"{self.stripe}/_sandbox/book"
        yield [judge.PROGRAM, "serve", "--config", self.folder / "tollgate.toml"], f"http://{self.at['ops']}/readyz"
        prometheus = ["prometheus", "--config.file", self.folder / "prometheus.yml"]
        prometheus += ["--storage.tsdb.path", self.folder / "tsdb", "--web.listen-address", self.at["prometheus"]]
        prometheus += ["--enable-feature=exemplar-storage", "--log.level=warn"]
        yield prometheus, f"{self.prometheus}/-/ready"

    @contextlib.contextmanager
    def running(self):
        """Everything runs, and `self.gateway` is the process of the gateway."""
        self.prepare()
        with contextlib.ExitStack() as stack, open(self.folder / "log", "w+") as log:
            processes = []
            try:
                for command, ready in self.commands():
                    processes.append(stack.enter_context(judge.running(command, log, cwd=self.folder, stdout=log)))
                    wait_for(ready)
                self.gateway = processes[1]
                self.scraped()
                yield
            except BaseException:
                log.seek(0)
                print(log.read()[-4000:])
                raise

    def scraped(self):
        """Waits for the first scrape: what counts before it is no increase to Prometheus."""
        self.begun, end = time.time(), time.monotonic() + SECONDS_MAX
        while not self.query("up"):
            assert time.monotonic() < end, "Prometheus does not scrape the gateway"
            time.sleep(0.1)

    def fault(self, kind, method, path, **settings):
        """Has the sandbox go wrong."""
        fault = {"match": {"method": method, "path_prefix": path}, "kind": kind, **settings}
        ask(f"{self.stripe}/_sandbox/faults", fault)

    def mend(self):
        """Ends all faults."""
        request = urllib.request.Request(f"{self.stripe}/_sandbox/faults", method="DELETE")
        urllib.request.urlopen(request, timeout=SECONDS_MAX).close()

    def pay(self, amount):
        """A payment that can be refunded at once."""
        form = {
            "amount": amount,
            "currency": "usd",
            "payment_method": "pm_card_bypassPending",
            "confirm": "true",
            "automatic_payment_methods[enabled]": "true",
            "automatic_payment_methods[allow_redirects]": "never",
        }
        body = urllib.parse.urlencode(form).encode()
        return ask(f"{self.stripe}/v1/payment_intents", body, {"authorization": f"Bearer {KEY}"})["id"]

    def query(self, expr):
        """The series of an expression over the whole run, without the points that are no numbers."""
        form = {"query": expr, "start": self.begun, "end": time.time(), "step": "1"}
        answer = ask(f"{self.prometheus}/api/v1/query_range", urllib.parse.urlencode(form).encode())
        values = [[float(value) for _, value in series["values"]] for series in answer["data"]["result"]]
        return [kept for series in values if (kept := [value for value in series if math.isfinite(value)])]


class Callers:
    """The shop, which may do everything, and others who may not."""

    def __init__(self, place):
        self.place = place
        credentials = grpc.ssl_channel_credentials((place.folder / "cert.pem").read_bytes())
        self.channel = grpc.secure_channel(place.at["grpc"], credentials)
        self.refunds = refund_pb2_grpc.RefundServiceStub(self.channel)
        self.customers = customer_pb2_grpc.CustomerServiceStub(self.channel)
        self.balance = balance_pb2_grpc.BalanceServiceStub(self.channel)
        self.payment, self.small = place.pay(5_000_000), place.pay(100)
        self.number = 0

    def begin(self, method, request, token=SHOP, seconds=CALL_SECONDS_MAX):
        """Begins a call."""
        return method.future(request, metadata=[("authorization", f"Bearer {token}")], timeout=seconds)

    def call(self, method, request, code=grpc.StatusCode.OK, **options):
        """Makes a call, which has to end with a status; `None` stands for any."""
        call = self.begin(method, request, **options)
        told = call.code()
        assert code in (None, told), f"{told} instead of {code}: {call.details()}"
        return call.result() if told == grpc.StatusCode.OK else None

    def operation(self):
        """A reference that was not used before."""
        self.number += 1
        return common_pb2.OperationRef(order_id=f"order-{self.number}")

    def refund(self, amount=10):
        return refund_pb2.CreateRefundRequest(operation=self.operation(), payment_intent=self.payment, amount=amount)

    def customer(self):
        return customer_pb2.CreateCustomerRequest(operation=self.operation(), description="of the judge")

    def flood(self, method, request, count=FLOOD, **options):
        """Makes many calls at once, however they end."""
        calls = [self.begin(method, request() if callable(request) else request, **options) for _ in range(count)]
        return [call.code() for call in calls]


def calls_of_every_kind(callers):
    """What a quiet day has."""
    code = grpc.StatusCode
    subscription = subscription_pb2.CreateSubscriptionRequest(name="orders", earliest=True)
    callers.call(subscription_pb2_grpc.SubscriptionServiceStub(callers.channel).CreateSubscription, subscription)
    metadata = [("authorization", f"Bearer {SHOP}")]
    events = event_pb2_grpc.EventServiceStub(callers.channel)
    callers.stream = events.Subscribe(event_pb2.SubscribeRequest(earliest=True), metadata=metadata)
    next(callers.stream)
    for _ in range(5):
        refund, customer = callers.refund(), callers.customer()
        callers.call(callers.refunds.CreateRefund, refund)
        callers.call(callers.refunds.CreateRefund, refund)
        made = callers.call(callers.customers.CreateCustomer, customer).customer.id
        shown = callers.flood(callers.customers.GetCustomer, customer_pb2.GetCustomerRequest(id=made), count=8)
        assert set(shown) == {code.OK}, shown
        missing = customer_pb2.GetCustomerRequest(id="cus_missing")
        callers.call(callers.customers.GetCustomer, missing, code.NOT_FOUND)
        much = refund_pb2.CreateRefundRequest(operation=callers.operation(), payment_intent=callers.small, amount=500)
        for _ in range(2):
            assert callers.begin(callers.refunds.CreateRefund, much).code() != code.OK
        callers.call(callers.refunds.CreateRefund, callers.refund(-1), code.INVALID_ARGUMENT)
        callers.call(callers.refunds.CreateRefund, callers.refund(), code.PERMISSION_DENIED, token=CLERK)
        callers.call(callers.refunds.CreateRefund, callers.refund(), code.UNAUTHENTICATED, token="nobody")
        assert callers.begin(callers.refunds.CreateRefund, callers.refund(200_000)).code() != code.OK
        time.sleep(0.6)


def trouble_of_every_kind(callers):
    """What a bad day has."""
    place, code = callers.place, grpc.StatusCode
    # Webhooks that get lost, webhooks that nobody signed, and a peer that does not speak TLS.
    place.fault("webhook_drop", None, "/customer", times=2)
    for _ in range(3):
        callers.call(callers.customers.CreateCustomer, callers.customer())
        with contextlib.suppress(urllib.error.HTTPError):
            ask(f"http://{place.at['webhook']}/webhooks/stripe", {"id": "evt_of_nobody"})
        with socket.create_connection(place.at["grpc"].split(":")) as wrong:
            wrong.sendall(b"GET / HTTP/1.1\r\n\r\n")
            wrong.recv(100)
        # A rate needs a first time and a second one that Prometheus can tell apart.
        time.sleep(2.5)
    # A key that Stripe refuses, answers that get lost, and a Stripe that fails at every second request.
    place.fault("status", "GET", "/v1/balance", status=401, times=3)
    callers.flood(callers.balance.GetBalance, balance_pb2.GetBalanceRequest(), count=2)
    place.fault("drop_after", "POST", "/v1/refunds")
    lost = [callers.refund() for _ in range(4)]
    for call in [callers.begin(callers.refunds.CreateRefund, refund, seconds=1) for refund in lost]:
        assert call.code() != code.OK
    place.mend()
    place.fault("status", None, "/v1/customers", status=500, probability=0.5)
    callers.flood(callers.customers.CreateCustomer, callers.customer, count=60, seconds=3)
    place.mend()
    # Two crowds, one at an account's limit and one beyond what the gateway lets in, and nothing that answers.
    place.fault("latency", "GET", "/v1/customers", ms=300)
    missing = customer_pb2.GetCustomerRequest(id="cus_missing")
    names = iter(range(10 * FLOOD))
    callers.flood(callers.customers.GetCustomer, lambda: customer_pb2.GetCustomerRequest(id=f"cus_{next(names)}"), seconds=2)
    callers.flood(callers.balance.GetBalance, balance_pb2.GetBalanceRequest(), count=2 * FLOOD, seconds=2)
    place.mend()
    place.fault("reset", None, "/")
    for _ in range(10):
        callers.flood(callers.customers.GetCustomer, missing, count=10, seconds=1)
    place.mend()
    # What was lost is found out by its callers' resends.
    end = time.monotonic() + SECONDS_MAX
    for refund in lost:
        while callers.begin(callers.refunds.CreateRefund, refund).code() != code.OK:
            assert time.monotonic() < end, "a lost refund is not found out"
            time.sleep(0.5)


def what_operators_do(callers):
    """A look for events that no webhook brought, a freeze, and settings that cannot be taken."""
    span = feed_pb2.BackfillRequest()
    getattr(span, "from").FromSeconds(int(callers.place.begun))
    backfill = callers.begin(feed_pb2_grpc.FeedServiceStub(callers.channel).Backfill, span)
    end = time.monotonic() + SECONDS_MAX
    # The breaker may still leave Stripe alone.
    while backfill.code() == grpc.StatusCode.UNAVAILABLE and time.monotonic() < end:
        time.sleep(0.5)
        backfill = callers.begin(feed_pb2_grpc.FeedServiceStub(callers.channel).Backfill, span)
    assert backfill.code() == grpc.StatusCode.OK, backfill.details()
    assert backfill.result().added > 0
    freeze = admin_pb2.FreezeWritesRequest(caller="clerk", reason="the judge says so")
    callers.call(admin_pb2_grpc.AdminServiceStub(callers.channel).FreezeWrites, freeze)
    callers.place.write("tollgate.toml", callers.place.config + "[nonsense]\nkey = 1\n")
    callers.place.gateway.send_signal(signal.SIGHUP)
    time.sleep(5)


def panels():
    """Title and expressions of every panel of the dashboard that Grafana loads."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "tollgate.json").read_text())
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            for target in panel["targets"]:
                yield panel["title"], target["expr"].replace("$__rate_interval", RATE_INTERVAL)


def without_threshold(expr):
    """The parts of an alert's expression that say something about the gateway."""
    for part in re.split(r"\s+and\s+", expr):
        told = re.sub(r"\s*[<>]\s*[0-9.]+$", "", part)
        assert told != part, f"no threshold: {part}"
        yield told


def the_dashboard_is_what_its_source_says():
    subprocess.run([judge.ROOT / "scripts" / "dashboard", "--check"], check=True)


def the_rules_are_right_and_fire_when_they_should():
    rules = DEPLOY / "prometheus"
    subprocess.run(["promtool", "check", "config", rules / "prometheus.yml"], check=True)
    subprocess.run(["promtool", "test", "rules", rules / "alerts_test.yml"], check=True)


def every_panel_shows_what_happened(place):
    silent, flat = [], []
    for title, expr in panels():
        series = place.query(expr)
        if not series:
            silent.append(f"{title}: {expr}")
        elif not any(value > 0 for values in series for value in values) and not any(map(expr.count, NOT_MADE)):
            flat.append(f"{title}: {expr}")
    assert not silent and not flat, "without data:\n{}\nnever above nought:\n{}".format(
        "\n".join(silent), "\n".join(flat)
    )


def every_alert_looks_at_data_and_has_its_page(place):
    rules = ask(f"{place.prometheus}/api/v1/rules")["data"]["groups"][0]["rules"]
    assert 8 <= len(rules) <= 10, len(rules)
    told = [f"{rule['name']}: {part}" for rule in rules for part in without_threshold(rule["query"]) if not place.query(part)]
    assert not told, "without data:\n{}".format("\n".join(told))
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    pages = {rule["annotations"]["runbook"]: rule["name"] for rule in rules}
    assert set(pages) == {str(page.relative_to(judge.ROOT)) for page in RUNBOOKS.glob("*.md")} - {"docs/runbooks/README.md"}
    for page, name in pages.items():
        assert (judge.ROOT / page).read_text().startswith(f"# {name}\n"), page


if __name__ == "__main__":
    count = judge.Count()
    count.run(the_dashboard_is_what_its_source_says)
    count.run(the_rules_are_right_and_fire_when_they_should)
    with tempfile.TemporaryDirectory() as folder:
        place = Place(folder)
        with place.running():
            callers = Callers(place)
            for check in (calls_of_every_kind, trouble_of_every_kind, what_operators_do):
                count.run(check, callers)
            count.run(every_panel_shows_what_happened, place)
            count.run(every_alert_looks_at_data_and_has_its_page, place)
    count.end()
