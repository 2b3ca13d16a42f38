"""Holds every parameter that the gateway sends against the types of Stripe's own Python library.

The library of this release is generated for the same Stripe version that the gateway pins, so it knows what stripe-mock's
older document does not. The parameters stand in the golden file that the conformance test keeps.
"""

import ast
import pathlib
import re

import stripe

import judge

GOLDEN = judge.ROOT / "tests" / "golden" / "stripe_parameters.txt"
VERSION = "2026-10-28.endive"
# `client_secret` is for browsers, pages are read forwards only, and not every object has a field to expand.
NOT_SENT = {"client_secret", "ending_before", "expand[]"}
# What the gateway does not take, since it would move credit past its rules about amounts.
NOT_TAKEN = {("POST", "/v1/customers", "balance"), ("POST", "/v1/customers/{}", "balance")}
LIBRARY = pathlib.Path(stripe.__file__).parent



def endpoints():
    """Folder and name of the parameter class by verb and path, from the library's services."""
    known = {}
    for file in LIBRARY.rglob("_*_service.py"):
        for function in ast.walk(ast.parse(file.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            arguments = {argument.arg: argument.annotation for argument in function.args.args}
            if arguments.get("params") is None:
                continue
            (params,) = re.findall(r"\w+Params", ast.unparse(arguments["params"])) or [None]
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "_request":
                    verb, path = (next(text(part)) for part in call.args[:2])
                    place = file.parent.relative_to(LIBRARY)
                    known[verb.upper(), re.sub(r"\{\w+\}", "{}", path)] = place, params
    return known


def text(expression):
    """The text constants in an expression."""
    return (part.value for part in ast.walk(expression) if isinstance(part, ast.Constant))


def classes():
    """The fields of every parameter class, by folder and name: field name to type, as it is written."""
    folders = {}
    for file in (LIBRARY / "params").rglob("*.py"):
        found = folders.setdefault(file.parent.relative_to(LIBRARY / "params"), {})
        for statement in ast.parse(file.read_text()).body:
            if isinstance(statement, ast.ClassDef):
                fields = (part for part in statement.body if isinstance(part, ast.AnnAssign))
                found.setdefault(statement.name, {}).update(
                    {part.target.id: ast.unparse(part.annotation) for part in fields}
                )
                # Fields whose names are no Python names stand in a base that is made by a call.
                for base in statement.bases:
                    found[statement.name].update(found.get(ast.unparse(base), {}))
            elif isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
                fields = [part for part in statement.value.args if isinstance(part, ast.Dict)]
                found[statement.targets[0].id] = {
                    key.value: ast.unparse(value) for part in fields for key, value in zip(part.keys, part.values)
                }
    return folders


def knows(folders, start, parameter):
    """Whether the parameter, such as `tax_id_data[][type]`, is in the class and those that it refers to."""
    classes, here, kind = folders[start[0]], [start[1]], ""
    for part in re.findall(r"[^\[\]]+|\[\]", parameter):
        if part == "[]":
            if "List[" not in kind:
                return False
            continue
        kinds = [classes[name][part] for name in here if part in classes[name]]
        if not kinds and "Dict[str" not in kind:
            return False
        kind = " ".join(kinds)
        here = [name for name in re.findall(r"\w+", kind) if name in classes]
    return True


def parameters(folders, folder, name, above=""):
    """Every parameter of a class, in the form of the golden file."""
    classes = folders[folder]
    for part, kind in classes[name].items():
        parameter = f"{above}[{part}]" if above else part
        parameter += "[]" if "List[" in kind else ""
        below = [inner for inner in re.findall(r"\w+", kind) if inner in classes]
        for inner in below:
            yield from parameters(folders, folder, inner, parameter)
        if not below:
            yield re.sub(r"\[\]$", "", parameter) + "[*]" if "Dict[str" in kind else parameter


def the_library_is_of_the_pinned_version():
    assert stripe.api_version == VERSION, stripe.api_version


def an_invented_parameter_is_not_known(known, sources):
    assert not knows(sources, known["POST", "/v1/refunds"], "invented")
    assert not knows(sources, known["POST", "/v1/customers"], "address[invented]")
    assert not knows(sources, known["POST", "/v1/customers"], "name[]")
    assert knows(sources, known["POST", "/v1/customers"], "invoice_settings[custom_fields][][name]")


def every_parameter_is_in_the_types(known, sources):
    unknown, newer = [], 0
    for line in GOLDEN.read_text().splitlines():
        verb, path, parameter, judged = line.split(" ", 3)
        newer += judged != "ok"
        params = known.get((verb.upper(), re.sub(r"\{\w+\}", "{}", path)))
        if params is None or not knows(sources, params, parameter):
            unknown.append(line)
    print(f"{newer} parameters are newer than stripe-mock's document")
    assert not unknown, "not in the types:\n" + "\n".join(unknown)


def every_type_has_its_parameter(known, sources):
    sent = {}
    for line in GOLDEN.read_text().splitlines():
        verb, path, parameter, _ = line.split(" ", 3)
        endpoint = verb.upper(), re.sub(r"\{\w+\}", "{}", path)
        sent.setdefault(endpoint, set()).add(re.sub(r"(metadata\]?)\[\w+\]", r"\1[*]", parameter))
    left_out = [
        f"{endpoint} {parameter}"
        for endpoint, names in sent.items()
        for parameter in sorted(set(parameters(sources, *known[endpoint])) - names - NOT_SENT)
        if (*endpoint, parameter) not in NOT_TAKEN
    ]
    assert not left_out, "not in the contract:\n" + "\n".join(left_out)


def main():
    count = judge.Count()
    known, sources = endpoints(), classes()
    count.run(the_library_is_of_the_pinned_version)
    count.run(an_invented_parameter_is_not_known, known, sources)
    count.run(every_parameter_is_in_the_types, known, sources)
    count.run(every_type_has_its_parameter, known, sources)
    count.end()


main()
