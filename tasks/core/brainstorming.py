"""Task descriptions out of nothing: the prompt, and its spread of settings.

Recipe: arXiv:2401.00368, brainstorming of short-short matching tasks. The wording
and the settings are our own.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from math import ceil
from typing import Annotated, Literal

from pydantic import WithJsonSchema

from tasks.core.requests import Order, Recipe, request_keys

# Prefect's form makes a dropdown of an enum; of one value, pydantic would make a "const".
Category = Annotated[
    Literal["text-matching-short"], WithJsonSchema({"type": "string", "enum": ["text-matching-short"]})
]

LIST_LENGTH = 20
# A round of lists in which fewer of the descriptions than this share are new ends the brainstorming.
LITTLE_NEW = 0.1
# Lists in a row without a description to read that end it, too. One alone says nothing of the next.
MOST_BARREN = 5

TEMPLATE = """\
Make up {count} different text matching tasks. In each of them somebody has one very short text, a phrase or a \
sentence, and looks for another very short text that goes with it.

Setting to start from: {topic}, as {persona} would meet it.

Three tasks from other settings, to show the form:
- Given a line of dialogue, find the emotion that it shows.
- Match a symptom of a house plant with its likely cause.
- Given a sports headline, retrieve another headline about the same event.

Keep to this:
- Each task is one sentence in English of at most 25 words that says what is given and what is to be found.
- Both texts are very short. No task needs an article, a report, a page, a book or any other long text.
- Each task asks for one thing, and is general enough that thousands of different pairs fit it.
- No two tasks ask for the same thing in other words.
- Reply with a JSON list of {count} strings and nothing else."""

# Where no topics are named.
TOPICS = (
    *("cooking and food", "medicine and symptoms", "law and contracts", "personal finance", "travel and places"),
    *("software and error messages", "household repairs", "gardening and plants", "animals and pets", "sports"),
    *("music and songs", "films and series", "books and authors", "history", "geography", "physics and chemistry"),
    *("mathematics", "language and proverbs", "schools and exams", "jobs and skills", "shopping and products"),
    *("customer complaints", "public transport", "cars and driving", "weather", "news headlines", "social media posts"),
    *("religion and customs", "games and riddles", "art and design", "fashion", "farming", "energy and environment"),
    *("emergencies and safety", "parenting", "relationships", "psychology and feelings", "government services"),
    *("astronomy", "manufacturing and tools"),
)
PERSONAS = (
    *("a curious pupil", "a nurse on night shift", "a shop assistant", "a retired engineer", "a translator"),
    *("a small farmer", "a call centre agent", "a new immigrant", "a journalist", "a software tester"),
    *("a grandparent", "a hotel receptionist", "a lawyer's clerk", "a research librarian", "a bus driver"),
)


@dataclass(frozen=True, kw_only=True)
class BrainstormRecipe(Recipe):
    """A recipe whose completions are lists of task descriptions."""

    @cached_property
    def canonical(self) -> bytes:
        """The recipe as bytes that are equal for equal recipes only."""
        return json.dumps([TEMPLATE, LIST_LENGTH, asdict(self)], sort_keys=True).encode()


@dataclass(frozen=True, kw_only=True)
class Brainstorm:
    """One brainstorming: `wanted` task descriptions in all, beside those that are there.

    `order` says where and with which model; its source is where the descriptions go.
    """

    order: Order
    wanted: int
    topics: tuple[str, ...]
    category: Category


def most_lists(wish: Brainstorm) -> int:
    """Return how many lists are asked for at most."""
    return 3 * ceil(wish.wanted / LIST_LENGTH)


@dataclass(frozen=True)
class ListRequest:
    """One wanted list of descriptions, and the setting that its prompt names."""

    key: str
    prompt: str
    topic: str
    persona: str


def request_lists(wish: Brainstorm, first: int, count: int) -> list[ListRequest]:
    """Return the requests for the lists from number `first` on; the settings are a hash of the seed and the number.

    Every topic comes once, in a mixed order, before one comes again with another persona.
    """
    seed = wish.order.recipe.seed
    topics, personas = _mix(wish.topics or TOPICS, seed), _mix(PERSONAS, seed)
    numbers = range(first, first + count)
    places = [divmod(at, len(topics)) for at in numbers]
    settings = [(topics[at], personas[(at + round_) % len(personas)]) for round_, at in places]
    prompts = [TEMPLATE.format(count=LIST_LENGTH, topic=topic, persona=persona) for topic, persona in settings]
    keys = request_keys(wish.order.recipe, prompts, numbers)
    return [ListRequest(key, prompt, *setting) for key, prompt, setting in zip(keys, prompts, settings, strict=True)]


def _mix(names: Iterable[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest())


def brings_little(new: int, listed: int, barren: int) -> bool:
    """Whether it is no use to ask on.

    `new` of the `listed` descriptions of a round's readable lists are new; the last `barren` lists held none.
    """
    return new < LITTLE_NEW * listed or barren >= MOST_BARREN
