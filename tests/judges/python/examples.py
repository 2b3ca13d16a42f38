"""The consumers of `examples/`, built by the commands of its README, against `tollgate dev`: each is killed in the middle and
started again, and its connection is cut. Every event is handled; none comes again that was acknowledged.
"""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import grpc

import judge

EXAMPLES = judge.ROOT / "examples"
EVENTS = 60
OBJECTS = 10
SOME = 20
SECONDS_MAX = 120
# Longer than a line that is on its way takes to arrive.
QUIET_SECONDS = 3


class Relay:
    """Carries connections to the gateway; can be told to hold back what the consumer says, and to cut them."""

    def __init__(self, target):
        self.target = target
        self.sockets = []
        self.passes = threading.Event()
        self.passes.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self.listener.getsockname())
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        host, port = self.target.split(":")
        while True:
            client, _ = self.listener.accept()
            gateway = socket.create_connection((host, int(port)))
            self.sockets += [client, gateway]
            for source, sink in ((client, gateway), (gateway, client)):
                threading.Thread(target=self.carry, args=(source, sink, source is client), daemon=True).start()

    def carry(self, source, sink, upward):
        try:
            while data := source.recv(65536):
                if upward:
                    self.passes.wait()
                sink.sendall(data)
        except OSError:
            pass
        self.end(source, sink)

    @staticmethod
    def end(*sockets):
        for one in sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        self.end(*self.sockets)
        self.sockets.clear()
        self.passes.set()


class Consumer:
    """One run of a consumer; its output is read as it comes."""

    def __init__(self, language, address, token, name):
        command = commands(language)[-1].replace("orders", name).replace("'charge.*'", "")
        environment = os.environ | {"TOLLGATE_ADDRESS": address, "TOLLGATE_TOKEN": token, "PATH": path()}
        # Without a shell, so that the process that is killed is the consumer.
        words = shlex.split(command)
        while "=" in words[0]:
            key, value = words.pop(0).split("=", 1)
            environment[key] = value
        self.process = subprocess.Popen(
            words, cwd=EXAMPLES / language, env=environment, stdout=subprocess.PIPE, text=True
        )
        self.lines = []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.split()[:2])
                self.changed.notify_all()

    def ids(self, word):
        return [line[1] for line in self.lines if line[0] == word]

    def wait(self, what, found):
        with self.changed:
            held = self.changed.wait_for(lambda: found() or self.process.poll() is not None, SECONDS_MAX)
            assert held and found(), f"no {what} after {len(self.lines)} lines; exit code {self.process.poll()}"

    def wait_until_quiet(self):
        count = -1
        while count != len(self.lines):
            count = len(self.lines)
            time.sleep(QUIET_SECONDS)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.reader.join()


def path():
    """The tools that the READMEs name, as scripts/tools has put them."""
    folders = [judge.ROOT / ".cache/python/bin", judge.ROOT / "tests/judges/node/node_modules/.bin"]
    return os.pathsep.join([*map(str, folders), os.environ["PATH"]])


def commands(language):
    """The lines of the README's block for the language."""
    sections = re.split(r"^### ", (EXAMPLES / "README.md").read_text(), flags=re.M)
    section = next(section for section in sections if section.lower().startswith(language))
    return re.search(r"```sh\n(.*?)```", section, re.S)[1].splitlines()


def build(language):
    """Runs all but the last command, which starts the consumer."""
    *before, _ = commands(language)
    for line in before:
        subprocess.run(
            ["bash", "-euc", line], cwd=EXAMPLES / language, env=os.environ | {"PATH": path()}, check=True
        )


def burst(ready):
    """Makes events; their ids."""
    request = urllib.request.Request(
        f"{judge.url(ready['stripe'])}/_sandbox/events",
        json.dumps({"count": EVENTS, "objects": OBJECTS}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return set(json.load(answer)["events"])


def status(ready, name):
    """How the gateway says that the subscription is doing."""
    from tollgate.v1 import subscription_pb2, subscription_pb2_grpc

    with grpc.insecure_channel(judge.address(ready["grpc"])) as channel:
        stub = subscription_pb2_grpc.SubscriptionServiceStub(channel)
        request = subscription_pb2.GetSubscriptionRequest(name=name)
        answer = stub.GetSubscription(
            request, metadata=[("authorization", f"Bearer {ready['token']}")], timeout=SECONDS_MAX
        )
        return answer.subscription.status


def killed_and_started_again_it_loses_nothing_and_repeats_nothing_acknowledged(language, ready):
    name = f"of-{language}"
    relay = Relay(judge.address(ready["grpc"]))
    made, runs = set(), []

    def start():
        made.update(burst(ready))
        runs.append(Consumer(language, relay.address, ready["token"], name))
        return runs[-1]

    try:
        # Killed with work done whose acknowledgement the gateway has not got.
        first = start()
        first.wait("acknowledgement", lambda: len(first.ids("acknowledged")) >= SOME)
        relay.passes.clear()
        made.update(burst(ready))
        first.wait_until_quiet()
        word, unheard = first.lines[-1]
        assert word == "handled", first.lines[-3:]
        first.kill()
        relay.cut()

        # Killed wherever it is.
        second = start()
        second.wait("event", lambda: len(second.ids("handled")) >= SOME)
        second.kill()

        # Its connection breaks, and then it is let finish.
        third = start()
        third.wait("event", lambda: len(third.ids("handled")) >= SOME)
        relay.cut()
        made.update(burst(ready))
        third.wait("end", lambda: made <= {id for run in runs for id in run.ids("handled")})
        third.wait_until_quiet()
        again = second.ids("handled") + third.ids("handled")
        assert unheard in again, f"{unheard} was not acknowledged and did not come again"
    finally:
        for run in runs:
            run.kill()

    lines = [line for run in runs for line in run.lines]
    acknowledged = set()
    for word, id in lines:
        assert word == "acknowledged" or id not in acknowledged, f"{id} came again after it was acknowledged"
        if word == "acknowledged":
            acknowledged.add(id)
    end = status(ready, name)
    assert end.lag_events == 0 and end.in_flight == 0 and end.parked == 0, end


def python_consumer(ready):
    killed_and_started_again_it_loses_nothing_and_repeats_nothing_acknowledged("python", ready)


def go_consumer(ready):
    killed_and_started_again_it_loses_nothing_and_repeats_nothing_acknowledged("go", ready)


def python_stubs_by_one_command():
    build("python")
    sys.path.insert(0, str(EXAMPLES / "python" / "stubs"))


def go_stubs_by_one_command():
    build("go")


if __name__ == "__main__":
    count = judge.Count()
    count.run(python_stubs_by_one_command)
    count.run(go_stubs_by_one_command)
    with judge.dev() as ready:
        count.run(python_consumer, ready)
        count.run(go_consumer, ready)
    count.end()
