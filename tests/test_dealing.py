from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dealing import Standing, deal, is_spent

WORST = 0.006
COST = 0.0006
IN_FLIGHT = 4


def test_what_is_left_goes_in_equal_parts_to_those_at_work() -> None:
    standings = {name: Standing(asked=WORST, short=True, busy=True) for name in "ab"}
    assert deal(0.05, {**standings, "idle": Standing()}, IN_FLIGHT) == {"a": 0.025, "b": 0.025, "idle": 0.0}


def test_a_process_is_lent_no_more_than_it_can_soon_use() -> None:
    standings = {name: Standing(spent=1.0, ceiling=1.0, asked=WORST, busy=True) for name in "ab"}
    assert deal(1_000.0, standings, IN_FLIGHT)["a"] == 1.0 + 2 * IN_FLIGHT * WORST


def test_who_has_nothing_to_do_gives_back_what_it_has_not_used() -> None:
    standings = {"a": Standing(ceiling=0.5, spent=0.2), "b": Standing(asked=WORST, short=True, busy=True)}
    first = deal(0.5, standings, IN_FLIGHT)
    assert first == {"a": 0.2, "b": 0.0}, "a has not confirmed yet"
    confirmed = deal(0.5, {**standings, "a": Standing(ceiling=0.2, spent=0.2)}, IN_FLIGHT)
    assert confirmed["b"] == 2 * IN_FLIGHT * WORST


def test_a_last_call_is_made_by_one_where_its_money_does_not_suffice_for_all() -> None:
    standings = {name: Standing(asked=WORST, short=True, busy=True) for name in "ab"}
    assert sorted(deal(1.5 * WORST, standings, IN_FLIGHT).values()) == [0.0, 1.5 * WORST]
    assert not is_spent(1.5 * WORST, standings)
    assert is_spent(0.9 * WORST, standings)


def test_money_that_calls_in_flight_may_leave_over_is_waited_for() -> None:
    waits = Standing(asked=WORST, short=True, busy=True)
    calls = Standing(ceiling=WORST, reserved=WORST, asked=WORST, in_flight=1, busy=True)
    assert not is_spent(WORST, {"a": waits, "b": calls})
    assert not is_spent(0.0, {})


def wait_for(*asked: float) -> dict[str, Standing]:
    return {str(number): Standing(asked=most, short=True, busy=True) for number, most in enumerate(asked)}


def test_a_call_that_the_rest_buys_is_made_where_another_costs_more() -> None:
    assert deal(0.5, wait_for(1.0, 0.1), IN_FLIGHT) == {"0": 0.0, "1": 0.5}


@given(
    asked=st.lists(st.integers(1, 9_999).map(lambda dollars: dollars * 1e-6), min_size=1, max_size=12),
    calls=st.integers(0, 12),
    spent=st.floats(0, 100),
)
def test_while_money_is_not_spent_somebody_who_waits_can_call(asked: list[float], calls: int, spent: float) -> None:
    standings = wait_for(*asked) | {"done": Standing(ceiling=spent, spent=spent)}
    money = spent + calls * asked[0]
    dealt = deal(money, standings, IN_FLIGHT)
    able = any(dealt[name] >= one.committed + one.asked for name, one in standings.items() if one.busy)
    assert able != is_spent(money, standings)


@given(
    money=st.floats(0, 2),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["work", "rest", "call", "reply"])), max_size=60),
)
def test_no_order_of_events_spends_more_than_there_is(money: float, steps: list[tuple[str, str]]) -> None:
    standings = {name: Standing() for name in "abc"}
    for name, event in steps:
        one = standings[name]
        enough = one.committed + WORST <= one.ceiling
        match event:
            case "work":
                one = replace(one, busy=True)
            case "rest" if not one.in_flight:
                one = replace(one, busy=False, short=False)
            case "call" if one.busy and enough:
                one = replace(one, asked=WORST, reserved=one.reserved + WORST, in_flight=one.in_flight + 1, short=False)
            case "call" if one.busy:
                one = replace(one, asked=WORST, short=True)
            case "reply" if one.in_flight:
                one = replace(
                    one,
                    reserved=max(0.0, one.reserved - WORST),
                    spent=one.spent + COST,
                    in_flight=one.in_flight - 1,
                )
        standings[name] = one
        dealt = deal(money, standings, IN_FLIGHT)
        assert sum(max(dealt[each], standings[each].ceiling) for each in "abc") <= money + 1e-9
        for each, ceiling in dealt.items():
            standings[each] = replace(standings[each], ceiling=max(ceiling, standings[each].committed))


@given(money=st.floats(0, 0.5))
def test_money_is_used_up_until_it_buys_no_call(money: float) -> None:
    standings = {name: Standing(asked=WORST, short=True, busy=True) for name in "ab"}
    for _ in range(2_000):
        if is_spent(money, standings):
            break
        dealt = deal(money, standings, IN_FLIGHT)
        for name, ceiling in dealt.items():
            calls = min(IN_FLIGHT, int((max(ceiling, standings[name].spent) - standings[name].spent) / WORST + 1e-9))
            spent = standings[name].spent + calls * COST
            standings[name] = replace(standings[name], ceiling=max(ceiling, spent), spent=spent)
    assert sum(one.spent for one in standings.values()) <= money
    assert money - sum(one.spent for one in standings.values()) < WORST + 1e-9
