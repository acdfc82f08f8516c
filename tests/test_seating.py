from tasks.core.seating import Seating

PATIENCE = 10.0


def test_those_of_the_start_have_the_places_and_who_joins_has_none() -> None:
    seating = Seating(2, PATIENCE)
    assert seating.seat("ab", (), 0.0) == ["a", "b"]
    assert seating.seat("0abc", "0", 1000.0) == ["a", "b"]


def test_the_place_of_one_that_is_gone_falls_free_after_a_while_and_goes_to_one_that_waits() -> None:
    seating = Seating(2, PATIENCE)
    seating.seat("ab", (), 0.0)
    assert seating.seat("bcd", "d", PATIENCE) == ["b"]
    assert seating.seat("bcd", "d", PATIENCE + 0.1) == ["b", "d"]


def test_one_that_comes_back_in_time_keeps_its_place() -> None:
    seating = Seating(2, PATIENCE)
    seating.seat("ab", (), 0.0)
    assert seating.seat("bc", (), 1.0) == ["b"]
    assert seating.seat("abc", (), 2.0) == ["a", "b"]
