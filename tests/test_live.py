import json
import os
import subprocess
import sys

import pytest

from flows.servers import ROOT
from tests.bucket import as_lines, put
from tests.conftest import USERS_ENVIRONMENT

MODEL = "PAIRMILL_LIVE_MODEL"
DESCRIPTIONS = (
    "Match a job title with the skills that it asks for.",
    "Pair a symptom in a patient's own words with its clinical name.",
    "Given a proverb, find the situation that it fits.",
)


@pytest.mark.live
def test_a_real_provider_answers_with_pairs_that_are_accepted(bucket: str, prefect_api: str) -> None:
    """The user's own keys and addresses of providers, our S3: a few cents at most."""
    assert USERS_ENVIRONMENT.get(MODEL), f"set {MODEL} to a model as litellm names it, and its key"
    put(bucket, "tasks/a.jsonl", as_lines({"task": description} for description in DESCRIPTIONS))
    theirs = {name: value for name, value in USERS_ENVIRONMENT.items() if not name.startswith(("AWS_", "PREFECT_"))}
    ours = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "PAIRMILL_"))}
    line = [sys.executable, "-m", "flows.run", "--source", f"{bucket}/tasks", "--destination", f"{bucket}/out"]
    line += ["--model-name", USERS_ENVIRONMENT[MODEL], "--languages", "English", "German", "--output", "json"]
    ended = subprocess.run(
        line,
        check=False,
        cwd=ROOT,
        env={**theirs, **ours, "PREFECT_API_URL": prefect_api},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report["accepted"] + report["rejected"] == report["judged"] == 2 * len(DESCRIPTIONS)
    assert report["accepted"] >= len(DESCRIPTIONS), report["reasons"]
    assert report["input_tokens"] > 0
    assert report["output_tokens"] > 0
