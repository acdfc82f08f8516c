"""The lossless ladder from a model's reply to a pair.

Each rung undoes one known wrapping and nothing else; no text is completed,
guessed or evaluated. The rung that held is kept with the row.
"""

import ast
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from tasks.core.columns import TEXTS

_SURROGATES = re.compile("[\ud800-\udfff]")
# The opening tag may be missing: some chat templates end the prompt with it.
_THINK = re.compile(r"\A(?:\[THINK\]|(?![\[{`])).*?(?:</think(?:ing)?>|\[/THINK\])", re.DOTALL)
_FENCE = "```"
_LIST_TRAILING_COMMA = re.compile(r",(\s*\])\Z")
_TRAILING_COMMA = re.compile(r",(\s*\}\s*)\Z")
# A string in Python's quotes or JSON's, with the escapes that mean the same in both.
_QUOTED = r"""('(?:[^'\\\n]|\\['"\\bfnrtux])*'|"(?:[^"\\\n]|\\['"\\bfnrtux])*")"""
_LITERAL_ITEM = re.compile(rf"\s*{_QUOTED}\s*(?:,|\Z)")
_LITERAL_MEMBER = re.compile(rf"\s*{_QUOTED}\s*:\s*{_QUOTED}\s*(?:,|\Z)")
# No short pair, and no list of descriptions, is longer.
_LITERAL_LIMIT = 10_000
_UNREADABLE = (ValueError, SyntaxError, RecursionError, MemoryError)


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
        alone = isinstance(value, list) and len(value) == 1
        unwrapped = stage == "strict" and (alone or bare != text.strip())
        return _as_pair(value[0] if alone else value, "unwrapped" if unwrapped else stage)
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
    """Read a list of strings that was written with Python's quotes."""
    return [item for [item] in _read_literals(text, "[]", _LITERAL_ITEM)]


def _read_literals(text: str, brackets: str, form: re.Pattern[str]) -> list[list[str]]:
    """Return the strings of each part between `brackets`; nothing runs, and two strings side by side are not one."""
    if len(text) > _LITERAL_LIMIT or not (text.startswith(brackets[0]) and text.endswith(brackets[1])):
        raise ValueError("not in these brackets, or not short")
    inner, at, found = text[1:-1].strip(), 0, []
    while at < len(inner):
        part = form.match(inner, at)
        if part is None:
            raise ValueError("not only strings")
        found.append([ast.literal_eval(quoted) for quoted in part.groups()])
        at = part.end()
    return found


def _unwrap(text: str) -> str:
    """Take off a byte order mark, one leading think block and one fence around the rest."""
    bare = _THINK.sub("", text.lstrip("\ufeff").strip(), count=1)
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
    """Read a dict of strings that was written with Python's quotes."""
    return _unique_object([(key, value) for key, value in _read_literals(text, "{}", _LITERAL_MEMBER)])


def _unique_object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) != len(items):
        raise ValueError("a key stands twice")
    return found


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
