"""Exactly the pairs ordered: what is rejected is asked for again, in rounds."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl
import pytest
from aiohttp import web
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.reports import show_summary
from flows.short_text_matching import generate_short_text_pairs
from flows.telling import call
from tasks.core.columns import TEXTS
from tasks.core.report import RunReport
from tasks.core.requests import MOST_CHARACTERS
from tests.bucket import as_lines, lines, put, read_table
from tests.model_server import ModelServer, answer, completion, good_text

PAIRS = {
    "English": ("Looking for {} near {} harbour", "Our {} station sells {} every morning"),
    "German": ("Suche nach {} am Hafen von {}", "Unser Bahnhof {} verkauft jeden Morgen {}"),
    "French": ("Je cherche {} sur le port de {}", "Notre gare de {} vend {} chaque matin"),
}
Run = Callable[..., RunReport]


@pytest.fixture
def run(bucket: str, model_server: ModelServer, prefect_api: str) -> Iterator[Run]:
    """Run the flow in this process, on the test's own bucket and model."""

    def start(**options: Any) -> RunReport:
        given = {"source": f"{bucket}/tasks", "destination": f"{bucket}/out", "model_name": "openai/x"}
        report: RunReport = call(generate_short_text_pairs, **{**given, "api_base": model_server.api_base, **options})
        return report

    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield start


class Spoiler:
    """Answers well, but spoils every fifth reply, and a prompt's second one is never its first."""

    def __init__(self, share: int = 5) -> None:
        self.share = share
        self.asked: Counter[str] = Counter()

    def __call__(self, request: web.Request, sent: dict[str, Any]) -> web.Response:
        prompt = sent["messages"][0]["content"]
        self.asked[prompt] += 1
        language = next(name for name in PAIRS if f": {name}." in prompt)
        mark = hashlib.blake2b(f"{prompt}{self.asked[prompt]}".encode(), digest_size=8).hexdigest()
        texts = [
            text.format(mark[at : at + 4], mark[at + 4 : at + 8])
            for at, text in zip((0, 8), PAIRS[language], strict=True)
        ]
        text = json.dumps(dict(zip(TEXTS, texts, strict=True)))
        return web.json_response(completion("no json" if self.asked.total() % self.share == 0 else text))


@pytest.mark.parametrize("descriptions", [6, pytest.param(200, marks=pytest.mark.runs)])
def test_an_order_ends_with_exactly_its_pairs_and_costs_nothing_the_second_time(
    run: Run, bucket: str, model_server: ModelServer, descriptions: int
) -> None:
    put(bucket, "tasks/a.jsonl", lines(descriptions, "a"))
    model_server.default = Spoiler()
    order = {"languages": list(PAIRS), "pairs_per_task": 2}
    first = run(**order)
    assert first.accepted + first.rejected == first.judged == first.paid == len(model_server.prompts)
    assert first.accepted + first.shortfall == 6 * descriptions
    assert first.shortfall == sum(first.shortfall_reasons.values()) == sum(one.missing for one in first.shortfalls)
    assert first.rounds > 1
    assert first.rejected >= descriptions
    judged = [read_table(f"{bucket}/out/{name}") for name in ("pairs", "rejected")]
    samples = pl.concat(rows.select("sample_index", "variation") for rows in judged)
    assert (samples["variation"].is_null() == (samples["sample_index"] == 0)).all()
    assert sum(one.accepted + one.rejected for one in first.by_variation.values()) == 6 * (samples["variation"].count())
    per_group = read_table(f"{bucket}/out/pairs").group_by("description_hash", "language").len()["len"]
    assert per_group.sum() == first.accepted
    assert per_group.max() == 2
    paid = len(model_server.prompts)
    again = run(**order)
    assert (again.requests, again.paid, again.published) == (0, 0, False)
    assert (again.shortfall, again.shortfall_reasons) == (first.shortfall, first.shortfall_reasons)
    redo = run(**order, on_published="redo")
    assert (redo.judged, redo.cached, redo.accepted, redo.rejected) == (
        first.judged,
        first.judged,
        first.accepted,
        first.rejected,
    )
    assert len(model_server.prompts) == paid


@pytest.mark.runs
def test_a_description_that_is_always_rejected_is_named_and_left_out_and_a_redo_never_pays_for_another_try(
    run: Run, bucket: str, model_server: ModelServer
) -> None:
    put(bucket, "tasks/a.jsonl", lines(30, "a"))
    model_server.script("thing a7 ", [answer("no json")])
    first = run()
    assert (first.accepted, first.rejected, first.rounds, first.shortfall) == (29, 3, 3, 1)
    assert [one.model_dump() for one in first.shortfalls] == [
        {"task": "match thing a7 with its name", "language": "English", "missing": 1, "reason": "unparsable"}
    ]
    second = run()
    assert (second.requests, second.given_up, second.shortfall) == (0, 1, 1)
    assert second.shortfalls == first.shortfalls
    redo = run(max_attempts_per_pair=4, on_published="redo")
    assert (redo.paid, redo.judged, redo.shortfall) == (0, 32, 1)
    more = run(max_attempts_per_pair=4)
    assert (more.requests, more.paid, more.rejected, more.shortfall) == (1, 1, 1, 1)
    assert set(read_table(f"{bucket}/out/rejected")["sample_index"]) == {0, 1, 2, 3}


def test_one_attempt_asks_once(run: Run, bucket: str, model_server: ModelServer) -> None:
    put(bucket, "tasks/a.jsonl", lines(3, "a"))
    model_server.script("thing a1 ", [answer("no json")])
    report = run(max_attempts_per_pair=1)
    assert (report.judged, report.rounds, report.shortfall) == (3, 1, 1)


@pytest.mark.runs
def test_new_languages_and_a_raised_quota_cost_only_the_difference(
    run: Run, bucket: str, model_server: ModelServer
) -> None:
    put(bucket, "tasks/a.jsonl", lines(20, "a"))
    model_server.default = Spoiler(share=10**9)
    paid = [run().paid, run(languages=["English", "German"]).paid]
    put(bucket, "tasks/late.jsonl", lines(5, "late"))
    paid += [run(languages=["English", "German"], pairs_per_task=2).paid]
    assert paid == [20, 20, 40 + 5 * 2 * 2]
    counts = read_table(f"{bucket}/out/pairs").group_by("task", "language").len()["len"].to_list()
    assert counts == [2] * 50


@pytest.mark.runs
def test_a_changed_description_is_a_new_one_and_spaces_are_no_change(run: Run, bucket: str) -> None:
    def write(*texts: str) -> None:
        put(bucket, "tasks/a.jsonl", as_lines({"task": text} for text in texts))

    write("match one", "match two", "match cafe\u0301s")
    assert run().paid == 3
    write(" match one ", "match two or three", "match caf\u00e9s")
    night = run()
    assert (night.requests, night.paid, night.already_served) == (1, 1, 2)
    published = sorted(read_table(f"{bucket}/out/pairs")["task"])
    assert published == ["match caf\u00e9s", "match one", "match two", "match two or three"]


@pytest.mark.runs
def test_what_one_night_leaves_short_the_next_ones_try_up_to_the_limit_of_all_of_them(
    run: Run, bucket: str, model_server: ModelServer
) -> None:
    put(bucket, "tasks/a.jsonl", lines(20, "a"))
    model_server.script("thing a7 ", [answer("no json")])
    nights = [run(max_attempts_per_pair=attempts) for attempts in (1, 3, 3)]
    assert [(one.requests, one.paid, one.given_up, one.shortfall) for one in nights] == [
        *((20, 20, 0, 1), (2, 2, 0, 1), (0, 0, 1, 1)),
    ]
    assert [one.shortfall_reasons for one in nights] == [{"unparsable": 1}] * 3
    model_server.forget()
    last = run(max_attempts_per_pair=4)
    assert (last.requests, last.accepted, last.given_up, last.shortfall) == (1, 1, 0, 0)


def test_a_duplicate_counts_as_missing_and_is_asked_for_again(run: Run, bucket: str, model_server: ModelServer) -> None:
    put(bucket, "tasks/a.jsonl", lines(4, "a"))
    same = answer(good_text("everybody says this"))
    model_server.script("thing a1 ", [same])
    model_server.script("thing a3 ", [same, answer(good_text("something else"))])
    report = run()
    assert (report.accepted, report.reasons, report.shortfall) == (4, {"duplicate": 1}, 0)


def test_what_would_not_be_published_is_not_asked_for_again(run: Run, bucket: str, model_server: ModelServer) -> None:
    put(bucket, "tasks/a.jsonl", lines(30, "a"))
    model_server.default = answer("no json")
    with pytest.raises(Exception, match="100% of 30 rows were rejected"):
        run()
    assert len(model_server.prompts) == 30


def test_a_language_of_the_source_wins_and_an_unknown_one_is_counted(
    run: Run, bucket: str, model_server: ModelServer
) -> None:
    rows = [("one", "de"), ("one", "French"), ("two", None), ("three", "Klingon"), ("three", "Klingon")]
    put(bucket, "tasks/a.jsonl", as_lines({"task": task, "language": language} for task, language in rows))
    model_server.default = Spoiler(share=10**9)
    report = run()
    assert (report.descriptions, report.unknown_languages) == (2, {"Klingon": 2})
    assert sorted(read_table(f"{bucket}/out/pairs").select("task", "language").rows()) == [
        *(("one", "French"), ("one", "German"), ("two", "English")),
    ]
    assert (run().already_served, run().paid) == (3, 0)


def test_a_description_that_is_too_long_is_left_out_counted_and_named(
    run: Run, bucket: str, model_server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    longest = "match " * (MOST_CHARACTERS // 6) + "a" * (MOST_CHARACTERS % 6)
    rows = [longest, f"  {longest}\t", "ö" * MOST_CHARACTERS, f"{longest}s", "word " * 200_000, " "]
    put(bucket, "tasks/a.jsonl", as_lines({"task": task} for task in rows))
    report = run()
    assert (report.descriptions, report.too_long, report.repeated, report.blank) == (2, 2, 1, 1)
    assert sorted(map(len, read_table(f"{bucket}/out/pairs")["task"])) == [MOST_CHARACTERS, MOST_CHARACTERS]
    assert max(map(len, model_server.prompts)) < 2 * MOST_CHARACTERS
    show_summary(report)
    said = " ".join(capsys.readouterr().out.split())
    assert "2 too long" in said
    assert "more than 10,000 characters: 2." in said


def test_a_source_of_nothing_but_documents_stops_the_run(run: Run, bucket: str, model_server: ModelServer) -> None:
    put(bucket, "tasks/a.jsonl", as_lines({"task": text * MOST_CHARACTERS} for text in ("a ", "b ", " ")))
    with pytest.raises(Exception, match=r"Every task description of the source \(2\) has more than 10,000 characters"):
        run()
    assert model_server.prompts == []


def test_a_source_without_a_known_language_stops_the_run(run: Run, bucket: str, model_server: ModelServer) -> None:
    put(bucket, "tasks/a.jsonl", as_lines([{"task": "one", "language": "python"}]))
    with pytest.raises(Exception, match="'python'"):
        run()
    assert model_server.prompts == []
