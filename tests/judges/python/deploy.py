"""The files that the gateway is shipped and run by: each is held against the schema or the tool of its kind, and what it
starts is started from that same file, on free ports and with folders of its own.
"""

import contextlib
import fnmatch
import json
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import time
import tomllib
import urllib.request

import kubernetes_validate
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import judge

BIN = judge.ROOT / ".cache" / "python" / "bin"
COMPOSE = judge.ROOT / "docker-compose.yml"
UNIT = judge.ROOT / "deploy" / "systemd" / "tollgate.service"
KUBERNETES = judge.ROOT / "deploy" / "kubernetes"
OPERATIONS = judge.ROOT / "docs" / "operations.md"
# Where the image and the unit have the program.
INSTALLED = "/usr/local/bin/tollgate"
POLICY = "/etc/tollgate/policy.cedar"
# Nobody has to hear that a gateway of these checks goes.
HURRIED = {"TOLLGATE_LISTEN_LAME_DUCK_S": "0"}
PORTS = (7400, 7401, 7402, 7403)
KUBERNETES_VERSION = "1.33"
# Stands in for whoever issues the certificate of the gateway.
CERTIFY = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=tollgate"
    " -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE -keyout tls.key -out tls.crt"
)
# Of 10; systemd calls 2.0 and less safe.
EXPOSURE_MAX = 2.0
# What the gateway needs to stop beside the two times that are set: to write what is left and to send the last spans.
LAST_WORDS_SECONDS_MAX = 15
# What SQLite calls as root alone, to give its files to the owner of the database.
AS_ROOT = {"fchown"}
# Before this version of systemd a unit cannot be of the type.
NOTIFY_RELOAD_SINCE = 253
COMMAND_SECONDS_MAX = 60


def run(*command, **options):
    """What a command prints on standard output; its failure is one of the check."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, **options)
    assert done.returncode == 0, f"{shlex.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def answers(url):
    """The body of a page, if there is one."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()
    return None


class Place:
    """A folder and free ports in place of those that the files name."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
        self.ports = {port: free.getsockname()[1] for port, free in zip(PORTS, sockets, strict=True)}
        for free in sockets:
            free.close()

    def moved(self, text, folders=None):
        """The text with this place's ports, the program that was built, and other folders in place of some paths."""
        paths = {INSTALLED: judge.PROGRAM} | (folders or {})
        longest_first = sorted(paths, key=len, reverse=True)
        text = re.sub("|".join(longest_first), lambda path: str(paths[path[0]]), text)
        ports = "|".join(map(str, PORTS))
        return re.sub(rf"\b(?:0\.0\.0\.0|127\.0\.0\.1):({ports})\b", lambda at: f"127.0.0.1:{self.ports[int(at[1])]}", text)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def url(self, port, path=""):
        return f"http://127.0.0.1:{self.ports[port]}{path}"

    @contextlib.contextmanager
    def process(self, command, environment):
        """A command that runs meanwhile, and ends well when it is told to."""
        log = self.folder / f"log-{time.monotonic_ns()}"
        with open(log, "w") as output:
            process = subprocess.Popen(
                command,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder)} | environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield process
            process.terminate()
            code = process.wait(judge.STOP_SECONDS_MAX)
        except BaseException:
            print(log.read_text())
            # What it started itself goes too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        assert code == 0, f"{shlex.join(command)} ended with {code}:\n{log.read_text()}"


def program(name, *arguments, environment):
    """A command of Tollgate's own with an environment of its own."""
    return run(judge.PROGRAM, name, *arguments, env={"PATH": os.environ["PATH"]} | environment)


# Compose


def compose():
    return yaml.safe_load(COMPOSE.read_text())


def the_compose_file_has_the_form_that_compose_reads():
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)
    composed = compose()
    names, volumes = set(composed["services"]), set(composed["volumes"])
    for name, service in composed["services"].items():
        assert set(service.get("depends_on", ())) <= names, name
        assert service.get("network_mode", "none").removeprefix("service:") in names | {"none"}, name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            found = (judge.ROOT / source).exists() if source.startswith("./") else source in volumes
            assert found, f"{name} mounts {source}, which is not there"


def services_of_compose_are_hardened_and_pinned():
    for name, service in compose()["services"].items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        tag = service["image"].partition(":")[2]
        assert tag and tag != "latest", f"{name} has an image of no version"
        is_offline = service.get("network_mode") == "none" and service["cap_add"] == ["CHOWN"]
        assert is_offline or not service["user"].startswith("0"), f"{name} runs as root"
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network by {port}"


@contextlib.contextmanager
def composed(place):
    """Sandbox and gateway by the commands, environments and mounted files of the compose file; gives the environment of the
    gateway, whose health check has succeeded."""
    services = compose()["services"]
    tls, data = place.folder / "tls", place.folder / "data"
    tls.mkdir(exist_ok=True)
    certificate = services["certificate"]
    run(*certificate["entrypoint"], place.moved(*certificate["command"], {"/tls": tls}))
    mounted = dict(volume.split(":")[1::-1] for volume in services["gateway"]["volumes"])
    folders = {"/tls": tls, POLICY: judge.ROOT / mounted[POLICY]}
    environment = {name: place.moved(value, folders) for name, value in services["gateway"]["environment"].items()}
    environment |= {"TOLLGATE_DATA": str(data), "TOLLGATE_OTLP_ENDPOINT": "http://127.0.0.1:4317"} | HURRIED

    def is_well(service):
        test = [place.moved(word) for word in services[service]["healthcheck"]["test"]]
        assert test[0] == "CMD", test
        asked = subprocess.run(test[1:], env=environment, capture_output=True, timeout=COMMAND_SECONDS_MAX)
        return asked.returncode == 0

    sandbox = [str(judge.PROGRAM), *map(place.moved, services["sandbox"]["command"])]
    with place.process(sandbox, {}):
        judge.until(lambda: is_well("sandbox"), "sandbox that is healthy")
        with place.process([str(judge.PROGRAM), *services["gateway"]["command"]], environment):
            judge.until(lambda: is_well("gateway"), "gateway that is healthy")
            yield environment


def what_compose_starts_serves(place):
    # As it stands: TLS and callers, without which nothing is served beyond the loopback address.
    services = compose()["services"]
    program("serve", "--check", environment=services["gateway"]["environment"])
    commands = [line[4:] for line in COMPOSE.read_text().splitlines() if line.startswith("#   tollgate ")]
    with composed(place) as environment:
        client = environment | {"TOLLGATE_TOKEN": environment["TOLLGATE_CALLER_TOKEN"]}
        client["TOLLGATE_ADDRESS"] = client["TOLLGATE_ADDRESS"].replace("127.0.0.1", "localhost")
        health, tail, trigger = map(shlex.split, commands)
        run(judge.PROGRAM, *health[1:], env=client)
        run(judge.PROGRAM, *trigger[1:], "--sandbox", place.url(7403), env=client)
        event = run(judge.PROGRAM, *tail[1:], "--types", "refund.created", "--limit", "1", env=client)
        assert json.loads(event)["type"] == "refund.created", event
        assert "tollgate_events_appended_total" in answers(place.url(7402, "/metrics"))


# The image


def the_dockerfile_is_sound_and_copies_what_is_there():
    dockerfile = (judge.ROOT / "Dockerfile").read_text()
    run(BIN / "hadolint", judge.ROOT / "Dockerfile")
    channel = tomllib.loads((judge.ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    assert f"FROM rust:{channel}-" in dockerfile and f"RUSTUP_TOOLCHAIN={channel}\n" in dockerfile
    left_out = [line.removeprefix("**/").rstrip("/") for line in (judge.ROOT / ".dockerignore").read_text().split()]
    own = json.loads(run("cargo", "metadata", "--no-deps", "--format-version", "1", cwd=judge.ROOT))["packages"][0]
    needed = [pathlib.Path(target["src_path"]).relative_to(judge.ROOT) for target in own["targets"]]
    needed += [pathlib.Path(name) for name in ("Cargo.toml", "Cargo.lock", "build", "proto", "src/domain.rs")]
    for path in needed:
        assert (judge.ROOT / path).exists(), f"{path} is not there"
        hidden = [part for part in path.parts for pattern in left_out if fnmatch.fnmatch(part, pattern)]
        assert not hidden, f"{path} is not in the build's context"
    for source in re.findall(r"^COPY (?!--from)(\S+) ", dockerfile, re.M):
        assert (judge.ROOT / source).exists(), source
    assert re.search(r"^USER (?!0|root)", dockerfile, re.M)


# systemd


def unit():
    """The settings of the unit by name, each a list in the order of the file."""
    settings = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            name, value = line.split("=", 1)
            settings.setdefault(name, []).append(value)
    return settings


def systemd_takes_the_unit_and_calls_it_safe(place):
    version = int(run("systemd-analyze", "--version").split()[1])
    text = place.moved(UNIT.read_text())
    if version < NOTIFY_RELOAD_SINCE:
        text = text.replace("Type=notify-reload", "Type=notify")
    copy = place.write("unit/tollgate.service", text)
    verify = ["systemd-analyze", "verify", copy]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX)
    said = [line for line in done.stderr.splitlines() if "tollgate" in line]
    assert done.returncode == 0 and not said, done.stderr
    told = run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX * 10:.0f}", copy)
    exposure = float(re.search(r"exposure level for tollgate.service: ([\d.]+)", told)[1])
    assert exposure <= EXPOSURE_MAX, told


def calls_permitted():
    """The system calls that the unit leaves; systemd permits a few more."""
    sets, name = {}, None
    for line in run("systemd-analyze", "syscall-filter").splitlines():
        if line.startswith("@"):
            name = line.strip()
            sets[name] = []
        elif name and line.startswith("    ") and not line.strip().startswith("#"):
            sets[name].append(line.strip())

    def expanded(entry):
        return {call for inner in sets[entry] for call in expanded(inner)} if entry in sets else {entry}

    permitted = set()
    for line in unit()["SystemCallFilter"]:
        calls = set().union(*map(expanded, line.removeprefix("~").split()))
        permitted = permitted - calls if line.startswith("~") else permitted | calls
    return permitted | {"execve", "exit", "exit_group"}


def what_the_unit_starts_tells_systemd_and_keeps_to_the_permitted_calls(place):
    settings = unit()
    trace, credentials = place.folder / "trace", place.folder / "credentials"
    credentials.mkdir()
    token = "unit-token-of-16-bytes"
    secrets = {"stripe.key": "sk_test_unit", "webhook.secret": "whsec_unit", "callers.default.token": token}
    assert set(secrets) == set(settings["LoadCredentialEncrypted"])
    for name, secret in secrets.items():
        (credentials / name).write_text(secret)
    etc = place.folder / "etc"
    etc.mkdir()
    program("policy", "init", str(etc / "policy.cedar"), environment={})
    folders = {"/etc/tollgate": etc}
    (etc / "tollgate.toml").write_text(place.moved(UNIT.with_name("tollgate.toml").read_text(), folders))
    environment = dict(line.replace("%S", str(place.folder / "state")).split("=", 1) for line in settings["Environment"])
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(place.folder / "notify"))
    notify.settimeout(judge.WAIT_SECONDS_MAX)
    environment |= {"CREDENTIALS_DIRECTORY": str(credentials), "NOTIFY_SOCKET": str(place.folder / "notify")}
    environment |= {f"TOLLGATE_STRIPE_{kind}_BASE": place.url(7403) for kind in ("API", "FILES")}
    environment |= HURRIED
    environment["WATCHDOG_USEC"] = str(int(settings["WatchdogSec"][0]) * 1_000_000)

    def hears(word):
        while word not in notify.recv(4096).decode().splitlines():
            pass

    command = shlex.split(place.moved(settings["ExecStart"][0], folders))
    sandbox = [str(judge.PROGRAM), "sandbox", f"--listen=127.0.0.1:{place.ports[7403]}", "--key=sk_test_unit"]
    with place.process(sandbox, {}):
        judge.until(lambda: answers(place.url(7403, "/_sandbox/clock")), "sandbox")
        with place.process(["strace", "-f", "-qq", "-s", "0", "-o", str(trace), *command], environment) as strace:
            hears("READY=1")
            gateway = int(pathlib.Path(f"/proc/{strace.pid}/task/{strace.pid}/children").read_text())
            client = {"TOLLGATE_ADDRESS": f"127.0.0.1:{place.ports[7400]}", "TOLLGATE_TOKEN": token}
            request = json.dumps({"operation": {"order_id": "unit"}, "name": "Ada"})
            program("call", "CustomerService/CreateCustomer", "-d", request, environment=client)
            assert answers(place.url(7402, "/metrics"))
            os.kill(gateway, signal.SIGHUP)
            hears("RELOADING=1")
            hears("READY=1")
            os.kill(gateway, signal.SIGTERM)
            hears("STOPPING=1")
            strace.wait(judge.STOP_SECONDS_MAX)
    lines = trace.read_text().splitlines()
    made = {found[1] for line in lines if (found := re.match(r"\d+ +(?:<\.\.\. )?(\w+)[( ]", line))}
    assert len(made) > 30, made
    forbidden = made - calls_permitted() - AS_ROOT
    assert not forbidden, f"the unit forbids {sorted(forbidden)}"
    assert not [line for line in lines if "PROT_WRITE|PROT_EXEC" in line], "memory is written and executed"
    # What is opened for writing, below which the unit lets nothing else be written.
    opened = [re.search(r' openat\(\w+, "([^"]+)", \S*(?:O_WRONLY|O_RDWR|O_CREAT)', line) for line in lines]
    written = {found[1] for found in opened if found}
    state = environment["TOLLGATE_DATA"]
    assert any(path.startswith(state) for path in written), written
    assert all(path.startswith((state, "/dev/", "/proc/self/")) for path in written), written
    families = {found[1] for line in lines if (found := re.search(r" socket\((\w+)", line))}
    assert families and families <= set(settings["RestrictAddressFamilies"][0].split()), families


# Kubernetes


def manifests():
    """What `kubectl apply -k` sends, by kind and name, but for names and labels that kustomize adds."""
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    for generated in kustomization["configMapGenerator"]:
        data = {name: (KUBERNETES / name).read_text() for name in generated["files"]}
        yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generated["name"]}, "data": data}
    listed = set(kustomization["resources"])
    assert listed == {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}, listed
    for name in kustomization["resources"]:
        yield from yaml.safe_load_all((KUBERNETES / name).read_text())


def of_kind(kind):
    return [document for document in manifests() if document["kind"] == kind]


def the_manifests_have_the_form_that_kubernetes_takes():
    for document in manifests():
        if document["kind"] == "ServiceMonitor":
            judged = judge.ROOT / "tests" / "judges" / "node" / "service_monitor.mjs"
            run("node", judged, input=json.dumps(document))
        else:
            kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


def the_manifests_fit_together():
    (gateway,) = of_kind("StatefulSet")
    pod = gateway["spec"]["template"]
    labels, (container,) = pod["metadata"]["labels"], pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    services = {service["metadata"]["name"]: service for service in of_kind("Service")}
    assert gateway["spec"]["serviceName"] in services
    for service in services.values():
        assert service["spec"]["selector"].items() <= labels.items()
        assert all(ports[port["targetPort"]] == port["port"] for port in service["spec"]["ports"])
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        (found,) = of_kind(kind)
        selector = found["spec"].get("selector") or found["spec"]["podSelector"]
        assert selector["matchLabels"].items() <= labels.items(), kind
    (network,) = of_kind("NetworkPolicy")
    assert {port["port"] for rule in network["spec"]["ingress"] for port in rule["ports"]} == set(ports)
    (monitor,) = of_kind("ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (scraped,) = [service for service in services.values() if wanted <= service["metadata"]["labels"].items()]
    for endpoint in monitor["spec"]["endpoints"]:
        assert endpoint["port"] in {port["name"] for port in scraped["spec"]["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in gateway["spec"]["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    settings = (KUBERNETES / "tollgate.toml").read_text()
    for path in re.findall(r'"(/[^"]+)"', settings):
        assert any(path.startswith(mount["mountPath"]) for mount in container["volumeMounts"]), path
    assert {name: int(port) for name, port in re.findall(r'(\w+) = "0\.0\.0\.0:(\d+)"', settings)} == ports


def what_the_manifests_start_is_ready_and_alive(place):
    (gateway,) = of_kind("StatefulSet")
    (container,) = gateway["spec"]["template"]["spec"]["containers"]
    settings = place.folder / "settings"
    secrets = place.folder / "secrets"
    folders = {"/run/secrets/tollgate-tls": secrets / "tls", "/run/secrets/tollgate": secrets, "/etc/tollgate": settings}
    # Quoted, so that no other path is meant.
    folders['"/data"'] = f'"{place.folder / "data"}"'
    for name, text in of_kind("ConfigMap")[0]["data"].items():
        place.write(f"settings/{name}", place.moved(text, folders))
    token = "pod-token-of-16-bytes"
    for name, secret in {"stripe_key": "sk_test_pod", "webhook_secret": "whsec_pod", "shop_token": token}.items():
        place.write(f"secrets/{name}", secret)
    (secrets / "tls").mkdir()
    run(*shlex.split(CERTIFY), cwd=secrets / "tls")
    command = [str(judge.PROGRAM), *(place.moved(word, folders) for word in container["args"])]
    stripe = {f"TOLLGATE_STRIPE_{kind}_BASE": place.url(7403) for kind in ("API", "FILES")}
    sandbox = [str(judge.PROGRAM), "sandbox", f"--listen=127.0.0.1:{place.ports[7403]}", "--key=sk_test_pod"]
    with place.process(sandbox, {}), place.process(command, stripe | HURRIED):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[probe]["httpGet"]
            judge.until(lambda asked=asked: answers(place.url(7402, asked["path"])), probe)
        client = {"TOLLGATE_ADDRESS": f"https://localhost:{place.ports[7400]}", "TOLLGATE_TOKEN": token}
        client["TOLLGATE_TLS_CA"] = str(secrets / "tls" / "tls.crt")
        program("call", "BalanceService/GetBalance", "-d", "{}", environment=client)


def everybody_gives_the_gateway_the_time_to_stop(place):
    empty = place.write("empty.toml", "")
    shown = json.loads(program("config", "show", "-o", "json", "--config", str(empty), environment={}))
    settings = {setting["key"]: setting["value"] for setting in shown["settings"]}
    needed = float(settings["listen.lame_duck_s"]) + float(settings["listen.grace_s"]) + LAST_WORDS_SECONDS_MAX
    (gateway,) = of_kind("StatefulSet")
    pod = gateway["spec"]["template"]["spec"]
    before = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= before + needed
    assert float(compose()["services"]["gateway"]["stop_grace_period"].removesuffix("s")) >= needed
    assert float(unit()["TimeoutStopSec"][0]) >= needed


# The bill of materials


def scopes_of(bill):
    """Whether each crate is in the binary, by name and version."""
    return {f"{found['name']}-{found['version']}": found["scope"] for found in bill["components"]}


def the_bill_of_materials_names_what_is_in_the_binary():
    text = run(judge.ROOT / "scripts" / "sbom")
    assert text == run(judge.ROOT / "scripts" / "sbom"), "two runs differ"
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert fault is None, fault
    bill = json.loads(text)
    scopes = scopes_of(bill)
    required = {name for name, scope in scopes.items() if scope == "required"}
    # Where its code can panic, a binary names the file and with it the crate. A binary that was built for tests has what
    # they switch on in addition.
    found = re.findall(rb"registry/src/[^/]+/([\w.+-]+)/src/", judge.PROGRAM.read_bytes())
    linked = {name.decode() for name in found}
    tree = ["cargo", "tree", "--locked", "--edges", "normal,dev", "--prefix", "none", "--format", "{p}"]
    named = [line.split()[:2] for line in run(*tree, cwd=judge.ROOT).splitlines()]
    of_tests = {f"{name}-{version.removeprefix('v')}" for name, version in named} - set(scopes)
    assert len(linked & required) > 50, linked
    assert not linked - required - of_tests, linked - required - of_tests
    refs = {component["bom-ref"] for component in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert {entry["ref"] for entry in bill["dependencies"]} == refs
    assert all(set(entry["dependsOn"]) <= refs for entry in bill["dependencies"])


# Backup and restore


def refund(client, payment, operation):
    request = {"operation": {"order_id": "1001", "operation_id": operation}, "payment_intent": payment, "amount": 100}
    return subprocess.run(
        [judge.PROGRAM, "call", "RefundService/CreateRefund", "-d", json.dumps(request)],
        env={"PATH": os.environ["PATH"]} | client, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX,
    )  # fmt: skip


def paid(place):
    """A payment at the sandbox that can be refunded."""
    form = "amount=5000&currency=usd&payment_method=pm_card_visa&confirm=true&allowed_payment_method_types[]=card"
    request = urllib.request.Request(place.url(7403, "/v1/payment_intents"), form.encode())
    request.add_header("Authorization", "Bearer sk_test_compose")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["id"]


def a_backup_made_as_the_page_says_is_whole_and_never_pays_twice(place):
    commands = re.findall(r"```sh\n# backup\n(.*?)```", OPERATIONS.read_text(), re.S)
    assert len(commands) == 1
    data, backup = place.folder / "data", place.folder / "backup"
    backup.mkdir()
    with composed(place) as environment:
        client = environment | {"TOLLGATE_TOKEN": environment["TOLLGATE_CALLER_TOKEN"]}
        client["TOLLGATE_ADDRESS"] = client["TOLLGATE_ADDRESS"].replace("127.0.0.1", "localhost")
        payment = paid(place)
        assert refund(client, payment, "before").returncode == 0
        run("sh", "-euc", place.moved(commands[0], {"/var/lib/tollgate": data, "/backup": backup}))
        assert refund(client, payment, "after").returncode == 0
        key = place.folder / "audit.pub"
        key.write_text(run(judge.PROGRAM, "audit", "key", env=client))
    # The checkpoints that were kept elsewhere go on; the database is the older one.
    checkpoints = (data / "audit-checkpoints").read_text()
    data.rename(place.folder / "lost")
    backup.rename(data)
    copied = (data / "audit-checkpoints").read_text()
    assert checkpoints.startswith(copied) and len(checkpoints) > len(copied)
    (data / "audit-checkpoints").write_text(checkpoints)
    with composed(place):
        assert json.loads(refund(client, payment, "before").stdout)["call"]["replayed"]
        refused = refund(client, payment, "after")
        assert "DATA_ROLLED_BACK" in refused.stderr, refused
        export = place.folder / "export.jsonl"
        run(judge.PROGRAM, "audit", "export", "--to", export, env=client)
        older = place.write("older-checkpoints", copied)
        verify = ["audit", "verify", "--export", str(export), "--key", f"@{key}", "--checkpoints"]
        run(judge.PROGRAM, *verify, str(older), env=client)
        newer = place.write("newer-checkpoints", checkpoints)
        told = subprocess.run([judge.PROGRAM, *verify, str(newer)], env=client, capture_output=True, text=True)
        assert told.returncode == 76, told


def main():
    count = judge.Count()
    with tempfile.TemporaryDirectory() as folder:

        def place(name):
            (pathlib.Path(folder) / name).mkdir()
            return Place(pathlib.Path(folder) / name)

        count.run(the_compose_file_has_the_form_that_compose_reads)
        count.run(services_of_compose_are_hardened_and_pinned)
        count.run(what_compose_starts_serves, place("compose"))
        count.run(the_dockerfile_is_sound_and_copies_what_is_there)
        count.run(systemd_takes_the_unit_and_calls_it_safe, place("unit"))
        count.run(what_the_unit_starts_tells_systemd_and_keeps_to_the_permitted_calls, place("supervised"))
        count.run(the_manifests_have_the_form_that_kubernetes_takes)
        count.run(the_manifests_fit_together)
        count.run(what_the_manifests_start_is_ready_and_alive, place("pod"))
        count.run(everybody_gives_the_gateway_the_time_to_stop, place("stop"))
        count.run(the_bill_of_materials_names_what_is_in_the_binary)
        count.run(a_backup_made_as_the_page_says_is_whole_and_never_pays_twice, place("backup"))
    count.end()


main()
