import json
from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.parsing import parse_list, parse_pair
from tasks.core.replies import parse_replies

PAIR = '{"input": "one text", "positive_document": "another one"}'
REPLIES = [
    (PAIR, "strict"),
    (f"```json\n{PAIR}\n```", "unwrapped"),
    (f" ``` \r\n\n{PAIR}\n\n```\n", "unwrapped"),
    (f"```{PAIR}```", "embedded"),
    (f"``` json\n{PAIR}\n```", "embedded"),
    (f"```json\n{PAIR}\n```\n```json\n{PAIR}\n```", "unparsable"),
    ("```", "unparsable"),
    ("`````", "unparsable"),
    ("```\n```", "unparsable"),
    (f"<think>{{}} hm</think>\n{PAIR}", "unwrapped"),
    (f"So I write {PAIR}.\n</think>\n\n```json\n{PAIR}\n```", "unwrapped"),
    (f"[THINK]{{}}[/THINK]{PAIR}", "unwrapped"),
    (f"[{PAIR}]", "unwrapped"),
    (f"[{PAIR}, {PAIR}]", "wrong_shape"),
    (PAIR.replace("one text", "</think>"), "strict"),
    (f"\ufeff{PAIR}", "unwrapped"),
    (f"Here it is: {PAIR} Enjoy.", "embedded"),
    (PAIR.replace("}", ",}"), "trailing_comma"),
    (PAIR.replace('"', "'"), "python_literal"),
    (PAIR.replace("one text", "don\\'t"), "python_literal"),
    (PAIR.replace("one text", 'what is "" for').replace("}", ",}"), "unparsable"),
    (PAIR.replace("one text", 'what is "" for'), "unparsable"),
    ("{'input': 'it''s', 'positive_document': 'b'}", "unparsable"),
    ("{'input': '\\pi', 'positive_document': 'b'}", "unparsable"),
    (PAIR[:-5], "unparsable"),
    (f"{PAIR}\n{PAIR}", "unparsable"),
    ('{"input": "a", "input": "b", "positive_document": "c"}', "unparsable"),
    ('{"input": "a", "positive_document": NaN}', "unparsable"),
    ("__import__('os').system('exit 1')", "unparsable"),
    ("[" * 100_000, "unparsable"),
    ("", "unparsable"),
    ("{[1]: 2}", "unparsable"),
    ("[1, 2]", "wrong_shape"),
    ('{"input": "a"}', "wrong_shape"),
    ('{"input": ["a"], "positive_document": "b"}', "wrong_shape"),
    (f'{{"pair": {PAIR}}}', "wrong_shape"),
]


@pytest.mark.parametrize(("reply", "expected"), REPLIES)
def test_a_reply_is_read_by_the_first_rung_that_holds_or_not_at_all(reply: str, expected: str) -> None:
    parsed = parse_pair(reply)
    assert expected in (parsed.repair_stage, parsed.problem)
    assert (parsed.input is None) == (parsed.problem is not None)


# Each took longer than anybody waits, for other threads too.
@pytest.mark.parametrize(
    "reply",
    [
        "```" + "\n" * 300_000,
        "```json\n" + " \n" * 300_000 + "``",
        ", " * 300_000,
        "x" + "\n" * 300_000 + "x",
        "<think" * 100_000,
    ],
)
def test_a_reply_of_mostly_nothing_is_read_as_fast_as_any(reply: str) -> None:
    assert parse_pair(reply).problem == "unparsable"
    assert parse_list(reply) is None


@given(st.text(), st.text())
def test_any_two_texts_survive_json(one: str, other: str) -> None:
    parsed = parse_pair(json.dumps({"input": one, "positive_document": other}))
    assert (parsed.input, parsed.positive_document) == (one.strip(), other.strip())


@given(st.text())
def test_no_reply_raises(text: str) -> None:
    parse_pair(text)


def read_many(replies: Sequence[str | None], finish_reason: str = "stop") -> list[tuple[str | None, ...]]:
    frame = pl.DataFrame({"text": replies, "finish_reason": finish_reason}, schema_overrides={"text": pl.String})
    return parse_replies(frame).rows()


def test_many_replies_are_read_as_each_by_itself() -> None:
    spaced = ' \r\n{ "input"\t: "\u00a0one text ", "positive_document":\n"another\u3000one\u2003"} \n'
    replies = [reply for reply, _ in REPLIES] + [spaced, spaced.replace("one", '\\"one\\"'), f"{spaced}x"]
    assert read_many(replies) == [tuple(parse_pair(reply)) for reply in replies]


@given(st.lists(st.tuples(st.text(), st.text()), max_size=3), st.sampled_from([None, 1]), st.booleans())
def test_any_texts_are_read_the_same_by_many(
    pairs: list[tuple[str, str]], indent: int | None, ascii_only: bool
) -> None:
    replies = [
        json.dumps({"input": one, "positive_document": other}, indent=indent, ensure_ascii=ascii_only)
        for one, other in pairs
    ]
    assert read_many(replies) == [tuple(parse_pair(reply)) for reply in replies]


@pytest.mark.parametrize(("text", "finish_reason"), [(None, "stop"), (PAIR, "length")])
def test_without_a_whole_reply_there_is_nothing_to_read(text: str | None, finish_reason: str) -> None:
    assert read_many([text], finish_reason) == [(None, None, None, None)]


LISTS = {
    '["a", "b"]': ["a", "b"],
    '```json\n["a"]\n```': ["a"],
    'Here they are: ["a"]. Enjoy!': ["a"],
    '["a", "b",]': ["a", "b"],
    "['a', \"it's\"]": ["a", "it's"],
    '{"tasks": ["a"]}': ["a"],
    "[]": [],
    '["a", "b"': None,
    '["a"] or ["b"]': None,
    "1. a\n2. b": None,
    '{"one": ["a"], "two": ["b"]}': None,
    "[__import__('os').getcwd()]": None,
    "null": None,
    "['a', {[1]: 2}]": None,
    "['a', b'b']": None,
    "['a' 'b']": None,
    "['a', {1, 2}]": None,
}


@pytest.mark.parametrize("text", LISTS)
def test_a_list_is_read_without_inventing_anything(text: str) -> None:
    assert parse_list(text) == LISTS[text]
