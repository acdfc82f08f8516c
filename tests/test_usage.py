"""What --help says, beside the flows' own words."""

import inspect
import re

import pytest

from flows.commands import COMMANDS, find
from flows.run import main

OF_WHAT_PAYS = {"--check", "--dry-run", "--dask-scheduler"}


def _help(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*command.split(), "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_flow_s_own_options_come_before_those_of_every_command(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = re.findall(r"^│ +\*? *(--[a-z-]+)", _help(command, capsys), flags=re.MULTILINE)
    assert options.index("--destination") < options.index("--output")


@pytest.mark.parametrize("command", COMMANDS)
def test_only_a_command_that_pays_offers_a_check_a_dry_run_and_a_cluster(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {option for option in OF_WHAT_PAYS if f"{option} " in _help(command, capsys)}
    assert shown == (OF_WHAT_PAYS if COMMANDS[command].rehearsal else set())


def test_a_default_is_shown_as_it_is_typed_and_none_where_it_is_empty_or_off(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = _help("", capsys)
    assert "[default: English]" in said
    assert not re.search(r"default: (\"\"|\[|False)", said)


def test_the_help_says_that_no_command_is_needed_and_what_runs_without_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = " ".join(_help("", capsys).split())
    assert said.startswith("Usage: python -m flows.run [OPTIONS]")
    assert "Without --source, --destination and --model-name, each runs as a demo on this machine." in said


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_names_no_field_of_a_form(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    fields = {name for name in inspect.signature(find(COMMANDS[command].flow)).parameters if "_" in name}
    assert fields & set(re.findall(r"[a-z_]+", _help(command, capsys))) == set()
