"""What the judges share: a gateway to judge, stubs made from the contract, and a count of what held."""

import contextlib
import json
import pathlib
import select
import socket
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "target" / "debug" / "tollgate"
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
WAIT_SECONDS_MAX = 60


@contextlib.contextmanager
def running(command, log, **options):
    """A process that is told to stop at the end, and killed where it does not."""
    process = subprocess.Popen(command, stderr=log, text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def dev():
    """`tollgate dev` on free ports with a folder of its own; yields what its ready line says."""
    with tempfile.TemporaryDirectory() as data, open(pathlib.Path(data) / "log", "w+") as log:
        command = [PROGRAM, "dev", "--ports", "random", "--json-ready", "--data", f"{data}/state"]
        with running(command, log, stdout=subprocess.PIPE) as process:
            readable, _, _ = select.select([process.stdout], [], [], START_SECONDS_MAX)
            line = process.stdout.readline() if readable else ""
            if not line:
                log.seek(0)
                raise RuntimeError(f"`tollgate dev` does not get ready:\n{log.read()}")
            yield json.loads(line)


def until(look, what):
    """Looks again and again until there is something, and returns it."""
    end = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"no {what} after {WAIT_SECONDS_MAX} s")


def free_addresses(count):
    """Addresses of this machine that nothing listens on."""
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return ["{}:{}".format(*listener.getsockname()) for listener in listeners]


def address(text):
    """`host:port` of an address that may be written as a URL."""
    return text.split("://")[-1].rstrip("/")


def url(text):
    """The address as a URL."""
    return f"http://{address(text)}"


def stubs():
    """Generates the Python stubs of the whole contract and puts them on the path, as any user would."""
    from grpc_tools import protoc
    import grpc_tools

    folder = ROOT / ".cache" / "stubs"
    folder.mkdir(parents=True, exist_ok=True)
    builtin = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    files = [str(path) for path in sorted((ROOT / "proto").rglob("*.proto"))]
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"-I{builtin}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(arguments + files) != 0:
        raise RuntimeError("the contract does not compile for Python")
    sys.path.insert(0, str(folder))


class Count:
    """Runs checks one after the other; the last line has the form that cargo prints."""

    def __init__(self):
        self.passed = self.failed = 0

    def run(self, check, *arguments):
        """Runs one check and returns what it returns; a failure is told and counted, and does not end the run."""
        name = check.__name__
        try:
            result = check(*arguments)
        except Exception:
            self.failed += 1
            print(f"test {name} ... FAILED")
            traceback.print_exc(file=sys.stdout)
            return None
        self.passed += 1
        print(f"test {name} ... ok", flush=True)
        return result

    def end(self):
        """Prints the count and leaves the program by it."""
        word = "FAILED" if self.failed else "ok"
        print(f"test result: {word}. {self.passed} passed; {self.failed} failed;", flush=True)
        sys.exit(1 if self.failed or not self.passed else 0)
