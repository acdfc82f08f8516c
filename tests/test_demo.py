"""The README's first command, in a copy of the checkout and with an empty home."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.servers import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
# What may differ from run to run: the day, the seconds, and what depends on the order of arrivals.
CHANGING = re.compile(r"\d{4}-\d{2}-\d{2}|(?<=seconds)\s+[\d.]+|(?<=in flight)\s+\d+|(?<=tokens).*|[─\s]+")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("flows", "tasks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(checkout: Path, prefect_api: str, *command: str) -> "subprocess.CompletedProcess[str]":
    home = checkout.with_name("home")
    home.mkdir(exist_ok=True)
    # A user's own settings of a cloud or a proxy must not be used, nor needed.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PREFECT_API_URL": prefect_api}
    environment |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_PROFILE": "no-such-profile"}
    environment |= {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, *command], cwd=checkout, env=environment, check=False, capture_output=True, text=True
    )


# Ends with the second file that is removed.
REPLACES = """
import os, sys
from pathlib import Path
from flows.demo import replace_folder

removed = []
sys.addaudithook(lambda event, _: event == "os.remove" and (removed.append(event), len(removed) > 1 and os._exit(9)))
replace_folder(Path("kept"), Path("new"))
"""


def test_a_demo_that_is_killed_while_it_saves_its_bucket_leaves_a_whole_one(tmp_path: Path) -> None:
    for name in ("kept", "new"):
        (tmp_path / name).mkdir()
        for number in range(4):
            (tmp_path / name / f"{name}-{number}").touch()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", REPLACES], cwd=tmp_path, env=environment, check=False)
    assert ended.returncode == 9
    assert sorted(os.listdir(tmp_path / "kept")) == [f"new-{number}" for number in range(4)]


@pytest.mark.runs
def test_the_demo_says_what_the_readme_says_then_pays_for_nothing(checkout: Path, prefect_api: str) -> None:
    first = run(checkout, prefect_api, "-m", "flows.run")
    assert first.returncode == 0, first.stderr
    assert "running the demo, with a stand-in instead of a model" in first.stderr.splitlines()[0]
    said = {CHANGING.sub("", line) for line in first.stdout.splitlines()}
    first_block = README.split("```")[1]
    promised = [line for line in first_block.splitlines() if line.startswith(("│ ", "╭─ "))]
    assert [line for line in promised if CHANGING.sub("", line) not in said] == [], first.stdout
    assert len(promised) > 6

    lines = re.findall(r"^    (.*)$", first.stdout, re.MULTILINE)
    assert lines[0] == "import polars as pl"
    read = run(checkout, prefect_api, "-c", "\n".join(lines))
    assert "shape: (60, " in read.stdout, read.stderr

    second = run(checkout, prefect_api, "-m", "flows.run")
    assert second.returncode == 0, second.stderr
    assert "nothing to do" in second.stdout
    assert "No call was paid for" in second.stdout
    assert sorted(path.name for path in (checkout / ".demo").iterdir()) == ["bucket", "lock", "state"]


@pytest.mark.runs
def test_a_demo_that_fails_names_the_folder_that_keeps_what_its_error_speaks_of(
    checkout: Path, prefect_api: str
) -> None:
    many = run(checkout, prefect_api, "-m", "flows.run", "--languages", "German", "--max-rejected-share", "0.01")
    assert many.returncode == 1
    (judged,) = re.findall(r"all rows in (\S+/judged/)", many.stderr)
    assert list((checkout / judged).glob("*.parquet"))
