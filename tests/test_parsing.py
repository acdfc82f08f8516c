import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.parsing import parse_pair

PAIR = '{"input": "one text", "positive_document": "another one"}'
REPLIES = [
    (PAIR, "strict"),
    (f"```json\n{PAIR}\n```", "unwrapped"),
    (f"<think>{{}} hm</think>\n{PAIR}", "unwrapped"),
    (f"\ufeff{PAIR}", "unwrapped"),
    (f"Here it is: {PAIR} Enjoy.", "embedded"),
    (PAIR.replace("}", ",}"), "trailing_comma"),
    (PAIR.replace('"', "'"), "python_literal"),
    (PAIR[:-5], "unparsable"),
    (f"{PAIR}\n{PAIR}", "unparsable"),
    ('{"input": "a", "input": "b", "positive_document": "c"}', "unparsable"),
    ('{"input": "a", "positive_document": NaN}', "unparsable"),
    ("__import__('os').system('exit 1')", "unparsable"),
    ("[" * 100_000, "unparsable"),
    ("", "unparsable"),
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


@given(st.text(), st.text())
def test_any_two_texts_survive_json(one: str, other: str) -> None:
    parsed = parse_pair(json.dumps({"input": one, "positive_document": other}))
    assert (parsed.input, parsed.positive_document) == (one.strip(), other.strip())


@given(st.text())
def test_no_reply_raises(text: str) -> None:
    parse_pair(text)
