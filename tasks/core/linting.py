"""What is wrong with a brainstormed task description."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import polars as pl

from tasks.core.keys import fold
from tasks.core.languages import LANGUAGES
from tasks.core.parsing import as_unicode, parse_list
from tasks.core.requests import normalise_description
from tasks.core.showing import shown

# Reasons of rows that are no description but raw text.
RAW = frozenset({"not_text", "not_a_list", "truncated"})
MOST_WORDS = 30
MOST_CHARACTERS = 240

_NUMBERED = re.compile(r"\A\s*(?:\(?\d{1,3}[.):]|[-*•–])\s+")
# A part of a long text that is short itself, with what it is a part of.
_TITLES = re.compile(
    r"(?:\b\w+ )?\b(?:titles?|headlines?|names?|captions?|openings?|lines?|phrases?|sentences?|quotes?|pitch(?:es)?"
    r"|categor(?:y|ies)|types?)\b(?: of (?:an? |the )?\w+)?"
)
_LONG = re.compile(
    r"\b(?:articles?|essays?|documents?|research papers?|books?|chapters?|passages?|paragraphs?|transcripts?"
    r"|web ?pages?|websites?|blog posts?|manuals?|novels?|speech(?:es)?|summar(?:y|ies)|full text)\b"
)
_SEVERAL = re.compile(
    r";|(?<!\be\.g|\bi\.e)[.!?]\s+\S"
    r"|\bas well as\b|\b(?:and|then)(?: also| then)? (?:find|match|retrieve|identify|list|explain|classify"
    r"|determine|translate|summari[sz]e|rank|write|say|give|decide)\b"
)
_SPECIFIC = re.compile(r"\d{2,}|[\"“”«»]|https?:|@\w")
# Names with capitals that are general enough.
_LANGUAGE_WORDS = frozenset(word for name in LANGUAGES for word in name.split())
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"')
# What stands around an item in a text that is no list.
_AROUND = " \t.,;:'\"`*_()[]{}"
_STOP_WORDS = frozenset(
    (
        *("a", "an", "the", "of", "to", "for", "with", "and", "or", "in", "on", "at", "by", "from", "it", "is", "that"),
        *("this", "which", "given", "find", "match", "retrieve", "identify", "get", "locate", "select", "pair", "link"),
        *("another", "other", "some", "one", "their", "his", "her", "your"),
    )
)


def lists_description(text: str, description: str) -> bool:
    """Whether a reply lists this description as a whole item; of one that is no list, as a line or in quotes."""
    items = parse_list(text)
    if items is not None:
        return any(normalise_description(clean_item(item)) == description for item in _find_texts(items))
    parts = text.splitlines()
    for quoted in _QUOTED.findall(text):
        with suppress(ValueError):
            parts.append(json.loads(quoted))
    bare = description.strip(_AROUND)
    return bare != "" and any(normalise_description(clean_item(part)).strip(_AROUND) == bare for part in parts)


def _find_texts(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for held in value.values() if isinstance(value, dict) else value:
            yield from _find_texts(held)


class Linter:
    """Finds what is wrong with a description, and remembers the good ones that it has seen."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._near: set[str] = set()

    def remember(self, descriptions: Iterable[str]) -> int:
        """Take descriptions that are there already; returns how many distinct ones."""
        for key in filter(None, _match_keys(list(descriptions))):
            self._add(key)
        return len(self._keys)

    def judge(self, items: list[Any]) -> Iterator[tuple[str, list[str]]]:
        """Yield each item's text, without a number in front, and every reason against it, none for a good one."""
        texts = [clean_item(item) if isinstance(item, str) else "" for item in items]
        for item, text, key in zip(items, texts, _match_keys(texts), strict=True):
            if not isinstance(item, str):
                yield as_unicode(json.dumps(item, ensure_ascii=False)), ["not_text"]
                continue
            reasons = [reason for reason, holds in _check(text, key).items() if holds]
            if key and key in self._keys:
                reasons.append("repeated")
            elif self._near & _near_keys(key):
                reasons.append("near_duplicate")
            if not reasons:
                self._add(key)
            yield text, reasons

    def _add(self, key: str) -> None:
        self._keys.add(key)
        self._near |= _near_keys(key)


def clean_item(text: str) -> str:
    """Return an item of a list on one line, without a number in front."""
    return _NUMBERED.sub("", " ".join(as_unicode(text).split()))


def _check(text: str, key: str) -> dict[str, bool]:
    words = len(key.split())
    plain = _TITLES.sub("", text.lower())
    names = [word for word in re.findall(r"(?<=[a-z,] )[A-Z][a-z]{2,}", text) if word not in _LANGUAGE_WORDS]
    return {
        "empty": not key,
        "too_short": 0 < words < 4,
        "too_long": words > MOST_WORDS or len(text) > MOST_CHARACTERS,
        "long_texts": bool(_LONG.search(plain)),
        "several_things": bool(_SEVERAL.search(text.lower())),
        "over_specific": bool(_SPECIFIC.search(text)) or bool(names),
        "control_characters": shown(text) != text,
        "mojibake": "\ufffd" in text,
    }


def _match_keys(texts: list[str]) -> list[str]:
    return pl.DataFrame({"text": texts}, schema={"text": pl.String}).select(fold(pl.col("text")))["text"].to_list()


def _near_keys(key: str) -> set[str]:
    """Return the telling words in order of the alphabet, and, of five or more, with each one left out.

    None of a text that is too long: they would be its length squared.
    """
    if len(key) > MOST_CHARACTERS or key.count(" ") >= MOST_WORDS:
        return set()
    words = sorted({word.removesuffix("s") for word in key.split()} - _STOP_WORDS)
    left_out = [[*words[:at], *words[at + 1 :]] for at in range(len(words))] if len(words) >= 5 else []
    return {" ".join(some) for some in ([words] if words else []) + left_out}
