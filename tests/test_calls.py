import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tasks.clients.attempts import ATTEMPTS, Attempts, Request
from tasks.clients.breaker import EQUAL_REFUSALS, FAILURE_STREAK
from tasks.clients.budget import AROUND_PROMPT_TOKENS, Budget
from tasks.clients.calls import ModelClient
from tasks.clients.outcome import CallFault, Reply
from tasks.clients.pacing import Ceiling
from tasks.core.errors import RESUME, ModelError, StoppedError, StorageError
from tasks.core.price import Price
from tests.kept import Kept

GOOD = Reply("a text", "stop", "answering", 200, 40, 0.001)
PRICE = Price(1e-6, 1e-5)
# Seconds that no machine takes.
LONG = 600


class Model:
    """A model as a function: answers the n-th call, from 1 on, with what `answer` makes of n."""

    def __init__(self, answer: Callable[[int], Reply | CallFault], seconds: float = 0.0) -> None:
        self.calls = self.in_flight = self.most_in_flight = 0
        self._answer, self._seconds = answer, seconds

    async def __call__(self, prompt: str) -> Reply:
        self.calls += 1
        answered = self._answer(self.calls)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self.in_flight -= 1
        if isinstance(answered, CallFault):
            raise answered
        return answered


def complete(
    call: Callable[[str], Awaitable[Reply]], kept: Kept, requests: int = 1, concurrency: int = 16, **options: Any
) -> list[dict[str, Any]]:
    with ModelClient(Attempts(call, kept, concurrency, **{"backoff_seconds": 0.001, **options})) as model:
        return model.complete([Request(f"key {number}", f"prompt {number}") for number in range(requests)])


def always(answer: Reply | CallFault) -> Callable[[int], Reply | CallFault]:
    return lambda number: answer


def test_every_request_has_its_completion_in_order_and_in_the_journal() -> None:
    kept = Kept()
    completions = complete(Model(lambda number: Reply(f"text {number}", "stop", "m", 1, 1, None), 0.001), kept, 100)
    assert completions == [kept.completions[f"key {number}"] for number in range(100)]


def test_no_more_calls_are_told_of_than_ever_were_in_flight() -> None:
    with ModelClient(Attempts(Model(always(GOOD), 0.001), Kept(), 256)) as client:
        client.complete([Request(f"key {number}", f"prompt {number}") for number in range(5)])
        assert client.limit == 4, "the first goes alone"


def test_equal_requests_in_flight_are_asked_once() -> None:
    model, kept = Model(always(GOOD), 0.05), Kept()
    with ModelClient(Attempts(model, kept, 8)) as client:
        completions = client.complete([Request("one key", "one prompt")] * 5)
    assert (model.calls, len(completions), len(kept.completions)) == (1, 5, 1)


UNREACHED = CallFault("transient", "cannot connect", unreached=True)


def test_a_server_that_was_never_there_stops_the_run_at_the_first_calls() -> None:
    model = Model(always(UNREACHED))
    with pytest.raises(ModelError, match="No call reached the model") as caught:
        complete(model, Kept(), 100)
    assert "(cannot connect)" in str(caught.value)
    assert model.calls <= 16 * ATTEMPTS


def test_a_server_that_goes_away_costs_the_rows_that_it_was_asked_for_meanwhile() -> None:
    model, kept = Model(lambda number: GOOD if number <= 10 else UNREACHED), Kept()
    with pytest.raises(StoppedError, match=f"{FAILURE_STREAK} calls in a row failed"):
        complete(model, kept, 100)
    assert len(kept.completions) == 10


def test_a_throttled_call_is_no_attempt() -> None:
    throttled = CallFault("throttled", "too many", retry_after=0.0)
    (completion,) = complete(Model(lambda number: throttled if number <= 7 else GOOD), Kept())
    assert (completion["attempts"], completion["throttled"], completion["error"]) == (1, 7, None)


def test_a_storm_of_refusals_stops_the_run_resumable() -> None:
    kept, throttled = Kept(), CallFault("throttled", "too many requests", retry_after=0.05)
    model = Model(lambda number: GOOD if number <= 50 else throttled)
    with pytest.raises(StoppedError) as caught:
        complete(model, kept, 1000, patience_seconds=0.5)
    assert len(kept.completions) == 50
    assert "rate limit" in str(caught.value)
    assert "too many requests" in str(caught.value)
    assert RESUME in str(caught.value)
    # One call a pause at the end, not each of a thousand.
    assert model.calls < 150


def test_a_wait_beyond_the_patience_stops_the_run_and_is_named() -> None:
    with pytest.raises(StoppedError, match="asks to wait 3,600 seconds"):
        complete(Model(always(CallFault("throttled", "daily limit", retry_after=3600.0))), Kept())


def test_nothing_is_called_after_a_stop_but_what_was_in_flight() -> None:
    kept, fatal = Kept(), CallFault("fatal", "the key is refused.")
    model = Model(lambda number: fatal if number == 101 else GOOD, 0.002)
    with pytest.raises(ModelError, match="the key is refused"):
        complete(model, kept, 100_000)
    assert model.calls <= 101 + 16


def test_a_refused_key_costs_one_call_of_a_hundred_thousand() -> None:
    model = Model(always(CallFault("fatal", "the key is refused.")))
    with pytest.raises(ModelError):
        complete(model, Kept(), 100_000, 256)
    assert model.calls == 1


@pytest.mark.parametrize(("good_at", "stops"), [(FAILURE_STREAK, True), (FAILURE_STREAK - 1, False)])
def test_a_streak_of_final_failures_trips_the_breaker(good_at: int, stops: bool) -> None:
    def answer(prompt: str) -> bool:
        return int(prompt.split()[1]) in {0, 1, good_at + 2}

    async def call(prompt: str) -> Reply:
        if answer(prompt):
            return GOOD
        raise CallFault("transient", "connection reset")

    kept = Kept()
    if stops:
        with pytest.raises(StoppedError, match=f"{FAILURE_STREAK} calls in a row failed .*connection reset") as caught:
            complete(call, kept, good_at + 3, 1)
        assert RESUME in str(caught.value)
        assert len(kept.completions) == 2
    else:
        assert len(complete(call, kept, good_at + 3, 1)) == good_at + 3


@pytest.mark.parametrize(
    ("reasons", "stops"),
    [
        (["bad_request"] * 50, True),
        (["bad_request"] * 49, False),
        (["bad_request"] * 49 + ["content_policy"] * 50, False),
        (["bad_request"] * 49 + [""] + ["bad_request"] * 60, False),
    ],
)
def test_fifty_equal_refusals_at_the_start_stop_the_run(reasons: list[str], stops: bool) -> None:
    assert EQUAL_REFUSALS == 50

    def answer(number: int) -> Reply | CallFault:
        reason = reasons[number - 1]
        return CallFault("refused", "no", reason=reason) if reason else GOOD

    kept = Kept()
    if stops:
        with pytest.raises(StoppedError, match=r"each of the first 50 requests .* for one reason, bad_request"):
            complete(Model(answer), kept, len(reasons), 1)
    else:
        complete(Model(answer), kept, len(reasons), 1)
    assert len(kept.completions) == len(reasons)


def test_a_journal_that_is_lost_stops_the_paying() -> None:
    kept = Kept()
    kept.lost = StorageError("the disk is gone")
    model = Model(always(GOOD))
    with pytest.raises(StorageError, match="the disk is gone"):
        complete(model, kept, 10)
    assert model.calls == 0


def test_a_call_that_does_not_end_is_ended_by_the_deadline() -> None:
    hangs = Model(always(GOOD), 3600)
    (completion,) = complete(hangs, Kept(), deadline_seconds=0.02)
    assert (completion["error"], completion["attempts"], hangs.in_flight) == ("call_failed", 5, 0)


def test_a_price_of_ones_own_is_what_a_completion_costs() -> None:
    (completion,) = complete(Model(always(GOOD)), Kept(), price=PRICE)
    assert completion["cost_usd"] == pytest.approx(200 * 1e-6 + 40 * 1e-5)


def test_without_the_tokens_the_cost_is_unknown() -> None:
    reply = Reply("a text", "stop", "m", None, None, None)
    (completion,) = complete(Model(always(reply)), Kept(), price=PRICE)
    assert completion["cost_usd"] is None


def worst(max_tokens: int = 100) -> float:
    return PRICE.of(len(b"prompt 0") + AROUND_PROMPT_TOKENS, max_tokens)


@pytest.mark.parametrize("concurrency", [1, 16, 256])
def test_a_budget_is_never_exceeded_and_nearly_used(concurrency: int) -> None:
    # A reply costs 0.0006, less than the worst case that is reserved for it.
    budget, kept = Budget(0.3, PRICE, 100), Kept()
    model = Model(always(GOOD), 0.001)
    with pytest.raises(StoppedError, match="--max-cost-usd") as caught:
        complete(model, kept, 1000, concurrency, budget=budget, price=PRICE)
    spent = sum(float(one["cost_usd"]) for one in kept.completions.values())
    assert budget.max_cost_usd - worst() * 1.01 <= spent <= budget.max_cost_usd
    assert model.calls == len(kept.completions)
    assert "run the same command again" in str(caught.value)


def test_a_budget_below_one_call_pays_for_none() -> None:
    model = Model(always(GOOD))
    with pytest.raises(StoppedError, match="Run again with a higher one") as caught:
        complete(model, Kept(), budget=Budget(worst() * 0.99, PRICE, 100))
    assert "the same command" not in str(caught.value), "it would stop there again"
    assert model.calls == 0
    complete(model, Kept(), budget=Budget(worst() * 1.01, PRICE, 100))
    assert model.calls == 1


LOST = CallFault("transient", "reset in the body", billed=True)
REFUSED = CallFault("transient", "503", billed=False)


@pytest.mark.parametrize(("fault", "attempts"), [(LOST, 3), (REFUSED, 5), (CallFault("refused", "no", "bad"), 1)])
def test_a_reply_that_was_lost_counts_at_its_worst_and_a_refusal_costs_nothing(fault: CallFault, attempts: int) -> None:
    budget = Budget(worst() * 3.5, PRICE, 100)
    model = Model(always(fault))
    try:
        complete(model, Kept(), budget=budget)
    except StoppedError:
        assert fault is LOST
    assert model.calls == attempts
    assert budget.spent == pytest.approx(3 * worst() if fault is LOST else 0.0)


def test_a_reply_without_usage_counts_at_its_worst() -> None:
    budget = Budget(worst() * 10, PRICE, 100)
    complete(Model(always(Reply("a text", "stop", "m", None, None, None))), Kept(), budget=budget, price=PRICE)
    assert budget.spent == pytest.approx(worst())


@pytest.mark.parametrize("text", ["a", "ü", "漢字", "🎉🎉", "\n" * 10])
def test_the_worst_case_counts_each_byte_as_a_token(text: str) -> None:
    budget = Budget(1, Price(1.0, 0.0), 10)
    assert budget.worst(text) - budget.worst("") == len(text.encode())


def test_a_shard_is_asked_for_whole_before_the_next_begins_and_their_ends_overlap() -> None:
    prompts: list[str] = []
    last_of_first = threading.Event()

    async def call(prompt: str) -> Reply:
        prompts.append(prompt)
        if prompt == "0 of 19":
            # It is answered only when the next shard has begun.
            await asyncio.get_running_loop().run_in_executor(None, last_of_first.wait, LONG)
        if prompt.startswith("1"):
            last_of_first.set()
        await asyncio.sleep(0.001)
        return GOOD

    with ModelClient(Attempts(call, Kept(), 4)) as client, ThreadPoolExecutor(2) as steps:
        shards = [[Request(f"{shard} {row}", f"{shard} of {row}") for row in range(20)] for shard in range(2)]
        first = steps.submit(client.complete, shards[0])
        while not prompts:
            time.sleep(0.001)
        second = steps.submit(client.complete, shards[1])
        assert (len(first.result(LONG)), len(second.result(LONG))) == (20, 20)
    assert [prompt[0] for prompt in prompts] == ["0"] * 20 + ["1"] * 20


def test_money_that_is_lent_when_all_is_over_is_taken_by_nobody() -> None:
    budget = Budget(0.3, PRICE, 100)
    with ModelClient(Attempts(Model(always(GOOD)), Kept(), 8, budget=budget)) as client:
        client.borrow()
    client.lend(1.0)
    assert client.standing.ceiling == 0.0


def test_no_requests_have_no_completions() -> None:
    assert complete(Model(always(GOOD)), Kept(), requests=0) == []


def test_a_failed_call_waits_as_long_as_it_is_asked_to_but_not_beyond_the_patience() -> None:
    busy = CallFault("transient", "503", retry_after=3600.0)
    started = time.monotonic()
    (completion,) = complete(Model(lambda number: busy if number == 1 else GOOD), Kept(), patience_seconds=0.05)
    assert completion["attempts"] == 2
    assert 0.05 <= time.monotonic() - started < 600


def ask_two(
    first: Callable[[str], Awaitable[Reply]],
    second: Callable[[str], Awaitable[Reply]],
    relieved: bool,
    **options: Any,
) -> tuple[list[dict[str, Any]], Kept, list[dict[str, Any]]]:
    """Ask the first of two models for 60 completions and the second one for 60 others, at once."""
    kept, other, ceiling = Kept(), Kept(), Ceiling(8)
    each = [
        Attempts(model, record, ceiling, backoff_seconds=0.001, **options)
        for model, record in ((first, kept), (second, other))
    ]
    with ModelClient(each[0], others={"second": each[1]}) as client, ThreadPoolExecutor(2) as steps:
        requests = [Request(f"key {number}", f"prompt {number}", "first", relieved) for number in range(60)]
        theirs = [Request(f"other {number}", f"prompt {number}", "second") for number in range(60)]
        done = steps.submit(client.complete, requests), steps.submit(client.complete, theirs)
        return done[0].result(LONG), kept, done[1].result(LONG)


DOWN = {
    "failing": (CallFault("transient", "503"), {}),
    "refusing all": (CallFault("refused", "no", reason="content_policy"), {}),
    "throttled": (CallFault("throttled", "429", retry_after=0.01), {"patience_seconds": 0.1}),
    "throttled for long": (CallFault("throttled", "429", retry_after=3600.0), {}),
}


@pytest.mark.parametrize("name", DOWN)
def test_a_model_that_is_down_is_relieved_of_the_rest_at_once_and_stops_no_other(name: str) -> None:
    fault, options = DOWN[name]
    model, good = Model(always(fault)), Model(always(GOOD), 0.001)
    completions, kept, theirs = ask_two(model, good, relieved=True, **options)
    assert {one["error"] for one in completions} <= {"call_failed", fault.reason}
    assert [one["text"] for one in theirs] == ["a text"] * 60
    # The journal knows of each, so that a later run goes straight to the model that took it over.
    assert completions == [kept.completions[f"key {number}"] for number in range(60)]
    most = {"refused": EQUAL_REFUSALS + 8, "transient": 5 * (FAILURE_STREAK + 8), "throttled": 60}
    assert 0 < model.calls <= most[fault.kind]


@pytest.mark.parametrize("name", DOWN)
def test_a_model_that_is_down_stops_the_run_where_nobody_takes_over_and_is_named(name: str) -> None:
    fault, options = DOWN[name]
    with pytest.raises(StoppedError, match="first: " if fault.kind in ("transient", "refused") else "rate limit"):
        ask_two(Model(always(fault)), Model(always(GOOD), 0.001), relieved=False, **options)


def test_models_share_the_calls_in_flight_and_none_waits_for_the_others_to_end() -> None:
    models = Model(always(GOOD)), Model(always(GOOD))
    together: list[int] = []

    def watch(model: Model, other: Model) -> Callable[[str], Awaitable[Reply]]:
        async def call(prompt: str) -> Reply:
            together.append(model.in_flight + other.in_flight + 1)
            # The last call of one is answered when the other's last has begun.
            while model.calls == 59 and other.calls < 59:
                await asyncio.sleep(0.001)
            return await model(prompt)

        return call

    completions, _, theirs = ask_two(watch(*models), watch(*reversed(models)), relieved=False)
    assert (len(completions), len(theirs)) == (60, 60)
    assert max(together) <= 8


def test_a_budget_counts_each_model_at_its_own_price() -> None:
    dear = Budget(1.0, PRICE, 100, {"dear": Price(PRICE.input * 2, PRICE.output * 2)})
    assert dear.worst("prompt 0", "dear") == pytest.approx(2 * dear.worst("prompt 0", "cheap"))
    assert dear.worst("prompt 0") == worst()
