import dataclasses
from collections import Counter
from typing import Any

import polars as pl
import pytest

from flows.order import place_order
from tasks.core.columns import COMPLETIONS
from tasks.core.distinct import normalise
from tasks.core.errors import UsageError
from tasks.core.mix import draw_model, read_mix
from tasks.core.replies import parse_replies
from tasks.core.requests import Order
from tasks.core.rules import TURNED_DOWN, judge
from tasks.core.takeovers import assign_models, find_turned_down, follow, key_requests
from tests.orders import ORDER
from tests.test_order import GIVEN

A, B, C = "openai/a", "openai/b", "openai/c"
MAIN = dataclasses.replace(ORDER, recipe=dataclasses.replace(ORDER.recipe, model_name=A, model_revision="2"))

MIXES: dict[str, tuple[list[str], dict[str, float]]] = {
    "nothing": ([], {A: 1.0}),
    "the rest": ([f"{B}=0.7"], {A: 0.3, B: 0.7}),
    "all named": ([f"{B}=0.7", f"{A}=0.3"], {A: 0.3, B: 0.7}),
    "rounded": ([f"{B}=0.3333333", f"{A}=0.6666666"], {A: 0.6666667, B: 0.3333333}),
    "rounded up": ([f"{B}=0.3333334", f"{A}=0.6666667"], {A: 0.6666667, B: 0.3333334}),
    "named with less": ([f"{A}=.1", f" {B} = .5 "], {A: 0.5, B: 0.5}),
    "a name that holds =": (["x/y=z=0.25"], {A: 0.75, "x/y=z": 0.25}),
}


@pytest.mark.parametrize("name", MIXES)
def test_the_main_model_has_what_the_shares_leave(name: str) -> None:
    given, shares = MIXES[name]
    found = read_mix(A, given)
    assert list(found) == list(shares)
    assert found == pytest.approx(shares)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no share": ({"model_mix": [B]}, "Write name=share"),
    "no name": ({"model_mix": ["=0.5"]}, "Write name=share"),
    "no number": ({"model_mix": [f"{B}=half"]}, "Write name=share"),
    "nan": ({"model_mix": [f"{B}=nan"]}, "Write name=share"),
    "percent": ({"model_mix": [f"{B}=70"]}, "between 0 and 1"),
    "zero": ({"model_mix": [f"{B}=0"]}, "between 0 and 1"),
    "twice": ({"model_mix": [f"{B}=0.1", f"{B}=0.2"]}, f"names {B} twice"),
    "too much": ({"model_mix": [f"{B}=0.7", f"{C}=0.7"]}, "add up to 1.4"),
    "a little too much": ({"model_mix": [f"{B}=0.7", f"{C}=0.30001"]}, "add up to 1.00001"),
    "next to nothing left": (
        {"model_mix": [f"{B}=0.333333333", f"{C}=0.666666666"]},
        "what they leave is for openai/x",
    ),
    "nothing left": ({"model_mix": [f"{B}=0.5", f"{C}=0.5"]}, "what they leave is for openai/x"),
    "an empty fallback": ({"fallback_models": [" "]}, "--fallback-models holds an empty one"),
    "an address": ({"fallback_models": ["http://host/v1"]}, "--fallback-models names 'http.* as --api-base"),
    "shares in one": ({"model_mix": [f"{B}=0.3,{C}=0.3"]}, f"--model-mix names '{B}=0.3,{C}'. Give each model"),
    "fallbacks in one": ({"fallback_models": [f"{B},{C}"]}, f"--fallback-models names '{B},{C}'. Give each model"),
    "a share without a provider": ({"model_mix": ["gpt-4.1-nano=0.3"]}, "--model-mix names 'gpt-4.1-nano'.*provider/"),
    "a fallback without a provider": (
        {"fallback_models": ["nonsense"]},
        "--fallback-models names 'nonsense'.*provider/",
    ),
    "the main one without a provider": (
        {"model_name": "gpt-4.1-mini", "fallback_models": [B]},
        "--model-name names 'gpt-4.1-mini'.*provider/",
    ),
    "the stand-in": ({"model_mix": ["openai/pairmill-stand-in=0.5"]}, "only serves the demo"),
    "no price of one": (
        {"max_cost_usd": 1.0, "model_name": "openai/gpt-4.1-mini", "fallback_models": [B]},
        f"litellm knows no price for {B}",
    ),
    "a price for the other": (
        {"max_cost_usd": 1.0, "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6, "model_mix": [f"{B}=0.5"]},
        f"litellm knows no price for {B}",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_models_that_cannot_be_right_are_refused_before_anything_is_read(name: str) -> None:
    changes, said = WRONG[name]
    with pytest.raises(UsageError, match=said):
        place_order(**GIVEN | changes)


def test_each_model_has_its_own_recipe_and_the_address_is_for_one_provider() -> None:
    order = place_order(
        **GIVEN | {"model_mix": [f"{B}=0.5"], "fallback_models": ["groq/c", B], "api_base": "http://host:1/v1"}
    )
    assert order.models == ("openai/x", B, "groq/c")
    assert [order.api_base_of(name) for name in order.models] == ["http://host:1/v1", "http://host:1/v1", ""]
    assert order.recipe_of("openai/x") is order.recipe
    # A revision is one model's: it would ask the others anew as well.
    assert order.recipe_of(B) == dataclasses.replace(order.recipe, model_name=B, model_revision="")


def samples(count: int) -> pl.DataFrame:
    rows = normalise(pl.DataFrame({"task": [f"match thing {row}" for row in range(count)]}))
    return rows.with_columns(
        plan_row=pl.int_range(pl.len(), dtype=pl.Int64), language=pl.lit("English"), sample_index=pl.lit(0, pl.Int64)
    )


def test_a_request_belongs_to_one_model_whatever_is_asked_for_beside_it() -> None:
    order = dataclasses.replace(MAIN, model_mix={A: 0.2, B: 0.5, C: 0.3})
    rows = samples(5_000)
    drawn = assign_models(rows, order)
    assert drawn.slice(7, 90).equals(assign_models(rows.slice(7, 90), order))
    shares = {name: count / 5_000 for name, count in Counter(drawn).items()}
    assert shares == pytest.approx(dict(order.model_mix), abs=0.03)
    other = dataclasses.replace(order, recipe=dataclasses.replace(order.recipe, seed=1))
    assert 0.3 < (assign_models(rows, other) == drawn).mean() < 0.5  # type: ignore[operator]
    again = assign_models(rows.with_columns(sample_index=pl.lit(1, pl.Int64)), order)
    assert 0.3 < (again == drawn).mean() < 0.5  # type: ignore[operator]


def test_a_share_that_changes_a_little_moves_few_requests() -> None:
    before, after = {A: 0.5, B: 0.5}, {A: 0.55, B: 0.45}
    moved = sum(draw_model(before, number) != draw_model(after, number) for number in range(2_000))
    assert 40 < moved < 160


def test_the_order_of_the_shares_moves_no_request() -> None:
    shares = {A: 0.4, B: 0.3, C: 0.3}
    turned = dict(reversed(shares.items()))
    assert [draw_model(shares, number) for number in range(500)] == [
        draw_model(turned, number) for number in range(500)
    ]


COMPLETION = dict.fromkeys(COMPLETIONS) | {"text": '{"input": "a", "positive_document": "b"}', "finish_reason": "stop"}
REPLIES: dict[str, tuple[dict[str, Any], str | None]] = {
    "a pair": ({}, None),
    "no json": ({"text": "no json"}, None),
    "cut off": ({"text": "{", "finish_reason": "length"}, None),
    "a pair about a refusal": ({"text": 'I\'m sorry: {"input": "a", "positive_document": "b"}'}, None),
    "a pair that has to do with one": (
        {"text": '{"input": "a song named sorry, but i cannot help", "positive_document": "b"}'},
        None,
    ),
    "declined in its pair": (
        {"text": '{"input": "I\'m sorry, but I can\'t help with that.", "positive_document": "b"}'},
        "refused",
    ),
    "declined in both": (
        {"text": '{"input": "", "positive_document": "As an AI language model, I do not."}'},
        "refused",
    ),
    "declined with escapes": (
        {"text": '```json\n{"input":"\\u0049 can\\u2019t assist","positive_document":"b"}\n```'},
        "refused",
    ),
    "declined and cut off": ({"text": "I'm sorry, I can't", "finish_reason": "length"}, None),
    "cut off before a word": ({"text": None, "finish_reason": "length"}, None),
    "declined": ({"text": "I'm sorry, I can't help with that."}, "refused"),
    "filtered": ({"finish_reason": "content_filter"}, "refused"),
    "silent": ({"text": None}, "refused"),
    "no choices": ({"text": None, "error": "no_choices"}, "no_choices"),
    "refused": ({"text": None, "error": "content_policy"}, "content_policy"),
    "failed": ({"text": None, "error": "call_failed"}, "call_failed"),
}


def known_as(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """Give every row this completion."""
    fields = COMPLETION | {"completed_at": ORDER.started_at, "attempts": 1, "throttled": 0} | REPLIES[name][0]
    given = pl.DataFrame([fields] * rows.height, schema=COMPLETIONS)
    return rows.drop(COMPLETIONS, strict=False).hstack(given)


@pytest.mark.parametrize("name", REPLIES)
def test_only_a_model_that_would_not_or_could_not_is_relieved(name: str) -> None:
    assert find_turned_down(known_as(samples(1), name)).to_list() == [REPLIES[name][1]]


@pytest.mark.parametrize("name", REPLIES)
def test_validation_calls_the_same_replies_turned_down(name: str) -> None:
    completions = known_as(samples(1), name)
    [reasons] = judge(completions.hstack(parse_replies(completions)).lazy()).collect()["reasons"]
    first = next(iter(reasons), None)
    assert (first if first in TURNED_DOWN else None) == REPLIES[name][1]


def test_what_was_never_asked_was_not_turned_down() -> None:
    nothing = pl.DataFrame({name: [None] for name in COMPLETIONS}, schema=COMPLETIONS)
    assert find_turned_down(nothing).to_list() == [None]


def walk(order: Order, *answers: str, fresh: bool = False) -> tuple[str, bool, bool]:
    """Follow one request whose models, in order, have given these answers; none where a name is empty.

    Returns:
        Whose it is now, whether it has a completion, and whether that was in the journal.
    """
    row = samples(1).with_columns(
        model_name=pl.lit(A), cached=pl.lit(value=bool(answers[0])), turned_down_by=pl.lit([], pl.List(pl.String))
    )
    keyed = key_requests(row, order)
    first = (
        known_as(keyed, answers[0])
        if answers[0]
        else keyed.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in COMPLETIONS.items())
    )
    others = [
        known_as(key_requests(row.with_columns(model_name=pl.lit(name)), order), given)
        for name, given in zip((B, C), answers[1:], strict=False)
        if given
    ]
    known = pl.concat(others) if others else first.clear()
    (reached, left) = follow(first, known.select("request_key", *COMPLETIONS), order, fresh=fresh)
    (end,) = reached.to_dicts()
    assert left["model_name"].to_list() == end["turned_down_by"]
    assert end["request_key"] == key_requests(reached, order)["request_key"].item()
    return end["model_name"], end["completed_at"] is not None, end["cached"]


WALKS: dict[tuple[str, ...], tuple[str, bool, bool]] = {
    ("",): (A, False, False),
    ("", "a pair"): (A, False, False),
    ("a pair", "a pair"): (A, True, True),
    ("no json",): (A, True, True),
    ("refused",): (B, False, False),
    ("refused", "a pair"): (B, True, True),
    ("refused", "no json"): (B, True, True),
    ("refused", "declined"): (C, False, False),
    ("refused", "declined", "refused"): (C, True, True),
    ("failed",): (A, False, False),
    ("failed", "a pair"): (B, True, True),
    ("failed", "refused"): (C, False, False),
    ("failed", "failed"): (A, False, False),
    ("failed", "failed", "a pair"): (C, True, True),
    ("refused", "failed"): (B, False, False),
    ("refused", "failed", "a pair"): (C, True, True),
}


# A redo goes as far, but asks nobody.
REDOS: dict[tuple[str, ...], tuple[str, bool, bool]] = {
    ("refused",): (A, True, True),
    ("refused", "declined"): (B, True, True),
    ("refused", "failed"): (A, True, True),
    ("failed", "refused"): (B, True, True),
}


@pytest.mark.parametrize("answers", WALKS, ids=" then ".join)
def test_a_request_goes_on_where_the_journal_left_it(answers: tuple[str, ...]) -> None:
    order = dataclasses.replace(MAIN, fallback_models=(B, C))
    assert walk(order, *answers) == WALKS[answers]
    assert walk(dataclasses.replace(order, on_published="redo"), *answers) == REDOS.get(answers, WALKS[answers])


def test_a_call_that_has_just_failed_is_passed_on() -> None:
    order = dataclasses.replace(MAIN, fallback_models=(B,))
    assert walk(order, "failed", fresh=True) == (B, False, False)
    assert walk(dataclasses.replace(order, on_published="redo"), "failed", fresh=True) == (A, True, True)
    assert walk(MAIN, "refused", fresh=True) == (A, True, True)
