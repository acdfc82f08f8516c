"""The house rules that a reader relies on, held by the code itself."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from flows.servers import ROOT

# From the top down: a module imports only from its own layer and those below.
LAYERS = ("tests", "deployments", "flows", "tasks", "tasks.clients", "tasks.core")
DOORS = {
    # Its documented functions, its insides, and its connections.
    "litellm": {"tasks.clients.llm", "tasks.clients.wire", "tasks.clients.bounds"},
    "s3fs": {"tasks.clients.storage"},
    # Its tables, the actions of a commit, and how files are merged.
    "deltalake": {"tasks.clients.table", "tasks.clients.table_files", "tasks.clients.table_upkeep"},
    "pycld2": {"tasks.core.detection"},
    "py3langid": {"tasks.core.detection"},
    "polars_hash": {"tasks.core.keys"},
}
MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for folder in ("flows", "tasks", "deployments")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def layer(module: str) -> int:
    return max(number for number, name in enumerate(LAYERS) if f"{module}.".startswith(f"{name}."))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(name: str) -> bool:
    return name.partition(".")[0] in LAYERS


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module: str) -> None:
    up = {name for name in imports(MODULES[module]) if ours(name) and layer(name) < layer(module)}
    assert up == set()


@pytest.mark.parametrize("module", MODULES)
def test_each_library_has_its_place(module: str) -> None:
    used = {name.partition(".")[0] for name in imports(MODULES[module])}
    assert {name for name, doors in DOORS.items() if name in used and module not in doors} == set()
    if LAYERS[layer(module)] in ("tasks.clients", "tasks.core"):
        assert "prefect" not in used


PURE = {"logging", "os", "random", "secrets", "socket", "subprocess", "threading", "time", "asyncio", "tempfile"}


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("tasks.core")])
def test_the_core_has_no_input_output_clock_or_chance(module: str) -> None:
    assert {name.partition(".")[0] for name in imports(MODULES[module])} & PURE == set()
    calls = [node for node in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(node, ast.Call)]
    named = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    asked = {call.func.attr for call in calls if isinstance(call.func, ast.Attribute)}
    assert (named & {"open", "print", "input"}, asked & {"now", "today", "read_text", "sample", "shuffle"}) == (
        set(),
        set(),
    )


def test_no_module_shares_a_name_with_the_standard_library_or_a_package_that_we_ask_for() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = asked["project"]["dependencies"] + asked["dependency-groups"]["dev"]
    packages = {re.split(r"[^\w-]", one)[0].replace("-", "_") for one in wanted}
    assert {"litellm", "polars", "pytest"} <= packages
    assert {part for module in MODULES for part in module.split(".")} & (
        set(sys.stdlib_module_names) | packages
    ) == set()


def test_no_top_level_folder_shares_a_name_with_any_package() -> None:
    homes = {name: files for name, files in packages_distributions().items() if name in LAYERS}
    assert homes == {}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[module].read_text(encoding="utf-8")))


# What would run data of others as code.
RUNS_DATA = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "jsonpickle"}


@pytest.mark.parametrize("module", MODULES)
def test_nothing_from_outside_is_evaluated(module: str) -> None:
    assert {name.partition(".")[0] for name in imports(MODULES[module])} & RUNS_DATA == set()
    tree = ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
    calls = {ast.unparse(node.func) for node in tree if isinstance(node, ast.Call)}
    assert calls & {"eval", "exec", "compile", "yaml.load", "yaml.full_load", "yaml.unsafe_load"} == set()


GUARD = """
import socket, subprocess, sys, threading, importlib, os
network = "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"
of_ours = True
def refuse(event, arguments):
    if event in network or (of_ours and event in ("subprocess.Popen", "os.fork")):
        raise SystemExit(f"{name} does work when it is imported: {event}")
    if of_ours and event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        if str(arguments[0]).startswith(os.getcwd()) and "__pycache__" not in str(arguments[0]):
            raise SystemExit(f"{name} writes {arguments[0]} when it is imported")
sys.addaudithook(refuse)
ours = [name for name in sys.argv[1:] if not name.startswith("deployments")]
for name in ours:
    importlib.import_module(name)
names = [one.name for one in threading.enumerate()]
assert names == ["MainThread"], names
# What Prefect and litellm do by themselves is no work of ours, but the network is asked for nothing.
of_ours = False
for name in set(sys.argv[1:]) - set(ours):
    importlib.import_module(name)
name = "litellm"
importlib.import_module("tasks.clients.llm").import_litellm()
"""


def run(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-c", code, *arguments]
    # Of the tests alone: without it litellm fetches its prices, unless we say otherwise.
    bare = {name: value for name, value in os.environ.items() if name != "LITELLM_LOCAL_MODEL_COST_MAP"}
    return subprocess.run(line, cwd=ROOT, check=False, capture_output=True, text=True, env=bare)


def test_no_import_does_work_or_uses_the_network() -> None:
    ended = run(GUARD, *MODULES)
    assert ended.returncode == 0, ended.stderr


HELP = """
import json, sys
from flows.run import main
code = main(["--help"])
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_help_waits_for_no_heavy_library() -> None:
    code, modules = json.loads(run(HELP).stdout.splitlines()[-1])
    assert code == 0
    assert {"litellm", "polars", "deltalake", "s3fs", "boto3", "moto"} & set(modules) == set()


def test_older_pips_can_install_the_lock() -> None:
    """An old pip takes the newest of a package that is asked for with an extra, unless that is pinned too."""
    lock = (ROOT / "requirements.txt").read_text()
    assert len(set(re.findall(r"^sqlalchemy(?:\[asyncio\])?(==\S+)", lock, re.MULTILINE))) == 1
    assert "\nsqlalchemy[asyncio]==" in lock
