"""A real Prometheus scrapes a gateway that gets every kind of call and meets every kind of trouble, by the very files of
`deploy/`. What is made to go wrong has to show on the panels that are there for it, and in the end every query of the dashboard
and of the alerts has to return data.
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
# For how long something is made to happen until the dashboard shows it.
SHOWN_SECONDS_MAX = 60
# A scrape a second, and time for it.
SCRAPED_SECONDS = 1.2
# What Grafana puts in for `$__rate_interval`, which is at least four scrapes.
RATE_INTERVAL = "10s"
# What ends a call while there is no room for it, while Stripe is left alone, or while the same is under way.
PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
}

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
[traffic]
requests_per_s = 25
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


def ask(url, body=None, headers=None):
    """The answer to a request, as JSON where it is that."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers or {})
    with urllib.request.urlopen(request, timeout=SECONDS_MAX) as answer:
        text = answer.read().decode()
    return json.loads(text) if text[:1] in "[{" else text


def answers(url):
    """What a URL answers with, if it does."""
    with contextlib.suppress(OSError):
        return ask(url)
    return None


class Place:
    """Sandbox, gateway and Prometheus on free ports of this machine, with their files in one folder."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        names = ["grpc", "webhook", "ops", "sandbox", "prometheus"]
        self.at = dict(zip(names, judge.free_addresses(len(names)), strict=True))
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
                    judge.until(lambda ready=ready: answers(ready), f"answer of {ready}")
                self.gateway = processes[1]
                # What counts before the first scrape is no increase to Prometheus.
                self.begun = time.time()
                judge.until(lambda: self.query("up > 0"), "scrape of the gateway")
                yield
            except BaseException:
                log.seek(0)
                print(log.read()[-4000:])
                raise

    @contextlib.contextmanager
    def fault(self, kind, method, path, **settings):
        """Has the sandbox go wrong meanwhile."""
        faults = f"{self.stripe}/_sandbox/faults"
        ask(faults, {"match": {"method": method, "path_prefix": path}, "kind": kind, **settings})
        try:
            yield
        finally:
            request = urllib.request.Request(faults, method="DELETE")
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

    def begin_stream(self, method, request):
        """Begins a stream."""
        return method(request, metadata=[("authorization", f"Bearer {SHOP}")], timeout=SHOWN_SECONDS_MAX)

    def call(self, method, request, code=grpc.StatusCode.OK, **options):
        """Makes a call, which has to end with a status; again and again where something else is in its way for a while."""
        end = time.monotonic() + SECONDS_MAX
        while (call := self.begin(method, request, **options)).code() != code:
            is_passing = call.code() in PASSING and time.monotonic() < end
            assert is_passing, f"{call.code()} instead of {code}: {call.details()}"
            time.sleep(0.1)
        return call.result() if code == grpc.StatusCode.OK else None

    def operation(self):
        """A reference that was not used before."""
        self.number += 1
        return common_pb2.OperationRef(order_id=f"order-{self.number}")

    def refund(self, amount=10):
        return refund_pb2.CreateRefundRequest(operation=self.operation(), payment_intent=self.payment, amount=amount)

    def customer(self):
        return customer_pb2.CreateCustomerRequest(operation=self.operation(), description="of the judge")

    def nobody(self):
        """The read of a customer whom nobody has asked for."""
        self.number += 1
        return customer_pb2.GetCustomerRequest(id=f"cus_missing{self.number}")

    def flood(self, method, request, count, **options):
        """Makes many calls at once, however they end; `request` is one for all or makes one for each."""
        calls = [self.begin(method, request() if callable(request) else request, **options) for _ in range(count)]
        return [call.code() for call in calls]


BALANCE = balance_pb2.GetBalanceRequest()


def shown(act, callers, *titles):
    """Does something again and again until the panels that are there for it show it: Prometheus sees no increase in the
    first count of a series, and how soon a machine gets things done nobody knows."""
    known = {title for title, _ in panels()}
    assert known.issuperset(titles), set(titles) - known
    began, times = time.monotonic(), 0
    while True:
        act(callers)
        time.sleep(SCRAPED_SECONDS)
        times, took = times + 1, time.monotonic() - began
        told = list(lacks(callers.place, titles or known))
        if not told:
            return print(f"{act.__name__}: shown after {times} times, {took:.1f} s")
        assert took < SHOWN_SECONDS_MAX, f"{act.__name__}: not shown after {times} times, {took:.1f} s:\n" + "\n".join(told)


def orders(callers):
    """Changes, some of them sent again, and reads."""
    refund, customer = callers.refund(), callers.customer()
    for _ in range(2):
        callers.call(callers.refunds.CreateRefund, refund)
    made = callers.call(callers.customers.CreateCustomer, customer).customer.id
    callers.call(callers.customers.GetCustomer, customer_pb2.GetCustomerRequest(id=made))
    callers.call(callers.customers.GetCustomer, callers.nobody(), grpc.StatusCode.NOT_FOUND)
    much = refund_pb2.CreateRefundRequest(operation=callers.operation(), payment_intent=callers.small, amount=500)
    for _ in range(2):
        callers.call(callers.refunds.CreateRefund, much, grpc.StatusCode.FAILED_PRECONDITION)


def mistakes(callers):
    """Calls that are their callers' fault."""
    code = grpc.StatusCode
    callers.call(callers.refunds.CreateRefund, callers.refund(-1), code.INVALID_ARGUMENT)
    callers.call(callers.refunds.CreateRefund, callers.refund(), code.PERMISSION_DENIED, token=CLERK)
    callers.call(callers.refunds.CreateRefund, callers.refund(), code.UNAUTHENTICATED, token="nobody")
    callers.call(callers.refunds.CreateRefund, callers.refund(200_000), code.RESOURCE_EXHAUSTED)


def strangers(callers):
    """Webhooks that nobody signed, and a peer that does not speak TLS."""
    with contextlib.suppress(urllib.error.HTTPError):
        ask(f"http://{callers.place.at['webhook']}/webhooks/stripe", {"id": "evt_of_nobody"})
    with socket.create_connection(callers.place.at["grpc"].split(":"), SECONDS_MAX) as wrong:
        wrong.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            wrong.recv(100)


def a_key_that_stripe_refuses(callers):
    with callers.place.fault("status", "GET", "/v1/balance", status=401):
        callers.flood(callers.balance.GetBalance, BALANCE, count=2)


def answers_that_get_lost(callers):
    """Their outcomes are found out by their callers' resends."""
    callers.call(callers.balance.GetBalance, BALANCE)
    lost = [callers.refund() for _ in range(4)]
    with callers.place.fault("drop_after", "POST", "/v1/refunds"):
        for call in [callers.begin(callers.refunds.CreateRefund, refund, seconds=1) for refund in lost]:
            assert call.code() != grpc.StatusCode.OK
    for refund in lost:
        resend = lambda refund=refund: callers.begin(callers.refunds.CreateRefund, refund).code()  # noqa: E731
        judge.until(lambda resend=resend: resend() == grpc.StatusCode.OK, "end of a lost refund")


def a_stripe_that_fails(callers):
    """At every second request."""
    callers.call(callers.balance.GetBalance, BALANCE)
    with callers.place.fault("status", None, "/v1/customers", status=500, probability=0.5):
        callers.flood(callers.customers.CreateCustomer, callers.customer, count=60, seconds=3)


def requests_that_are_to_be_repeated(callers):
    """More of them than the budget for repetitions has. They are answers, so the breaker stays closed."""
    callers.call(callers.balance.GetBalance, BALANCE)
    with callers.place.fault("status", "GET", "/v1/customers", status=400, should_retry=True):
        callers.flood(callers.customers.GetCustomer, callers.nobody, count=20, seconds=3)


def a_crowd_before_stripe(callers):
    """More requests than an account may get before their deadlines."""
    callers.call(callers.balance.GetBalance, BALANCE)
    with callers.place.fault("latency", "GET", "/v1/customers", ms=300):
        callers.flood(callers.customers.GetCustomer, callers.nobody, count=200, seconds=2)


def a_crowd_at_the_door(callers):
    """More calls at once than one caller may have, all of which one slow request answers."""
    callers.call(callers.balance.GetBalance, BALANCE)
    with callers.place.fault("latency", "GET", "/v1/balance", ms=1500):
        callers.flood(callers.balance.GetBalance, BALANCE, count=400)


def a_stripe_that_is_gone(callers):
    """Each request is one of its own, as a shared one is one failure."""
    with callers.place.fault("reset", None, "/"):
        for _ in range(3):
            callers.flood(callers.customers.GetCustomer, callers.nobody, count=10, seconds=1)
            time.sleep(0.5)


def events_that_only_stripe_tells_of(callers):
    """Webhooks that get lost, and a look at Stripe's own list."""
    span = feed_pb2.BackfillRequest()
    getattr(span, "from").FromSeconds(int(callers.place.begun))
    backfill = feed_pb2_grpc.FeedServiceStub(callers.channel).Backfill
    with callers.place.fault("webhook_drop", None, "/customer"):
        callers.call(callers.customers.CreateCustomer, callers.customer())
        assert callers.call(backfill, span, seconds=SECONDS_MAX).added > 0


def a_freeze(callers):
    freeze = admin_pb2.FreezeWritesRequest(caller="clerk", reason="the judge says so")
    callers.call(admin_pb2_grpc.AdminServiceStub(callers.channel).FreezeWrites, freeze)


def settings_that_cannot_be_taken(callers):
    callers.place.write("tollgate.toml", callers.place.config + "[nonsense]\nkey = 1\n")
    callers.place.gateway.send_signal(signal.SIGHUP)


def nothing_more(_callers):
    pass


def calls_of_every_kind(callers):
    """What a quiet day has."""
    subscription = subscription_pb2.CreateSubscriptionRequest(name="orders", earliest=True)
    callers.call(subscription_pb2_grpc.SubscriptionServiceStub(callers.channel).CreateSubscription, subscription)
    events = event_pb2_grpc.EventServiceStub(callers.channel)
    stream = callers.begin_stream(events.Subscribe, event_pb2.SubscribeRequest(earliest=True))
    next(stream)
    moments = ["Calls by status", "Durations", "Slowest methods", "Where a change spends its time", "Latency by endpoint"]
    records = ["Replays", "Budgets", "Audit records", "Not signed", "Time to make records durable"]
    feed = ["Webhook deliveries", "Age of webhooks", "Lag by subscription", "Backlog by subscription", "Open streams"]
    shown(orders, callers, *moments, *records, *feed)
    stream.cancel()
    shown(mistakes, callers, "Failed calls by whose fault it was", "Failed calls by reason", "Denied calls", "Refused by budgets")


def trouble_of_every_kind(callers):
    """What a bad day has."""
    shown(strangers, callers, "Webhook deliveries", "Connections refused or cut")
    shown(answers_that_get_lost, callers, "Unknown outcomes", "Not settled")
    shown(a_stripe_that_fails, callers, "Failed", "Requests by answer")
    shown(requests_that_are_to_be_repeated, callers, "Repeated attempts", "Retry budget")
    shown(a_crowd_before_stripe, callers, "Queue", "Wait in the queue", "Refused by the queue", "Limit and use")
    shown(a_crowd_at_the_door, callers, "Places at the door", "Refused at the door")
    # The crowd's reads were shared.
    shown(a_key_that_stripe_refuses, callers, "Keys")
    shown(a_stripe_that_is_gone, callers, "Circuit breaker", "Stripe suspended")


def what_operators_do(callers):
    """A look for events that no webhook brought, a freeze, and settings that cannot be taken."""
    shown(events_that_only_stripe_tells_of, callers, "Events appended", "Compared with Stripe's list")
    shown(a_freeze, callers, "Frozen")
    shown(settings_that_cannot_be_taken, callers, "Settings refused")


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


def lacks(place, titles):
    """What panels of these titles do not show."""
    for title, expr in panels():
        if title in titles:
            series = place.query(expr)
            if not series:
                yield f"{title} has no data: {expr}"
            elif not any(value > 0 for values in series for value in values) and not any(map(expr.count, NOT_MADE)):
                yield f"{title} is never above nought: {expr}"


def every_panel_shows_what_happened(callers):
    shown(nothing_more, callers)


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
            count.run(every_panel_shows_what_happened, callers)
            count.run(every_alert_looks_at_data_and_has_its_page, place)
    count.end()
