import polars as pl
import pytest

from tasks.core.columns import TEXTS
from tasks.core.duplicates import find_duplicates, find_groups
from tasks.core.keys import fold, hash_words, pair_key, text_key

FIRST = ("how to repair an old bicycle", "a workshop near the station fixes chains")


def keyed(*pairs: tuple[str, str], first_row: int = 0) -> pl.LazyFrame:
    frame = pl.DataFrame(pairs, schema=dict.fromkeys(TEXTS, pl.String), orient="row").lazy()
    return (
        frame.with_row_index("plan_row", first_row)
        .with_columns(
            pl.col("plan_row").cast(pl.Int64),
            input_key=text_key(hash_words(fold(pl.col("input")))),
            positive_key=text_key(hash_words(fold(pl.col("positive_document")))),
        )
        .with_columns(pair_key=pair_key())
    )


def found(*pairs: tuple[str, str], published: pl.LazyFrame | None = None) -> dict[int, str]:
    return dict(find_duplicates(keyed(*pairs), published).sort("plan_row").iter_rows())


SECOND = {
    "the same": (FIRST, "duplicate"),
    "case, accents and punctuation": (("How to répair an old bicycle?!", FIRST[1].upper()), "duplicate"),
    "another order of words": (("an old bicycle: how to repair", FIRST[1]), "duplicate"),
    "one word replaced": (("how to repair an old accordion", FIRST[1]), "near_duplicate"),
    "one word added": ((FIRST[0], "a small workshop near the station fixes chains"), "near_duplicate"),
    "one word left out": ((FIRST[0], "a workshop near station fixes chains"), "near_duplicate"),
    "a word in each text": (("how to repair an old accordion", "a workshop near the harbour fixes chains"), None),
    "two words": (("how to tune an old accordion", FIRST[1]), None),
    "only the input is the same": ((FIRST[0], "replace worn brake pads first"), None),
    "texts change places": ((FIRST[1], FIRST[0]), None),
}


@pytest.mark.parametrize("name", list(SECOND))
def test_the_later_of_two_like_pairs_is_found(name: str) -> None:
    second, kind = SECOND[name]
    assert found(FIRST, second) == ({1: kind} if kind else {})
    assert found(second, FIRST) == ({1: kind} if kind else {})


UNSPACED = ("附近安静的咖啡馆推荐", "适合写论文的小店，座位多")
SECOND_UNSPACED = {
    "a character left out": ("附近安静咖啡馆推荐", "near_duplicate"),
    "a word of two replaced": ("附近便宜的咖啡馆推荐", "near_duplicate"),
    "a word of two added": ("附近安静的小型咖啡馆推荐", "near_duplicate"),
    "three characters replaced": ("附近安静的图书室推荐", None),
    "two words replaced": ("城里便宜的咖啡馆推荐", None),
}


@pytest.mark.parametrize("name", list(SECOND_UNSPACED))
def test_a_word_is_a_character_or_two_where_words_are_not_spaced(name: str) -> None:
    text, kind = SECOND_UNSPACED[name]
    assert found(UNSPACED, (text, UNSPACED[1])) == ({1: kind} if kind else {})
    assert found((UNSPACED[1], text), UNSPACED[::-1]) == ({1: kind} if kind else {})


def test_clauses_between_commas_are_no_words() -> None:
    one, other = "可以停车，座位多，价格低，有插座", "可以停车，座位多，价格低，允许带宠物进店"
    assert found((one, "咖啡馆"), (other, "咖啡馆")) == {}


def test_two_characters_of_few_are_a_difference() -> None:
    assert found(("北京的天气", "晴"), ("上海的天气", "晴")) == {}


def test_letters_of_another_script_make_no_words_of_characters() -> None:
    one, other = "what does 水 mean in Japan", "what does 水 mean in Korea"
    assert found((one, "x y"), (other, "x y")) == {1: "near_duplicate"}


@pytest.mark.parametrize(("words", "kind"), [(3, {}), (4, {1: "near_duplicate"})])
def test_one_word_of_few_is_a_difference(words: int, kind: dict[int, str]) -> None:
    rest = ["red", "apple", "cake"][: words - 1]
    assert found((" ".join([*rest, "recipe"]), "x y"), (" ".join([*rest, "picture"]), "x y")) == kind


def test_whatever_is_published_is_earlier() -> None:
    published = keyed(FIRST).drop("plan_row")
    assert found(SECOND["one word added"][0], FIRST, published=published) == {0: "near_duplicate", 1: "duplicate"}


def test_the_order_of_rows_in_the_frame_does_not_matter() -> None:
    rows = keyed(FIRST, SECOND["one word replaced"][0], FIRST).reverse()
    assert dict(find_duplicates(rows).iter_rows()) == {1: "near_duplicate", 2: "duplicate"}


def test_nothing_is_found_in_nothing() -> None:
    assert found() == {}
    assert find_groups(keyed()).height == 0


def test_pairs_joined_by_shared_texts_are_one_group() -> None:
    pairs = [("a b", "c d"), ("a b", "e f"), ("g h", "e f"), ("i j", "k l"), ("m n", "k l"), ("o p", "q r")]
    rows = keyed(*pairs).collect()
    groups = dict(find_groups(rows.lazy()).iter_rows())
    ids = [groups.get(key) for key in rows["pair_key"]]
    assert ids[0] == ids[1] == ids[2] == min(rows["pair_key"][:3])
    assert ids[3] == ids[4] == min(rows["pair_key"][3:5])
    assert ids[5] is None


def test_a_text_is_shared_in_whichever_place_it_stands() -> None:
    rows = keyed(("a b", "c d"), ("c d", "e f"), ("g h", "a b"), ("i j", "j i"), ("k l", "m n")).collect()
    groups = dict(find_groups(rows.lazy()).iter_rows())
    ids = [groups.get(key) for key in rows["pair_key"]]
    assert ids == [min(rows["pair_key"][:3])] * 3 + [None, None]


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Plain words, in  ASCII -- twice!", "plain words in ascii twice"),
        ("\tTabs\nand\u00a0other\u2003spaces ", "tabs and other spaces"),
        ("“Crème brûlée” … ½ Größe", "creme brulee 1 2 grosse"),
        ("ΟΔΥΣΣΕΥΣ – ﬁn", "οδυσσευσ fin"),
        ("ภาษาไทย हिन्दी", "ภาษาไทย हिन्दी"),
        ("a - b", "a b"),
        ("?!", ""),
        ("", ""),
    ],
)
def test_a_text_is_folded_to_its_words(text: str, folded: str) -> None:
    assert pl.select(fold(pl.lit(text))).item() == folded


def test_keys_are_the_same_in_every_version() -> None:
    """They are stored: a change of folding or hashing would find none of what was published before."""
    row = keyed(("Größe der Stadt, Σίσυφος", "東京の人口")).collect().row(0, named=True)
    assert (row["input_key"], row["positive_key"], row["pair_key"]) == (
        -7214456943436767183,
        5254855826603064625,
        -1001730801277521758,
    )
