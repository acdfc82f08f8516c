import asyncio

import pytest

from tasks.clients.pacing import FIRST_CALLS, PATIENCE_SECONDS, Limiter
from tasks.clients.rates import Rates
from tests.limits import anthropic_headers, openai_headers
from tests.providers import Bucket, Clock, InFlight, Provider, Window, simulate, work


@pytest.mark.parametrize("retry_after", [None, 1.0])
@pytest.mark.parametrize("seconds", [0.1, 2.0])
@pytest.mark.parametrize("allowed", [3, 8, 100])
def test_what_a_provider_allows_in_flight_is_found_and_kept_to(
    retry_after: float | None, seconds: float, allowed: int
) -> None:
    async def main(clock: Clock) -> None:
        provider = InFlight(clock, seconds)
        provider.allowed = allowed
        limiter = Limiter(256, clock=clock)
        calls = 60 * allowed + 2000 if retry_after is None else 250 * allowed
        await work(provider, limiter, calls, retry_after)
        settled = provider.served[calls // 2]
        took = provider.served[-1] - settled
        refused = sum(at > settled for at in provider.refused)
        assert calls / 2 / (took * allowed / seconds) >= (0.85 if allowed >= 8 else 0.6)
        assert refused / (refused + calls / 2) <= 0.15
        assert 0.6 * allowed <= limiter.limit <= allowed + 2

    simulate(main)


def test_the_limit_follows_a_provider_that_allows_more() -> None:
    async def main(clock: Clock) -> None:
        provider = InFlight(clock)
        limiter = Limiter(64, clock=clock)
        await work(provider, limiter, 1000)
        assert limiter.limit < 10
        provider.allowed = 40
        await work(provider, limiter, 5000)
        assert 25 < limiter.limit <= 41

    simulate(main)


def test_the_first_call_goes_alone_and_the_limit_then_doubles() -> None:
    async def main(clock: Clock) -> None:
        provider = Provider(clock)
        limiter = Limiter(256, clock=clock)
        waiting = [asyncio.create_task(provider.call(limiter, None)) for _ in range(400)]
        await asyncio.sleep(0.1)
        assert provider.in_flight == 1
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.1)
        assert provider.in_flight == FIRST_CALLS
        await asyncio.gather(*waiting)
        assert 128 < provider.most <= 256

    simulate(main)


@pytest.mark.parametrize("ceiling", [1, 5, 20])
def test_the_limit_is_never_above_the_ceiling(ceiling: int) -> None:
    async def main(clock: Clock) -> None:
        provider = Provider(clock)
        await work(provider, Limiter(ceiling, clock=clock), 500)
        assert provider.most == ceiling

    simulate(main)


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    async def main(clock: Clock) -> None:
        provider = Provider(clock)
        limiter = Limiter(256, clock=clock)
        for _ in range(300):
            await provider.call(limiter, None)
        assert limiter.limit == FIRST_CALLS

    simulate(main)


def test_a_pause_that_one_call_is_told_holds_for_all() -> None:
    async def main(clock: Clock) -> None:
        limiter = Limiter(8, clock=clock)
        limiter.limit = 8.0
        told = await limiter.acquire()
        waiting = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        limiter.throttled(told, 30.0)
        limiter.release()
        await asyncio.gather(*(asyncio.wait_for(asyncio.shield(one), 1) for one in waiting))
        late = await limiter.acquire()
        assert late.at == pytest.approx(30)

    simulate(main)


def test_one_round_trip_cuts_the_limit_once() -> None:
    async def main(clock: Clock) -> None:
        limiter = Limiter(100, clock=clock)
        limiter.limit = 100.0
        places = [await limiter.acquire() for _ in range(50)]
        await asyncio.sleep(1)
        for place in places:
            limiter.throttled(place, 0.0)
            limiter.release()
        assert limiter.limit == pytest.approx(70)

    simulate(main)


@pytest.mark.parametrize("retry_after", [None, 10.0])
def test_a_storm_of_refusals_ends_with_the_patience(retry_after: float | None) -> None:
    async def main(clock: Clock) -> None:
        limiter = Limiter(64, clock=clock)
        asked = 0
        while True:
            place = await limiter.acquire()
            asked += 1
            patient = limiter.throttled(place, retry_after)
            limiter.release()
            if not patient:
                break
        assert PATIENCE_SECONDS - 60 <= clock() <= PATIENCE_SECONDS
        assert asked < 100

    simulate(main)


@pytest.mark.parametrize(("retry_after", "patient"), [(PATIENCE_SECONDS - 1, True), (PATIENCE_SECONDS, False)])
def test_a_wait_beyond_the_patience_is_not_begun(retry_after: float, patient: bool) -> None:
    async def main(clock: Clock) -> None:
        limiter = Limiter(64, clock=clock)
        assert limiter.throttled(await limiter.acquire(), retry_after) is patient

    simulate(main)


def test_one_good_reply_ends_a_storm() -> None:
    async def main(clock: Clock) -> None:
        limiter = Limiter(64, clock=clock)
        for _ in range(100):
            place = await limiter.acquire()
            assert limiter.throttled(place, PATIENCE_SECONDS / 2)
            limiter.release()
            place = await limiter.acquire()
            limiter.succeeded(place)
            limiter.release()

    simulate(main)


def test_a_place_given_to_a_call_that_is_cancelled_is_given_back() -> None:
    async def main(clock: Clock) -> None:
        limiter = Limiter(1, clock=clock)
        place = await limiter.acquire()
        waiting = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        limiter.succeeded(place)
        limiter.release()
        waiting[1].cancel()
        await asyncio.sleep(0)
        await waiting[2]
        assert limiter.in_flight == 1

    simulate(main)


SPELLINGS = {"openai": openai_headers, "anthropic": anthropic_headers}


@pytest.mark.parametrize("kind", [Window, Bucket])
@pytest.mark.parametrize("allowed", [10, 100])
@pytest.mark.parametrize("ceiling", [8, 256])
def test_what_headers_say_is_left_is_heeded_before_it_bites(
    kind: type[Window] | type[Bucket], allowed: int, ceiling: int
) -> None:
    async def main(clock: Clock) -> None:
        provider = kind(clock, 2.0)
        provider.allowed = allowed
        if isinstance(provider, Bucket):
            provider.level, provider.rate = float(allowed), allowed / 60
        calls = 20 * allowed
        await work(provider, Limiter(ceiling, clock=clock), calls)
        assert len(provider.refused) <= 0.02 * calls
        could = min(allowed / 60, ceiling / 2)
        assert (calls - allowed) / could / provider.served[-1] >= 0.85

    simulate(main)


@pytest.mark.parametrize("spelling", list(SPELLINGS))
def test_both_spellings_of_what_is_left_are_read(spelling: str) -> None:
    async def main(clock: Clock) -> None:
        rates = Rates()
        place = rates.take(clock())
        rates.settle(place, 100)
        rates.heed(place, SPELLINGS[spelling](100, 1, 30.0), clock())
        assert rates.delay(clock()) <= 0
        rates.take(clock())
        assert 28 < rates.delay(clock()) < 32

    simulate(main)


@pytest.mark.parametrize("per_minute", [6, 600])
def test_calls_a_minute_are_capped_and_used(per_minute: int) -> None:
    async def main(clock: Clock) -> None:
        provider = Provider(clock)
        await work(provider, Limiter(256, Rates(per_minute), clock=clock), 5 * per_minute)
        started = sorted(provider.served)
        busiest = max(sum(at <= one < at + 60 for one in started) for at in started[:: max(1, per_minute // 50)])
        assert busiest <= per_minute * 1.002 + 1
        assert 5 * per_minute / (started[-1] / 60 + 1e-9) >= 0.95 * per_minute

    simulate(main)


def test_tokens_a_minute_are_capped_and_used() -> None:
    async def main(clock: Clock) -> None:
        provider = Provider(clock)
        await work(provider, Limiter(256, Rates(0, 60_000, tokens_a_call=812), clock=clock), 2000)
        minutes = provider.served[-1] / 60
        assert 0.95 * 60_000 <= sum(provider.tokens) / minutes <= 1.02 * 60_000

    simulate(main)


@pytest.mark.parametrize(("left", "waits"), [(1000, False), (999, True)])
def test_tokens_that_are_left_must_be_enough_for_a_call(left: int, waits: bool) -> None:
    rates = Rates(tokens_a_call=5000)
    place = rates.take(0.0)
    # The reply says what a call takes.
    rates.settle(place, 1000)
    rates.heed(place, {"x-ratelimit-remaining-tokens": str(left), "x-ratelimit-reset-tokens": "30s"}, 0.0)
    assert (rates.delay(0.0) > 29) is waits
    assert rates.delay(31.0) <= 0


def test_a_limit_below_one_call_is_not_waited_for_without_end() -> None:
    rates = Rates(tokens_a_call=5000)
    told = {"x-ratelimit-limit-tokens": "10", "x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "30s"}
    rates.heed(rates.take(0.0), told, 0.0)
    assert rates.delay(0.0) > 0
    assert rates.delay(31.0) <= 0


def test_a_refusal_that_the_headers_explain_does_not_cut_the_limit() -> None:
    async def main(clock: Clock) -> None:
        limiter = Limiter(64, clock=clock)
        limiter.limit = 64.0
        for remaining, limit in ((0, 64.0), (5, 64.0 * 0.7)):
            place = await limiter.acquire()
            limiter.rates.settle(place, None)
            limiter.rates.heed(place, openai_headers(100, remaining, 10.0), clock())
            limiter.throttled(place, None)
            limiter.release()
            assert limiter.limit == pytest.approx(limit)
            await asyncio.sleep(11)

    simulate(main)


@pytest.mark.parametrize(("reset", "stops"), [(PATIENCE_SECONDS - 1, False), (PATIENCE_SECONDS + 1, True)])
def test_a_limit_that_is_used_up_for_longer_than_the_patience_is_not_waited_for(reset: float, stops: bool) -> None:
    async def main(clock: Clock) -> None:
        limiter = Limiter(64, clock=clock)
        place = await limiter.acquire()
        limiter.rates.settle(place, 100)
        limiter.rates.heed(place, openai_headers(100, 0, reset), clock())
        waiting = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        limiter.release()
        if stops:
            for one in await asyncio.gather(*waiting, return_exceptions=True):
                assert "used up for another 601 seconds" in str(one)
            assert clock() < 1
        else:
            await asyncio.gather(*waiting)
            assert clock() == pytest.approx(reset, abs=1)

    simulate(main)
