"""What a run wants: the order, the recipe of its completions, and their keys."""

import hashlib
import itertools
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial
from typing import Literal

from tasks.core.languages import LANGUAGES
from tasks.core.layout import Layout
from tasks.core.prompts import RESPONSE_SCHEMA, TEMPLATE, build_prompt
from tasks.core.variations import AXES

OnPublished = Literal["add", "redo"]
# The most pairs a task, times the most attempts a pair, that a run can order.
MOST_SAMPLES = 2_000
# A description is a phrase or a sentence, and stands in every prompt for it: what is longer is a document.
MOST_CHARACTERS = 10_000
# What only marks a row, unless the run rejects it; see rules.
RowFlag = Literal["doubtful_language", "personal_data"]
LanguageMix = Literal["each", "paper"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything but the description that decides what a completion is.

    `structured_output` says whether RESPONSE_SCHEMA is asked for. `api_base` and keys
    are not here: where a model is served does not change what it is.
    """

    model_name: str
    model_revision: str = ""
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    structured_output: bool = True
    seed: int = 42

    @cached_property
    def canonical(self) -> bytes:
        """The recipe as bytes that are equal for equal recipes only."""
        schema = RESPONSE_SCHEMA if self.structured_output else None
        return json.dumps([TEMPLATE, schema, asdict(self), AXES], sort_keys=True).encode()

    @property
    def recipe_id(self) -> str:
        """64 bits in hex: names the journal's prefix."""
        return hashlib.blake2b(self.canonical, digest_size=8).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Order:
    """One run, resolved: what it reads, what it wants and where that goes.

    0 requests or tokens a minute are no cap, 0 US dollars no limit, and a price of
    0 is litellm's own. `batch_deadline` is in hours after the start. `recipe` is that
    of the main model; its price and revision are for that one alone, its address for all
    models of its provider. `model_mix` is empty where it writes every request.
    """

    run_id: str
    started_at: datetime
    source: str
    destination: str
    partition: str
    languages: tuple[str, ...]
    language_mix: LanguageMix
    pairs_per_task: int
    max_attempts_per_pair: int
    on_published: OnPublished
    recipe: Recipe
    api_base: str
    concurrency: int
    max_rejected_share: float
    max_drift: float = 1.0
    reject_flagged: Sequence[RowFlag] = ()
    limit: int
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_cost_usd: float = 0.0
    input_cost_per_token: float = 0.0
    output_cost_per_token: float = 0.0
    batch: bool = False
    batch_deadline: int = 24
    model_mix: Mapping[str, float] = field(default_factory=dict)
    fallback_models: tuple[str, ...] = ()

    @property
    def shares(self) -> Mapping[str, float]:
        """Each model's share of the requests, 1 in all."""
        return self.model_mix or {self.recipe.model_name: 1.0}

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that the run may call."""
        return tuple(dict.fromkeys((*self.shares, *self.fallback_models)))

    def recipe_of(self, model_name: str) -> Recipe:
        """The recipe by which a model writes its requests."""
        return self._recipes[model_name]

    @cached_property
    def _recipes(self) -> dict[str, Recipe]:
        others = {name: replace(self.recipe, model_name=name, model_revision="") for name in self.models}
        return others | {self.recipe.model_name: self.recipe}

    def api_base_of(self, model_name: str) -> str:
        """The address that a model is asked at; empty is its provider's own."""
        ours, theirs = (name.partition("/")[0] for name in (self.recipe.model_name, model_name))
        return self.api_base if ours == theirs else ""

    def journal_of(self, model_name: str) -> str:
        """The prefix of what was paid for under a model's recipe."""
        return self.layout.journal(self.recipe_of(model_name).recipe_id)

    @property
    def layout(self) -> Layout:
        """Where everything of this run lies."""
        return Layout(self.destination)

    @property
    def staging(self) -> str:
        """The prefix of this run's plan and shard files."""
        return self.layout.staging(self.partition, self.run_id)


def normalise_description(text: str) -> str:
    """Return `text` stripped and in Unicode's NFC: the description's identity."""
    return unicodedata.normalize("NFC", text).strip()


def hash_descriptions(descriptions: Iterable[str]) -> list[str]:
    """Return the 128-bit hash of each normalised description, in hex."""
    return [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in descriptions]


def request_keys(recipe: Recipe, prompts: Iterable[str], sample_indexes: Iterable[int]) -> list[str]:
    """Return the 128-bit key of each request, in hex.

    In it: the rendered prompt, the recipe with its seed, and the sample index.
    Not in it: api_base, keys, partition and run.
    """
    return _keys(recipe.canonical, zip(prompts, sample_indexes, strict=True))


def lists_descriptions(canonical: bytes) -> bool:
    """Whether the completions of a recipe are lists of descriptions: asked for by a setting, not for a description."""
    return "{task}" not in json.loads(canonical)[0]


def possible_keys(canonical: bytes, description: str) -> list[str]:
    """Return every key that requests for a description can have under a recipe, whatever their language and sample."""
    template, _, _, *rest = json.loads(canonical)
    build = partial(build_prompt, template=template, axes=rest[0] if rest else {})
    asked = itertools.product(LANGUAGES, range(MOST_SAMPLES))
    return _keys(canonical, ((build(description, language, sample), sample) for language, sample in asked))


def _keys(canonical: bytes, asked: Iterable[tuple[str, int]]) -> list[str]:
    start = hashlib.blake2b(canonical, digest_size=16)
    keys = []
    for prompt, sample_index in asked:
        digest = start.copy()
        digest.update(b"\0%d\0" % sample_index)
        digest.update(prompt.encode())
        keys.append(digest.hexdigest())
    return keys
