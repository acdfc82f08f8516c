import dataclasses

import pytest

from tasks.core.brainstorming import PERSONAS, TOPICS, Brainstorm, BrainstormRecipe, brings_little, request_lists
from tests.orders import ORDER

RECIPE = BrainstormRecipe(model_name="openai/x")
WISH = Brainstorm(
    order=dataclasses.replace(ORDER, recipe=RECIPE), wanted=100, topics=(), category="text-matching-short"
)


def test_every_topic_comes_once_before_one_comes_again_with_another_persona() -> None:
    lists = request_lists(WISH, 0, 3 * len(TOPICS))
    assert {one.topic for one in lists[: len(TOPICS)]} == set(TOPICS)
    assert len({(one.topic, one.persona) for one in lists}) == len({one.key for one in lists}) == 3 * len(TOPICS)
    assert {one.persona for one in lists} == set(PERSONAS)
    assert request_lists(WISH, 5, 2) == lists[5:7]
    other = dataclasses.replace(
        WISH, topics=("tea", "rain"), order=dataclasses.replace(ORDER, recipe=dataclasses.replace(RECIPE, seed=1))
    )
    assert {one.topic for one in request_lists(other, 0, 2)} == {"tea", "rain"}
    assert {one.key for one in request_lists(other, 0, 9)}.isdisjoint(one.key for one in lists)


@pytest.mark.parametrize("topics", [1, 2, 4, 14, 29, 40])
def test_a_topic_meets_every_persona_before_one_again(topics: int) -> None:
    wish = dataclasses.replace(WISH, topics=tuple(f"topic {number}" for number in range(topics)))
    lists = request_lists(wish, 0, topics * len(PERSONAS))
    assert len({(one.topic, one.persona) for one in lists}) == len(lists)


@pytest.mark.parametrize(
    ("new", "listed", "barren", "little"),
    [(0, 0, 1, False), (0, 0, 5, True), (1, 20, 0, True), (2, 20, 0, False), (9, 20, 4, False)],
)
def test_one_list_that_cannot_be_read_says_nothing_of_the_next(
    new: int, listed: int, barren: int, little: bool
) -> None:
    assert brings_little(new, listed, barren) is little
