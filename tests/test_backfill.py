import inspect
import json
from datetime import date
from typing import Any

import pytest
from prefect.settings import PREFECT_HOME

from flows.backfill import OWN, backfill
from flows.run import main
from flows.short_text_matching import generate_short_text_pairs
from flows.telling import call
from tasks.core.backfill import MOST_DAYS, BackfillReport, DayReport, Purse, backfill_markdown, days_between
from tasks.core.errors import UsageError
from tests.bucket import count_rows, lines, put
from tests.model_server import ModelServer, error

# What the main flow takes and a backfill does not: it gives the one, and the other publishes nothing.
PER_DAY = {"partition", "limit"}
TODAY = date(2026, 11, 24)

RANGES = {
    "one day": (date(2026, 11, 24), date(2026, 11, 24), 1),
    "the longest": (date(2025, 11, 24), TODAY, MOST_DAYS),
    "over a leap day": (date(2024, 2, 28), date(2024, 3, 1), 3),
    "backwards": (date(2026, 11, 24), date(2026, 11, 23), "is after"),
    "the future": (date(2026, 11, 24), date(2026, 11, 25), "in the future"),
    "too long": (date(2025, 11, 23), TODAY, "367 days"),
}


@pytest.mark.parametrize("name", list(RANGES))
def test_a_range_is_its_days_or_refused_with_a_reason(name: str) -> None:
    first, last, expected = RANGES[name]
    if isinstance(expected, int):
        days = days_between(first, last, TODAY)
        assert (days[0], days[-1], len(days)) == (first.isoformat(), last.isoformat(), expected)
    else:
        with pytest.raises(UsageError, match=str(expected)):
            days_between(first, last, TODAY)


def test_a_backfill_takes_every_parameter_of_the_main_flow_as_it_is_there() -> None:
    ours, theirs = (dict(inspect.signature(flow).parameters) for flow in (backfill, generate_short_text_pairs))
    assert set(ours) - set(OWN) == set(theirs) - PER_DAY
    for name in set(ours) - set(OWN):
        assert (ours[name].annotation, ours[name].default) == (theirs[name].annotation, theirs[name].default), name


def test_a_day_that_failed_says_why_under_the_table_and_the_others_say_it_in_figures() -> None:
    done = DayReport(partition="2026-01-01", run_id="a", state="Completed", message="published 3", accepted=3)
    failed = DayReport(partition="2026-01-02", run_id="b", state="Failed", message="No descriptions | here")
    text = backfill_markdown([done, failed])
    assert text.startswith("## 1 of 2 days done, 3 pairs accepted\n")
    assert "published 3" not in text
    assert text.endswith("\n\n**2026-01-02**: No descriptions \\| here\n")


def test_the_server_of_a_run_shares_no_database_with_one_of_the_users(prefect_api: str) -> None:
    # There a backfill would find deployments, and wait for a worker.
    assert [path.name for path in PREFECT_HOME.value().glob("*.db")] == ["pairmill.db"]


@pytest.fixture
def run(bucket: str, model_server: ModelServer, prefect_api: str) -> Any:
    def start(first: str, last: str, **parameters: Any) -> BackfillReport:
        report: BackfillReport = call(
            backfill,
            start_date=date.fromisoformat(first),
            end_date=date.fromisoformat(last),
            source=f"{bucket}/tasks/{{partition}}.jsonl",
            destination=f"{bucket}/out",
            model_name="openai/x",
            api_base=model_server.api_base,
            **parameters,
        )
        return report

    return start


def published(bucket: str) -> dict[str, int]:
    return count_rows(f"{bucket}/out/pairs", "partition")


@pytest.mark.runs
def test_a_day_that_fails_stops_no_other_and_days_that_are_done_cost_nothing(
    run: Any, bucket: str, model_server: ModelServer
) -> None:
    days = ("2026-11-01", "2026-11-02")
    put(bucket, "tasks/2026-11-02.jsonl", lines(30))
    first = run(*days)
    assert first.problem.startswith("1 of 2 days failed: 2026-11-01. 2026-11-01: No task descriptions")
    assert [day.accepted for day in first.days] == [None, 30]
    assert published(bucket) == {"2026-11-02": 30}
    put(bucket, "tasks/2026-11-01.jsonl", lines(10).replace("thing", "late thing"))
    report = run(*days)
    assert [day.accepted for day in report.days] == [10, 0]
    redo = run(*days, on_published="redo")
    assert [day.accepted for day in redo.days] == [10, 30]
    assert (report.paid, redo.paid, len(model_server.prompts)) == (10, 0, 40)


def test_a_provider_that_refuses_fails_every_day_with_its_reason(
    run: Any, bucket: str, model_server: ModelServer
) -> None:
    for day in ("2026-11-01", "2026-11-02"):
        put(bucket, f"tasks/{day}.jsonl", lines(3))
    model_server.default = error(401, "wrong key", "invalid_api_key")
    problem = run("2026-11-01", "2026-11-02").problem
    assert problem.startswith("2 of 2 days failed: 2026-11-01, 2026-11-02. ")
    assert "Set the right API key" in problem
    assert "The other days are done" not in problem
    assert published(bucket) == {}


@pytest.mark.parametrize("output", ["text", pytest.param("json", marks=pytest.mark.runs)])
def test_the_command_line_shows_all_days_of_a_backfill_of_which_some_failed(
    bucket: str, model_server: ModelServer, prefect_api: str, capfd: pytest.CaptureFixture[str], output: str
) -> None:
    put(bucket, "tasks/2026-11-02.jsonl", lines(3))
    given = ["--source", f"{bucket}/tasks/{{partition}}.jsonl", "--destination", f"{bucket}/out"]
    given += ["--model-name", "openai/x", "--api-base", model_server.api_base, "--output", output]
    code = main(["backfill", "--start-date", "2026-11-01", "--end-date", "2026-11-02", *given])
    out, said = capfd.readouterr()
    assert (code, said.splitlines()[-1].partition(". ")[0]) == (1, "error: 1 of 2 days failed: 2026-11-01")
    if output == "json":
        assert [day["state"] for day in json.loads(out)["days"]] == ["Failed", "Completed"]
    else:
        rows = {cells[0]: cells[1:3] for line in out.splitlines() if (cells := line.strip(" │").split())}
        assert rows["2026-11-02"] == ["│", "Completed"]
        assert "2026-11-01: No task descriptions under" in out


def test_the_command_line_refuses_a_bad_range_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--source", "s3://bucket/tasks", "--destination", "s3://bucket/out", "--model-name", "openai/x"]
    code = main(["backfill", "--start-date", "2026-11-02", "--end-date", "2026-11-01", *given])
    said = capsys.readouterr().err
    assert (code, said.count("\n")) == (2, 1)
    assert "error: --start-date 2026-11-02 is after --end-date 2026-11-01. Swap them." in said


def test_the_demo_refuses_a_bad_range_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["backfill", "--start-date", "2026-11-02", "--end-date", "2026-11-01"])
    (refused,) = capsys.readouterr().err.splitlines()  # no line of the demo, which does not start
    assert (code, refused) == (2, "error: --start-date 2026-11-02 is after --end-date 2026-11-01. Swap them.")


def test_what_days_may_spend_is_never_more_than_the_whole() -> None:
    purse = Purse(9.0, days=3)
    assert (purse.deal("a"), purse.deal("b")) == (3.0, 3.0)
    purse.settle("a", 1.0)  # 2 come back, for the last day
    assert purse.deal("c") == 5.0
    purse.settle("b", None)  # unknown: as if it had spent its part
    unlimited = Purse(0.0, days=2)
    assert (unlimited.deal("a"), unlimited.deal("b")) == (0.0, 0.0)
