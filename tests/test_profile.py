"""What the report says of the rows, beside the day before and the judgement before."""

import hashlib
import json
from html.parser import HTMLParser

import polars as pl
import pytest

from tasks.core import cells
from tasks.core.columns import COMPLETIONS, REQUESTS, TEXTS
from tasks.core.drift import Changes, Profile, SamplePair
from tasks.core.judging import judge_completions, reject_duplicates, relate
from tasks.core.markdown import report_markdown
from tasks.core.page import report_page
from tasks.core.profiles import find_changes, measure_drift, profile_published, profile_rows
from tasks.core.report import RunReport, Shortfall, VariationFigures
from tasks.core.showing import shown
from tests.orders import ORDER, report_figures
from tests.test_detection import labelled


def judged(texts: list[str], languages: list[str] | None = None) -> pl.LazyFrame:
    """Judge these replies as one partition."""
    rows = len(texts)
    given = {
        "plan_row": range(rows),
        "request_key": [hashlib.blake2b(str(row).encode(), digest_size=16).hexdigest() for row in range(rows)],
        "task": ["match a thing with its name"] * rows,
        "language": languages or ["English"] * rows,
        "text": texts,
        "finish_reason": ["stop"] * rows,
    }
    schema = REQUESTS | COMPLETIONS
    columns = {name: given.get(name, [None] * rows) for name in schema}
    frame = pl.DataFrame(columns, schema=schema).with_columns(cached=pl.lit(value=False))
    return relate(reject_duplicates(judge_completions(frame.lazy(), ORDER).lazy()), None, None)


def pair(one: str, other: str) -> str:
    return json.dumps({"input": one, "positive_document": other}, ensure_ascii=False)


TEXT = (
    "copper lantern harbour village teacher orchard blanket mountain kitchen station garden bicycle library curtain "
    "bakery captain window forest bridge painter market candle doctor ribbon valley farmer cellar museum ladder pillow "
    "hammer island jacket kettle mirror needle office pencil rabbit saddle tunnel violin wagon anchor basket button "
    "carpet donkey engine feather guitar helmet insect jungle kitten lemon magnet napkin oyster parrot"
)
WORDS = TEXT.split()


def distinct_pairs(count: int, opening: str = "") -> list[str]:
    """Return pairs of which any two differ in two words of each text, or more."""
    return [
        pair(
            f"{opening}the {WORDS[place]} beside the {WORDS[-1 - place]}",
            f"our {WORDS[(place + 17) % 60]} stays under a {WORDS[(place + 40) % 60]}",
        )
        for place in range(count)
    ]


GOOD = distinct_pairs(30)


def test_reasons_have_at_most_three_examples_each() -> None:
    found = profile_rows(judged([*GOOD, *["no json"] * 5, GOOD[0]])).examples
    assert {reason: len(examples) for reason, examples in found.items()} == {"unparsable": 3, "duplicate": 1}
    assert found["unparsable"][0] == {
        "language": "English",
        "input": None,
        "positive_document": None,
        "text": "no json",
    }


def test_openings_that_many_texts_share_are_named() -> None:
    found = profile_rows(judged([*distinct_pairs(6, "How do I "), *GOOD[10:]])).openings
    assert found == {"input": {"how do i": 6}, "positive_document": {}}
    few = profile_rows(judged([*distinct_pairs(4, "How do I "), *GOOD[10:]])).openings
    assert few["input"] == {}


def test_distinct_n_falls_when_words_repeat() -> None:
    many, few = (profile_rows(judged(texts)).distinct["input"] for texts in (GOOD, distinct_pairs(30, "how do i ")))
    assert few[0] < many[0] <= 1
    assert few[1] < many[1] <= 1


def test_groups_are_counted_by_their_size() -> None:
    texts = [pair("the very same question", json.loads(one)["positive_document"]) for one in GOOD[:3]]
    assert profile_rows(judged([*texts, *GOOD[3:]])).group_sizes == {3: 1}


def test_the_pairs_to_read_are_drawn_the_same_way_each_time() -> None:
    rows = judged(distinct_pairs(60))
    first, again = (profile_rows(frame).pairs_to_read for frame in (rows, rows.collect().reverse().lazy()))
    assert len(first) == 20
    assert first == again


def halves(rows: pl.LazyFrame) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    accepted = pl.col("reasons").list.len() == 0
    return rows.filter(accepted), rows.filter(~accepted)


def drifts(before: pl.LazyFrame, now: pl.LazyFrame) -> dict[str, float]:
    measured = measure_drift("2026-01-01", profile_published(*halves(before)), profile_rows(now)).measures
    return {measure.name: round(measure.drift, 4) for measure in measured}


def test_a_partition_does_not_drift_from_itself() -> None:
    rows = judged([*GOOD, "no json"])
    assert set(drifts(rows, rows).values()) == {0.0}


@pytest.mark.parametrize(
    ("now", "name", "drift"),
    [
        ([*GOOD[:15], *["no json"] * 15], "accepted", 0.5),
        ([*GOOD[:24], *GOOD[:6]], "duplicates", 0.2),
        ([*distinct_pairs(30, "a far longer opening of a text than all the others have ")], "length of input", 1.0),
    ],
)
def test_drift_is_a_share_from_0_to_1(now: list[str], name: str, drift: float) -> None:
    assert drifts(judged(GOOD), judged(now))[name] == drift


def test_lengths_do_not_drift_within_ten_characters() -> None:
    profile = profile_rows(judged(GOOD))
    shorter, near, longer = (
        profile.model_copy(update={"lengths": {name: {at: 1.0} for name in TEXTS}}) for at in (20, 28, 30)
    )
    assert measure_drift("2026-01-01", shorter, near).worst.drift == 0
    assert measure_drift("2026-01-01", shorter, longer).worst.drift == 1


def test_drift_of_languages_is_the_share_of_rows_that_moved() -> None:
    pairs = [pair(one, other) for _, one, other in labelled()]
    languages = [name for name, _, _ in labelled()]
    before = judged(pairs[:40], languages[:40])
    now = judged(pairs[20:60], languages[20:60])
    assert 0.3 < drifts(before, now)["languages"] < 0.7


def test_judging_again_says_what_it_changed() -> None:
    before = judged([*GOOD[:10], "no json", "no json"])
    now = judged([*GOOD[:9], "no json", GOOD[10], "no json"])
    assert find_changes(now, *halves(before)) == Changes(
        newly_accepted={"unparsable": 1}, newly_rejected={"unparsable": 1}, as_before=10
    )


class Tags(HTMLParser):
    """Collects every tag, and checks that they are closed in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


EVIL = "<script>alert(1)</script> <img src=x onerror=y> & | `x`"


def full_report() -> RunReport:
    texts = [pair(one, other) for _, one, other in labelled()]
    languages = [name for name, _, _ in labelled()]
    rows = judged(
        [*texts, pair(EVIL, "a second text that says other things"), EVIL], [*languages, "English", "English"]
    )
    profile = profile_rows(rows)
    figures = report_figures(reasons={"markup": 1, "unparsable": 1}, source_changes=[f"new: {EVIL}"], model_name=EVIL)
    drift = measure_drift("2026-01-01", profile, profile)
    changes = Changes(newly_accepted={"too_long": 3}, newly_rejected={"markup": 1}, as_before=9)
    return RunReport(**figures).model_copy(update={"profile": profile, "drift": drift, "changes": changes})


def test_the_page_is_well_formed_needs_nothing_else_and_escapes_what_others_wrote() -> None:
    page = report_page(full_report())
    tags = Tags()
    tags.feed(page)
    assert tags.names & {"script", "img", "link", "iframe"} == set()
    assert tags.links == []
    assert "http" not in page.replace("https://", "http")[: page.index("<body>")]
    assert "&lt;script&gt;alert(1)" in page
    for said in ("too_long", "Beside the day before, 2026-01-01", "20 accepted pairs", "unparsable: 1 example"):
        assert said in page


def test_texts_carry_the_language_and_direction_that_their_letters_need() -> None:
    pairs = [
        SamplePair(task=f"task {name}", language=name, input=f"one {name}", positive_document="other")
        for name in ("Japanese", "Chinese (Traditional)", "Hindi Romanized", "Arabic")
    ]
    report = full_report()
    assert report.profile is not None
    page = report_page(
        report.model_copy(update={"profile": report.profile.model_copy(update={"pairs_to_read": pairs})})
    )
    for code, name in (("ja", "Japanese"), ("zh-Hant", "Chinese (Traditional)"), ("hi", "Hindi Romanized")):
        assert f'dir="auto" lang="{code}">one {name}<' in page


def test_a_page_of_nothing_judged_shows_no_share_of_it() -> None:
    nothing = {"requests": 0, "judged": 0, "accepted": 0, "rejected": 0, "reasons": {}, "by_language": {}}
    page = report_page(RunReport(**report_figures(**nothing)))
    assert "nothing to do" in page
    assert "% of 0" not in page
    assert 'class="split"' not in page


def test_no_control_character_is_in_the_page_and_every_text_keeps_its_direction_to_itself() -> None:
    hostile, arabic = "a\x1b[2J\x07\x9b\u202e\u2066b", "\u0645\u0637\u0627\u0628\u0642\u0629"
    report = full_report()
    assert report.profile is not None
    pairs = [SamplePair(task=hostile, language="Arabic", input=arabic, positive_document=hostile)]
    raw = {"input": None, "positive_document": None, "text": hostile, "language": "Arabic"}
    profile = report.profile.model_copy(update={"pairs_to_read": pairs, "examples": {"unparsable": [raw]}})
    changes = {"profile": profile, "source_changes": [f"{arabic}.jsonl was replaced", hostile], "model_name": hostile}
    page = report_page(report.model_copy(update=changes))
    assert "\n" in page
    assert shown(page) == page
    assert page.count("a\ufffd[2J\ufffd\ufffd\ufffd\ufffdb") == 5
    assert f'dir="auto" lang="ar">{arabic}<' in page
    assert f"<li><bdi>{arabic}.jsonl was replaced</bdi></li>" in page


def test_the_page_says_what_is_missing_and_what_variations_brought() -> None:
    short = Shortfall(task="match <b>", language="English", missing=2, reason="duplicate")
    varied = {
        "topic: food": VariationFigures(accepted=1200, rejected=14, duplicates=3, distinct_2=0.5),
        "topic: rain": VariationFigures(accepted=7, rejected=0, duplicates=0, distinct_2=None),
    }
    changes = {"shortfalls": [short], "shortfall_reasons": {"duplicate": 2}, "by_variation": varied}
    page = report_page(full_report().model_copy(update=changes))
    for said in ("Still missing", "match &lt;b&gt;", "by main reason: duplicate 2", "topic: food", "too few pairs"):
        assert said in page


def test_variations_of_a_few_rows_each_are_not_shown() -> None:
    few = {"topic: food": VariationFigures(accepted=1, rejected=0, duplicates=0, distinct_2=None)}
    report = full_report().model_copy(update={"by_variation": few})
    assert "Variations" not in report_page(report) + report_markdown(report)
    enough = {**few, "topic: rain": VariationFigures(accepted=300, rejected=0, duplicates=0, distinct_2=0.5)}
    report = report.model_copy(update={"by_variation": enough})
    assert all("food" in said for said in (report_page(report), report_markdown(report)))


@pytest.mark.parametrize(
    ("lengths", "share", "length"),
    [
        ({10: 0.5, 20: 0.5}, 0.5, 11),
        ({10: 0.5, 20: 0.5}, 0.51, 21),
        ({10: 0.4, 12: 0.2, 14: 0.4}, 0.95, 15),
        # Of the first three the sum is a little less than 0.8.
        ({2: 0.3, 4: 0.4, 6: 0.1, 8: 0.2}, 0.8, 7),
    ],
)
def test_a_percentile_is_the_length_that_a_share_of_texts_does_not_exceed(
    lengths: dict[int, float], share: float, length: int
) -> None:
    profile = profile_rows(judged(GOOD)).model_copy(update={"lengths": {"input": lengths}})
    assert profile.most_characters("input", share) == length


@pytest.mark.parametrize(("longest", "most", "columns"), [(39, 40, 20), (85, 100, 50), (185, 200, 50), (400, 420, 42)])
def test_a_chart_of_lengths_has_at_most_fifty_columns_and_round_ends(longest: int, most: int, columns: int) -> None:
    chart = cells.columns({0: 0.5, longest // 2 * 2: 0.5})
    assert chart.count("<i ") == columns <= cells.MOST_COLUMNS
    assert chart.endswith(f"<span>{most}</span></div>")
    assert chart.count("height:100%") == 2


def test_the_markdown_says_the_same_and_escapes_it() -> None:
    text = report_markdown(full_report())
    assert "<script>" not in text
    for said in (
        *("Beside 2026-01-01", "What judging again changed", "9 rows are judged as before"),
        *("For example", "Variety", "half up to", "distinct\\-1", "Repeated openings of inputs"),
    ):
        assert said in text


def test_a_report_of_nothing_has_a_page_too() -> None:
    empty = dict.fromkeys(("requests", "judged", "accepted", "rejected", "paid", "cached", "shortfall"), 0)
    page = report_page(RunReport(**report_figures(**empty, reasons={}, by_language={}, published=False)))
    assert "nothing to do" in page


def test_a_profile_survives_json() -> None:
    profile = profile_rows(judged(GOOD))
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


def test_both_reports_name_what_was_left_out_for_its_length_or_language_or_to_another_run() -> None:
    some = RunReport(**report_figures(unknown_languages={"Klingon": 2}, too_long=7, claimed=5))
    none = RunReport(**report_figures())
    for write in (report_page, report_markdown):
        assert all(said in write(some) for said in ("Klingon", "Too long", "Left to another run at work"))
        assert not any(said in write(none) for said in ("unknown languages", "Too long", "Left to another run"))
