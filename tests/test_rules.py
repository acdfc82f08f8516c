import polars as pl
import pytest

from tasks.core.rules import REFUSED_CALLS, RULES, judge

GOOD = ("ten years on a hospital ward", "an experienced nurse for the night shift")
CHANGED: dict[str, dict[str, str | None]] = {
    **{reason: {"error": reason, "input": None, "positive_document": None} for reason in REFUSED_CALLS},
    "truncated": {"finish_reason": "length"},
    "refused": {"text": None, "input": None, "positive_document": None},
    "unparsable": {"problem": "unparsable", "input": None, "positive_document": None},
    "wrong_shape": {"problem": "wrong_shape", "input": None, "positive_document": None},
    "empty": {"input": " "},
    "too_short": {"input": "nurse"},
    "too_long": {"input": "word " * 51},
    "identical": {"input": "An experienced nurse, for the night shift!"},
    "too_similar": {"input": "an experienced nurse for the day shift"},
    "echoes_task": {"input": "Match a job title with its skills."},
    "placeholder": {"input": "your text goes here please"},
    "markup": {"input": "```ten years on a hospital ward"},
    "control_characters": {"input": "ten years\x07 on a ward"},
    "mojibake": {"input": "dix annÃ©es de soins"},
}


def reasons(**changes: str | None) -> list[str]:
    row = {
        "task": "match a job title with its skills",
        "language": "English",
        "input": GOOD[0],
        "positive_document": GOOD[1],
        "text": "{}",
        "finish_reason": "stop",
        "error": None,
        "problem": None,
    }
    frame = pl.DataFrame([row | changes], schema=dict.fromkeys(row, pl.String))
    found: list[str] = judge(frame.lazy()).collect()["reasons"].item().to_list()
    return found


def test_every_rule_has_a_case() -> None:
    assert set(CHANGED) == set(RULES)


@pytest.mark.parametrize("reason", list(RULES))
def test_a_row_is_rejected_for_its_reason(reason: str) -> None:
    assert reason in reasons(**CHANGED[reason])


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("English", *GOOD),
        ("Portuguese", "São Paulo no verão", "CORAÇÃO da América do Sul"),
        ("German", "Größe eines Fußballfeldes", "etwa hundert Meter lang"),
        ("Japanese", "駅までの道", "北口への案内図"),
        ("Thai", "ร้านอาหารใกล้ฉัน", "ครัวริมแม่น้ำ"),
        ("Hindi", "सुबह की सैर के लिए", "शहर का सबसे शांत बाग"),
    ],
)
def test_a_right_pair_has_no_reason(language: str, one: str, other: str) -> None:
    assert reasons(language=language, input=one, positive_document=other) == []


@pytest.mark.parametrize(("words", "rejected"), [(2, False), (50, False), (51, True)])
def test_the_number_of_words_is_bounded(words: int, rejected: bool) -> None:
    text = " ".join(f"w{number:03}" for number in range(words))
    assert bool({"too_short", "too_long"} & set(reasons(input=text))) == rejected
