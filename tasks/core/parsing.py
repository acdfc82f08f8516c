"""The lossless ladder from a model's reply to a pair.

Each rung undoes one known wrapping and nothing else; no text is completed,
guessed or evaluated. The rung that held is kept with the row.
"""

import ast
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tasks.core.columns import TEXTS

_SURROGATES = re.compile("[\ud800-\udfff]")
_THINK = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_FENCE = "```"
_LIST_TRAILING_COMMA = re.compile(r",(\s*\])\Z")
_TRAILING_COMMA = re.compile(r",(\s*\}\s*)\Z")
# ast.literal_eval nests as deep as its text: a reply this long is no short pair.
_LITERAL_LIMIT = 10_000
# TypeError: a literal whose key is a list, or that JSON has no form for.
_UNREADABLE = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError)


class Parsed(NamedTuple):
    """What a reply holds: both texts and the rung that read them, or a problem.

    `problem` is "unparsable" or "wrong_shape" and is None when there is a pair.
    """

    input: str | None
    positive_document: str | None
    repair_stage: str | None
    problem: str | None


def parse_pair(text: str) -> Parsed:
    """Return the pair in `text`, with its ends stripped of white space."""
    bare = _unwrap(text)
    for stage, rung in RUNGS.items():
        try:
            value = rung(bare)
        except _UNREADABLE:
            continue
        return _as_pair(value, "unwrapped" if stage == "strict" and bare != text.strip() else stage)
    return Parsed(None, None, None, "unparsable")


def parse_list(text: str) -> list[Any] | None:
    """Return the one JSON list that `text` is or holds, alone in an object or not; None for anything else."""
    bare = _unwrap(text)
    for read in (_strict, _embedded_list, _list_trailing_comma, _list_literal):
        try:
            value = read(bare)
        except _UNREADABLE:
            continue
        if isinstance(value, dict) and len(value) == 1:
            [value] = value.values()
        if isinstance(value, list):
            return value
    return None


def _embedded_list(text: str) -> Any:
    """Decode the one list inside other words."""
    value, end = _DECODER.raw_decode(text, text.index("["))
    if "[" in text[end:]:
        raise ValueError("not exactly one list")
    return value


def _list_trailing_comma(text: str) -> Any:
    return _DECODER.decode(_LIST_TRAILING_COMMA.sub(r"\1", text))


def _list_literal(text: str) -> Any:
    """Read a list that was written with Python's quotes and is one of JSON otherwise; nothing runs."""
    if len(text) > _LITERAL_LIMIT:
        raise ValueError("not a short list")
    value = ast.literal_eval(text)
    json.dumps(value)
    return value


def _unwrap(text: str) -> str:
    """Take off a byte order mark, one leading think block and one fence around the rest."""
    bare = _THINK.sub("", text.lstrip("\ufeff"), count=1)
    return _unfence(bare.strip())


def _unfence(text: str) -> str:
    """Take off a fence; by hand, since an expression for it takes minutes over a reply that is mostly empty lines."""
    if len(text) < 2 * len(_FENCE) or not (text.startswith(_FENCE) and text.endswith(_FENCE)):
        return text
    opening, _, rest = text[len(_FENCE) : -len(_FENCE)].partition("\n")
    language = opening.rstrip()
    fenced = not language or (language.isascii() and language.isalpha())
    return rest.strip() if fenced and rest and _FENCE not in rest else text


def _strict(text: str) -> Any:
    return _DECODER.decode(text)


def _embedded(text: str) -> Any:
    """Decode the one object inside other words; two objects are a choice we do not make."""
    found: list[Any] = []
    at = text.find("{")
    while at >= 0:
        value, end = _DECODER.raw_decode(text, at)
        found.append(value)
        at = text.find("{", end)
    if len(found) != 1:
        raise ValueError("not exactly one object")
    return found[0]


def _trailing_comma(text: str) -> Any:
    return _DECODER.decode(_TRAILING_COMMA.sub(r"\1", text))


def _python_literal(text: str) -> Any:
    """Read a dict that was written with Python's quotes; literals only, nothing runs."""
    if len(text) > _LITERAL_LIMIT or not text.startswith("{"):
        raise ValueError("not a short dict")
    tree = ast.parse(text, mode="eval").body
    if isinstance(tree, ast.Dict):
        _no_repeats(ast.literal_eval(key) for key in tree.keys if key is not None)
    return ast.literal_eval(tree)


def _unique_object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    _no_repeats(key for key, _ in items)
    return dict(items)


def _no_repeats(keys: Iterable[Any]) -> None:
    names = list(keys)
    if len(set(names)) != len(names):
        raise ValueError("a key stands twice")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_object, parse_constant=_refuse_constant)

RUNGS: dict[str, Callable[[str], Any]] = {
    "strict": _strict,
    "embedded": _embedded,
    "trailing_comma": _trailing_comma,
    "python_literal": _python_literal,
}


def _as_pair(value: Any, stage: str) -> Parsed:
    texts = [text for name in TEXTS if isinstance(value, dict) and isinstance(text := value.get(name), str)]
    if len(texts) != len(TEXTS):
        return Parsed(None, None, stage, "wrong_shape")
    # The replacement character is rejected as mojibake.
    clean = [as_unicode(text).strip() for text in texts]
    return Parsed(clean[0], clean[1], stage, None)


def as_unicode(text: str) -> str:
    """Return `text` with U+FFFD for half a surrogate pair, which has no UTF-8 form."""
    return _SURROGATES.sub("\ufffd", text)
