"""How the samples of one description and language are told apart: equal prompts bring equal pairs.

The first sample of a description and language is asked for as it always was; each
later one draws a value on every axis, by a hash of description, language and
sample index. The values are our own.
"""

import hashlib
from collections.abc import Mapping, Sequence

Axes = Mapping[str, Sequence[str]]

AXES: Axes = {
    "clarity": ("clear and complete", "terse, with words left out", "roundabout, with asides", "slightly ambiguous"),
    "difficulty": ("obvious at a glance", "clear after a thought", "clear only to those who know the subject"),
    "form": ("a question", "a statement", "a request", "keywords without grammar", "a fragment of a sentence"),
    "persona": ("a beginner", "an expert", "somebody in a hurry", "an elderly person", "a student", "a sceptic"),
    "register": ("plain", "formal", "colloquial", "technical", "literary"),
    "topic": (
        *("work", "the home", "travel", "nature", "health", "money", "technology", "culture", "family", "sport"),
        *("food", "public life"),
    ),
}

_TEMPLATE = """

For this one example, as far as the task and the rules above allow:
- Take the subject from {topic}, as {persona} would put it.
- Let the input be {clarity}, in the form of {form}.
- Keep the tone {register}.
- Let the match be {difficulty}."""


def draw_variation(description: str, language: str, sample_index: int, axes: Axes = AXES) -> dict[str, str]:
    """Return the value on each axis, none for the first sample."""
    if sample_index == 0 or not axes:
        return {}
    said = f"{description}\0{language}\0{sample_index}".encode()
    digest = hashlib.blake2b(said, digest_size=2 * len(axes)).digest()
    return {
        axis: axes[axis][int.from_bytes(digest[2 * at : 2 * at + 2], "big") % len(axes[axis])]
        for at, axis in enumerate(sorted(axes))
    }


def ask_for_variation(description: str, language: str, sample_index: int, axes: Axes = AXES) -> str:
    """Return what a prompt says of its variation, nothing for the first sample."""
    values = draw_variation(description, language, sample_index, axes)
    return _TEMPLATE.format_map(values) if values else ""


def name_variation(description: str, language: str, sample_index: int) -> str | None:
    """Return the variation as a row holds it: `axis: value`, joined by `; `, or None for the first sample."""
    values = draw_variation(description, language, sample_index)
    return "; ".join(f"{axis}: {value}" for axis, value in values.items()) or None
