import dataclasses
import inspect
import itertools
import json
import random
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.brainstorm import brainstorm
from flows.order_lists import HANDED_ON, hand_on, place_brainstorm
from flows.short_text_matching import generate_short_text_pairs
from flows.telling import call
from tasks.brainstorm import gather_task_descriptions
from tasks.clients import storage
from tasks.core.brainstorming import LIST_LENGTH
from tasks.core.errors import RejectedError, StorageError, UsageError
from tasks.core.findings import BrainstormReport
from tasks.core.layout import Layout
from tasks.core.plans import Plan
from tasks.open_model import open_model
from tasks.progress import progress
from tests.bucket import read_table
from tests.model_server import ModelServer, answer, completion, good_text
from tests.test_brainstorming import WISH


@pytest.mark.parametrize("changes", [{"model_name": ""}, {"destination": "gs://x/y"}, {"topics": ["tea", " "]}])
def test_a_brainstorm_that_cannot_be_right_is_refused(changes: dict[str, Any]) -> None:
    given: dict[str, Any] = {
        "destination": "s3://bucket/out",
        "model_name": "openai/x",
        "topics": [],
    }
    settings = {"temperature": 1.0, "top_p": 1.0, "seed": 1, "model_revision": "", "api_base": "", "concurrency": 4}
    with pytest.raises(UsageError):
        place_brainstorm(descriptions=5, category="text-matching-short", **{**given, **settings, **changes})


def test_what_the_main_flow_takes_too_is_handed_on_and_is_as_it_is_there() -> None:
    ours, theirs = (dict(inspect.signature(flow).parameters) for flow in (brainstorm, generate_short_text_pairs))
    assert set(HANDED_ON) == set(ours) & set(theirs)
    for name in HANDED_ON:
        assert (ours[name].annotation, ours[name].default) == (theirs[name].annotation, theirs[name].default), name


SUBJECTS = ("tea", "rain", "paint", "bread", "coral", "timber", "wool", "glass", "copper", "honey", "maize", "salt")
WORDS = [f"Match a {one} with the {two} {three} it suits." for one, two, three in itertools.combinations(SUBJECTS, 3)]


COUNT = itertools.count()


def lister(request: web.Request, sent: dict[str, Any]) -> web.Response:
    """Answer with a list or a pair, as asked; every list has twenty descriptions of its own and two bad ones."""
    prompt = sent["messages"][0]["content"]
    if not prompt.startswith("Make up"):
        return web.json_response(completion(good_text(f"{prompt}{next(COUNT)}")))
    some = random.Random(prompt).sample(WORDS, 18)
    return web.json_response(completion(json.dumps([*some, 7, "Match a book with its summary."])))


Start = Callable[..., Any]


@pytest.fixture
def start(bucket: str, model_server: ModelServer, prefect_api: str) -> Iterator[Start]:
    model_server.default = lister

    def run(**options: Any) -> Any:
        given = {"destination": f"{bucket}/out", "model_name": "openai/x", "api_base": model_server.api_base}
        report = call(brainstorm, **{**given, **options})
        if isinstance(report, BrainstormReport):
            # Every description of every list is accounted for.
            assert report.items == report.added + report.rejected + report.surplus
        return report

    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield run


def rows_under(uri: str) -> list[dict[str, Any]]:
    objects = storage.list_objects(uri)
    return [json.loads(line) for item in objects for line in storage.read_bytes(item.uri).decode().splitlines()]


def test_descriptions_come_out_of_nothing_and_more_cost_only_the_difference(
    start: Start, bucket: str, model_server: ModelServer
) -> None:
    first = start(descriptions=30)
    rows = rows_under(f"{bucket}/out/tasks")
    assert (first.total, first.added, first.stopped) == (30, 30, "enough")
    assert first.paid == first.lists == len(model_server.prompts)
    assert len({row["task"] for row in rows}) == 30
    assert set(rows[0]) == {"task", "model_name", "category", "topic", "persona"}
    turned_down = rows_under(first.rejected_uri)
    assert len(turned_down) == first.rejected
    assert {"not_text", "long_texts"} <= set(first.reasons)
    assert first.surplus > 0
    assert all(row["reasons"] for row in turned_down)
    again = start(descriptions=30)
    assert (again.lists, again.paid, again.before, again.added) == (0, 0, 30, 0)
    more = start(descriptions=33)
    assert (more.before, more.total, more.paid) == (30, 33, 0)
    assert [row["task"] for row in rows_under(f"{bucket}/out/tasks")][:30] == [row["task"] for row in rows]


def test_the_progress_of_a_brainstorming_is_the_descriptions_that_are_there(start: Start) -> None:
    for wanted in (30, 45):
        start(descriptions=wanted)
        assert (progress.done, progress.total) == (wanted, wanted)
    progress.total += 100
    assert progress.done == 45


def test_a_brainstorm_whose_lease_is_lost_asks_for_no_further_round_and_writes_nothing(
    start: Start, bucket: str, model_server: ModelServer
) -> None:
    def check() -> None:
        if model_server.prompts:
            raise StorageError("lost")

    order = dataclasses.replace(
        WISH.order, source=f"{bucket}/out/tasks", destination=f"{bucket}/out", api_base=model_server.api_base
    )
    wish = dataclasses.replace(WISH, order=order)
    with disable_run_logger(), pytest.raises(StorageError, match="lost"), open_model(wish.order, Plan()) as model:
        gather_task_descriptions.fn(wish, model, check)
    assert len(model_server.prompts) == WISH.wanted // LIST_LENGTH, "one round"
    assert rows_under(f"{bucket}/out/tasks") == []


def test_lists_that_an_earlier_try_of_the_step_has_paid_for_are_paid_by_the_run(
    start: Start, bucket: str, model_server: ModelServer
) -> None:
    order = dataclasses.replace(
        WISH.order, source=f"{bucket}/out/tasks", destination=f"{bucket}/out", api_base=model_server.api_base
    )
    wish = dataclasses.replace(WISH, order=order, wanted=30)
    with disable_run_logger(), open_model(wish.order, Plan()) as model:
        first, second = (gather_task_descriptions.fn(wish, model) for _ in range(2))
    assert len(model_server.prompts) == first.paid > 0
    assert (second.paid, second.cached, second.added) == (first.paid, 0, 30)


def test_a_brainstorm_that_brings_nothing_new_ends_early(start: Start, bucket: str, model_server: ModelServer) -> None:
    model_server.default = answer(json.dumps(WORDS[:20:3]))
    report = start(descriptions=100)
    assert (report.stopped, report.total) == ("little new", report.added)
    assert 0 < report.added <= 7
    assert [one.new for one in report.rounds] == [report.added, 0] or [one.new for one in report.rounds] == [
        report.added
    ]
    model_server.default = answer("no list")
    silent = start(descriptions=100, seed=1)
    assert (silent.added, silent.reasons, silent.stopped) == (0, {"not_a_list": silent.lists}, "little new")


def test_a_garbled_list_ends_nothing_and_its_unknown_cost_counts_against_the_limit(
    start: Start, bucket: str, model_server: ModelServer
) -> None:
    held = []

    def garbled_first(request: web.Request, sent: dict[str, Any]) -> web.Response:
        held.append([item.uri for item in storage.list_objects(f"{bucket}/out/staging")])
        if len(held) > 1:
            return lister(request, sent)
        reply = completion("no list")
        del reply["usage"]
        return web.json_response(reply)

    model_server.default = garbled_first
    price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-4, "max_cost_usd": 9.0}
    report = start(descriptions=18, **price)
    assert (report.total, report.stopped, report.lists) == (18, "enough", 2)
    assert report.reasons["not_a_list"] == 1
    assert report.cost_usd is None
    # At least the most tokens of a list.
    assert report.spent_usd > 4096 * 1e-4
    left = hand_on(dict.fromkeys(HANDED_ON) | price, report.source, report.spent_usd)["max_cost_usd"]
    assert left == pytest.approx(9.0 - report.spent_usd)
    # Nobody else could ask for the same lists meanwhile.
    assert held == [[Layout(f"{bucket}/out").source_lease(report.source)]] * 2
    assert storage.list_objects(f"{bucket}/out/staging") == []


def test_few_good_ones_are_enough_where_no_more_are_wanted(start: Start, model_server: ModelServer) -> None:
    model_server.default = answer(json.dumps([WORDS[0], *["Match two things."] * 19]))
    report = start(descriptions=1)
    assert (report.total, report.stopped) == (1, "enough")


def family(run_id: str) -> tuple[str, list[str]]:
    """Return the flow that ran a flow run as its sub-flow, and those of all the sub-flows of that parent."""
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

    with get_client(sync_client=True) as client:
        step = client.read_flow_run(UUID(run_id)).parent_task_run_id
        assert step is not None
        parent = client.read_task_run(step).flow_run_id
        assert parent is not None
        children = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]))
        runs = [client.read_flow_run(parent), *client.read_flow_runs(flow_run_filter=children)]
        names = [client.read_flow(run.flow_id).name for run in runs]
    return names[0], sorted(names[1:])


WRONG: dict[str, dict[str, Any]] = {
    "--model-mix": {"model_mix": ["openai/y"]},
    "--fallback-models": {"fallback_models": [" "]},
    "--language-mix": {"language_mix": "paper", "languages": ["German"]},
    "the batch API of": {"model_name": "anthropic/claude-haiku-4-5", "batch": True, "api_base": ""},
}


@pytest.mark.parametrize("said", WRONG)
def test_what_cannot_be_right_of_the_pairs_is_refused_before_a_list_is_paid_for(
    said: str, start: Start, model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    with pytest.raises(UsageError, match=said):
        start(descriptions=5, then_generate=True, **WRONG[said])
    assert model_server.prompts == []


def test_pairs_for_brainstormed_descriptions_in_one_flow(start: Start, bucket: str) -> None:
    report = start(descriptions=25, then_generate=True, pairs_per_task=2, model_mix=["openai/y=0.5"])
    assert (report.source, report.accepted, report.published) == (f"{bucket}/out/tasks", 50, True)
    assert set(report.by_model) == {"openai/x", "openai/y"}
    pairs = read_table(f"{bucket}/out/pairs")
    found = pairs.select("task", "model_name", "model_name_source", "topic", "persona", "category")
    assert (found.height, found.null_count().sum_horizontal().item()) == (50, 0)
    order = [row["task"] for row in rows_under(f"{bucket}/out/tasks")]
    assert sorted(found["task"].unique()) == sorted(order)
    assert family(report.run_id) == ("brainstorm", ["brainstorm", "short-text-matching"])


@pytest.mark.parametrize(
    ("said", "why"), [("no list", r"not_a_list \d+.* Read s3://.*/rejected-tasks/"), ("[]", "nothing was in them")]
)
def test_no_pairs_are_begun_where_no_list_brought_a_description(
    start: Start, model_server: ModelServer, said: str, why: str
) -> None:
    model_server.default = answer(said)
    with pytest.raises(RejectedError, match=rf"No task description came of \d+ lists \({why}"):
        start(descriptions=5, then_generate=True)
