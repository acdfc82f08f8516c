"""What Prefect's UI shows of a run: artifacts that are Markdown, and no text from outside is alive in them."""

from typing import Any

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from flows.maintain import maintain
from flows.short_text_matching import generate_short_text_pairs
from tasks.core.findings import BrainstormReport, ListRound
from tasks.core.markdown import escape, rejected_markdown
from tasks.core.other_markdown import brainstorm_markdown, upkeep_markdown
from tasks.core.report import RunReport
from tasks.core.upkeep import UpkeepReport
from tasks.publicise import SHOW_TEXTS, show_brainstorm, show_report
from tests.bucket import lines, put
from tests.model_server import ModelServer, answer
from tests.test_profile import distinct_pairs
from tests.test_report import HOSTILE
from tests.test_reporting import place, publish

ALIVE = ("<script>", "![x](", "| e |", "`c`")


def brainstormed(**changes: Any) -> BrainstormReport:
    figures: dict[str, Any] = {
        **dict.fromkeys(("run_id", "category", "destination", "uri"), "x"),
        **dict.fromkeys(("seed", "before", "cached", "failed", "surplus", "input_tokens", "output_tokens"), 0),
        "model_name": HOSTILE,
        "source": "s3://b/out/tasks",
        "rejected_uri": "s3://b/out/rejected-tasks/x.jsonl",
        "wanted": 20,
        "added": 18,
        "total": 18,
        "stopped": "little new",
        "lists": 2,
        "paid": 2,
        "items": 20,
        "rejected": 2,
        "reasons": {"too_long": 2},
        "rounds": [ListRound(lists=2, items=20, new=18)],
        "cost_usd": None,
        "seconds": 1.0,
        "samples": [HOSTILE],
    }
    return BrainstormReport(**figures | changes)


def upkeep(**changes: Any) -> UpkeepReport:
    figures: dict[str, Any] = {"destination": "s3://b/out", "done": [HOSTILE], "bytes_before": 9, "bytes_after": 9}
    return UpkeepReport(**figures | changes)


def shown(run: Any, *arguments: Any, **parameters: Any) -> dict[str, tuple[str, str]]:
    """Run a flow, and return its artifacts by key: type and data."""
    state = run(*arguments, **parameters, return_state=True)
    ours = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ours)
    return {str(one.key): (str(one.type), str(one.data)) for one in found}


@flow
def show_run(report: RunReport) -> None:
    show_report(report)


@flow
def show_lists(report: BrainstormReport) -> None:
    show_brainstorm(report)


@pytest.mark.parametrize(
    "text",
    [
        rejected_markdown([{"reasons": ["a_b"], "task": HOSTILE, "language": "English", "text": HOSTILE}]),
        brainstorm_markdown(brainstormed()),
        upkeep_markdown(upkeep(left=[HOSTILE])),
    ],
    ids=["rejected rows", "a brainstorming", "an upkeep"],
)
def test_no_text_from_outside_is_alive_in_markdown(text: str) -> None:
    assert escape(HOSTILE) in text
    assert not [sign for sign in ALIVE if sign in text]
    assert not [line for line in text.splitlines() if line.startswith("# ")]


def test_rejected_rows_are_shown_as_markdown_of_ours_not_as_a_table_whose_cells_are_markdown(
    bucket: str, prefect_api: str
) -> None:
    report = publish(place(f"{bucket}/out", "2026-01-01"), [*distinct_pairs(3), HOSTILE])
    found = shown(show_run, report)
    assert {kind for kind, _ in found.values()} == {"markdown"}
    assert (
        f"| unparsable | match thing 3 with its name | English | {escape(HOSTILE)} |" in found["rejected-examples"][1]
    )


@pytest.mark.parametrize(("setting", "texts"), [("1", True), ("0", False)])
def test_a_brainstorming_shows_its_descriptions_where_texts_may_be_shown(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch, setting: str, texts: bool
) -> None:
    monkeypatch.setenv(SHOW_TEXTS, setting)
    page = shown(show_lists, brainstormed(model_name="openai/x"))["brainstorm-report"][1]
    assert "| too\\_long | 2 |" in page
    assert (escape(HOSTILE) in page) == texts


def test_what_is_left_to_do_by_hand_stands_before_what_was_done() -> None:
    page = upkeep_markdown(upkeep(done=["3 rows of pairs erased"], left=["a card has to be edited"]))
    assert page.index("- a card has to be edited") < page.index("- 3 rows of pairs erased")


def test_an_upkeep_says_in_prefect_what_was_done(bucket: str, prefect_api: str) -> None:
    put(bucket, "out/tasks/a.jsonl", '{"task": "match a cat with its name"}')
    kind, page = shown(maintain, destination=f"{bucket}/out", forget="match a cat with its name")["upkeep-report"]
    assert (kind, "### Left to do by hand" in page, "### Done" in page) == ("markdown", True, True)
    assert escape("/tasks/a.jsonl: rows erased: 1") in page
    assert "match a cat" not in page


def test_a_run_that_may_not_publish_shows_its_report_in_prefect(
    bucket: str, model_server: ModelServer, prefect_api: str
) -> None:
    put(bucket, "tasks/a.jsonl", lines(30))
    model_server.default = answer("no json")
    given = {"source": f"{bucket}/tasks", "destination": f"{bucket}/out", "model_name": "openai/x"}
    found = shown(generate_short_text_pairs, **given, api_base=model_server.api_base)
    assert "judged, not published" in found["run-report"][1]
    assert "| unparsable | 30 | 100.0% |" in found["run-report"][1]
    assert "rejected-examples" not in found
