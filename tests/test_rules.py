from collections.abc import Mapping

import polars as pl
import pytest

from tasks.core.requests import RowFlag
from tasks.core.rules import FLAGS, REFUSED_CALLS, RULES, judge
from tests.test_detection import judge_pairs, labelled, samples

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
    "wrong_language": {"input": "zehn Jahre auf der Station eines Krankenhauses"},
    "placeholder": {"input": "your text goes here please"},
    "markup": {"input": "```ten years on a hospital ward"},
    "control_characters": {"input": "ten years\x07 on a ward"},
    "mojibake": {"input": "dix annÃ©es de soins"},
}


FLAGGED: dict[RowFlag, dict[str, str]] = {
    "doubtful_language": {
        "language": "Hindi",
        "input": "Microsoft Excel",
        "positive_document": "तालिका बनाने का प्रोग्राम",
    },
    "personal_data": {"input": "write to jane.roe@example.org about the ward"},
}


def judged(changes: Mapping[str, str | None], flags: tuple[RowFlag, ...] = ()) -> dict[str, list[str]]:
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
    frame = pl.DataFrame([row | dict(changes)], schema=dict.fromkeys(row, pl.String))
    return judge(frame.lazy(), flags).select("reasons", "flags").collect().row(0, named=True)


def reasons(**changes: str | None) -> list[str]:
    return judged(changes)["reasons"]


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
        ("Korean", "비 오는 날", "우산이 필요한 흐린 하루"),
        ("Amharic", "ዛሬ ዜና", "የዕለቱ አዳዲስ ክስተቶች"),
        ("English", "What does the <b> tag do?", "it makes letters heavier"),
        ("English", "the <input> element of a page", "a box in which a visitor types"),
        ("English", "2**3 + 2**4 in Python", "twenty-four, by adding two powers"),
    ],
)
def test_a_right_pair_has_no_reason(language: str, one: str, other: str) -> None:
    assert reasons(language=language, input=one, positive_document=other) == []


@pytest.mark.parametrize(
    ("text", "rejected"),
    [
        ("ten years \u202eon a ward", True),
        ("ten years\u2028on a ward", True),
        ("ten years on a ward" + "".join(chr(0xE0000 + ord(letter)) for letter in "hidden"), True),
        ("ten years on a ward \u2764" + "\ufe0f\ufe01\ufe02", True),
        ("ten years on a ward \u2764\ufe0f", False),
        ("ten years on a ward in \U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", False),
    ],
)
def test_text_that_nobody_sees_is_told_from_emoji(text: str, rejected: bool) -> None:
    assert ("control_characters" in reasons(input=text)) == rejected


@pytest.mark.parametrize(("words", "rejected"), [(2, False), (50, False), (51, True)])
def test_the_number_of_words_is_bounded(words: int, rejected: bool) -> None:
    text = " ".join(f"w{number:03}" for number in range(words))
    assert bool({"too_short", "too_long"} & set(reasons(input=text))) == rejected


def test_every_flag_has_a_case() -> None:
    assert set(FLAGGED) == set(FLAGS)


@pytest.mark.parametrize("flag", list(FLAGS))
def test_a_flag_marks_a_row_and_rejects_it_where_the_run_says_so(flag: RowFlag) -> None:
    assert judged(FLAGGED[flag]) == {"reasons": [], "flags": [flag]}
    assert judged(FLAGGED[flag], (flag,)) == {"reasons": [flag], "flags": []}


@pytest.mark.parametrize(
    ("text", "personal"),
    [
        ("write to jane.roe+ward@mail.example.org today", True),
        ("the @ sign in an e-mail address", False),
        ("call +44 20 7946 0958 after six", True),
        ("call (555) 555-0142 after six", True),
        ("call 555-555-0142 after six", True),
        ("the war of 1914-1918 and its causes", False),
        ("a book with ISBN 978-3-16-148410-0 inside", False),
        ("between 2024-05-12 and 2024-06-30", False),
        ("card 4111 1111 1111 1111 was declined", True),
        ("card 4111-1111-1111-1112 was declined", False),
        ("amex 378282246310005 was declined", True),
        ("part number 4000123412341235 is out of stock", False),
        ("population of 1,412,600,000 people", False),
    ],
)
def test_personal_data_is_told_from_other_numbers(text: str, personal: bool) -> None:
    assert ("personal_data" in judged({"input": text})["flags"]) == personal


@pytest.mark.parametrize(
    ("language", "one", "other", "easy"),
    [
        ("English", "repair a broken garden gate", "repair a broken garden fence", True),
        ("English", "repair a broken garden gate", "fix the hinge outside", False),
        ("Chinese (Simplified)", "附近安静的咖啡馆推荐", "附近安静的咖啡馆", True),
        ("Chinese (Simplified)", "想找一家安静的咖啡馆写论文", "图书馆旁边的小店，座位多", False),
        ("Japanese", "駅前の自転車修理店", "駅前の自転車の修理店", True),
        ("Thai", "ร้านซ่อมจักรยานใกล้สถานี", "ร้านซ่อมจักรยานใกล้สถานีรถไฟ", True),
        ("Thai", "จักรยานเก่าของฉันซ่อมได้ที่ไหน", "ร้านเล็กข้างสถานี เปิดวันเสาร์ด้วย", False),
    ],
)
def test_texts_that_share_most_words_or_characters_are_too_easy(
    language: str, one: str, other: str, easy: bool
) -> None:
    found = reasons(language=language, input=one, positive_document=other)
    assert ("too_similar" in found) == easy


@pytest.mark.parametrize(
    ("language", "text"),
    [("Japanese", "がぎぐげごばびぶべぼ"), ("Arabic", "الْحَمْدُ لِلَّهِ رَبِّ"), ("English", "so glad for us ❤️❤️❤️❤️❤️❤️❤️❤️❤️")],
)
def test_marks_that_letters_bear_are_of_no_other_script(language: str, text: str) -> None:
    assert "doubtful_language" not in judged({"language": language, "input": text, "positive_document": text})["flags"]


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, I can't assist with that.", True),
        ("I’m sorry, but I can’t help with your request.", True),
        ("I am not able to help you with this.", True),
        ("Sorry, I can't assist.", True),
        ("I cannot fulfill this request.", True),
        ("I can't create content that promotes hate", True),
        ("As an AI, I cannot have a favourite dish", True),
        ("I can't help falling in love with you", False),
        ("I can't create a new account on your website", False),
        ("I can't provide proof of address, what now?", False),
        ("Sorry, but I can't make it to dinner tonight", False),
        ("As an AI model trainer, where do I find work?", False),
    ],
)
def test_a_refusal_is_told_from_somebody_who_cannot_do_something_else(text: str, refused: bool) -> None:
    assert ("refused" in reasons(input=text)) == refused


def test_the_same_words_in_another_order_are_identical() -> None:
    assert "identical" in reasons(input="golden retriever", positive_document="Retriever, golden")
    assert "identical" not in reasons(input="!?!?!?!?", positive_document="... ...")


def test_an_escape_that_was_escaped_is_told() -> None:
    assert "mojibake" in reasons(input="caf\\u00e9 by the sea")


@pytest.mark.parametrize("text", ["a <b>bold</b> claim", "one line<br>and two", "<p>a paragraph", "a **bold** claim"])
def test_a_text_that_is_marked_up_is_no_plain_one(text: str) -> None:
    assert "markup" in reasons(input=text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "...",
            "Placeholder text",
            "Example input 3",
            "XXXX of YYYY",
            "N/A",
            "[Insert text]",
            "Dear [Name], thank you",
        ),
        *("the text to be matched", "The text that correctly matches it.", "Input: best hiking boots"),
        *("positive_document: waterproof boots", "<input>", "<text to be matched>"),
    ],
)
def test_a_placeholder_is_known_in_any_case_of_letters(text: str) -> None:
    assert "placeholder" in reasons(input=text)


def test_right_pairs_in_every_language_have_no_reason() -> None:
    judged_rows = judge_pairs([*labelled(), *samples()]).collect()
    assert judged_rows.filter(pl.col("reasons").list.len() > 0).rows() == []


def test_all_reasons_of_a_row_are_named_in_the_order_of_the_rules() -> None:
    found = reasons(input="your text goes here \x07", positive_document="```", finish_reason="length")
    assert found == [rule for rule in RULES if rule in found]
    assert {"truncated", "too_short", "placeholder", "markup", "control_characters"} <= set(found)
