import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.commands import COMMANDS
from flows.run import main
from flows.servers import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
INDENTED = [line.strip() for line in README.splitlines() if line.startswith("    ")]


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def tree() -> Iterator[tuple[str, str]]:
    """Yield each path of the tree and its clause."""
    folder = ""
    for line in section("The tree").partition("```\n")[2].partition("\n```")[0].splitlines():
        name, _, clause = line.strip().partition(" ")
        folder = folder if line.startswith(" ") else name
        yield (folder + name if line.startswith(" ") else name), clause.strip()


TREE = dict(tree())


@pytest.mark.parametrize("path", TREE)
def test_what_the_tree_lists_is_there(path: str) -> None:
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file()
    assert 5 < len(TREE[path]) < 90


def test_the_tree_lists_every_module() -> None:
    folders = [folder for folder in ("flows", "tasks", "deployments") if (ROOT / folder).is_dir()]
    modules = {path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert {path for path in modules if not path.endswith("__init__.py")} - set(TREE) == set()


def test_no_merge_left_its_marks() -> None:
    assert not [line for line in README.splitlines() if line.startswith(("<<<<<<<", ">>>>>>>", "======="))]


def test_the_first_command_sets_up_and_runs_and_the_second_tests() -> None:
    assert INDENTED[:2] == [
        "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && .venv/bin/python -m flows.run",
        ".venv/bin/pytest",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_help_is_in_the_readme(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    options = set(re.findall(r"(?<=[\s│])--[a-z][a-z-]+", capsys.readouterr().out))
    assert {option for option in options if not re.search(rf"`[^`\n]*{option}\b", README)} - NO_FLAGS == set()


NO_FLAGS = {"--help", "--no-batch", "--no-debug", "--no-structured-output", "--no-then-generate"}


def test_every_option_of_the_readme_is_in_some_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        main([*command.split(), "--help"])
    helped = capsys.readouterr().out
    ours = [line.partition("flows.run")[2] for line in INDENTED]
    ours += [line for line in section("For real").splitlines() if line.startswith("| ")]
    named = {option for line in ours for option in re.findall(r"--[a-z][a-z-]+", line)}
    assert len(named) > 20
    assert {option for option in named if f"{option} " not in helped and option not in NO_FLAGS} == set()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:flows|tasks|tests|deployments)/[\w/.]+)`", README))))
def test_a_file_that_the_readme_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\bPAIRMILL_[A-Z_]+\b", README))))
def test_a_variable_that_the_readme_names_is_read_somewhere(name: str) -> None:
    folders: tuple[Path, ...] = (ROOT / "flows", ROOT / "tasks", ROOT / "tests")
    assert any(name in path.read_text("utf-8") for folder in folders for path in folder.rglob("*.py"))
