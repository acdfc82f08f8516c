"""Which pairs repeat an earlier one, and which share a text with another.

All is decided over 8-byte keys (see keys). Two pairs that differ by one word have
the other text in common, so near duplicates are looked for only among pairs
that share a text's key: nothing grows with the square of the rows.
"""

import polars as pl

from tasks.core.columns import TEXTS, Schema
from tasks.core.keys import fold, hash_each, hash_words, text_key

DUPLICATE, NEAR_DUPLICATE = "duplicate", "near_duplicate"
# A judged row that repeats another one.
REPEATED = pl.any_horizontal(pl.col("reasons").list.contains(name) for name in (DUPLICATE, NEAR_DUPLICATE))
# Below this many words, one word is a large part of what a text says.
ENOUGH_WORDS = 4
# Where words are not spaced, a word is one character or two, and so many are enough.
ENOUGH_CHARACTERS = 8
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
KEYS: Schema = {"pair_key": pl.Int64, "input_key": pl.Int64, "positive_key": pl.Int64}
_EARLIER = -1
# Rows whose variants are compared at once: about ten 24-byte variants each.
_PART_ROWS = 500_000


def find_duplicates(pairs: pl.LazyFrame, published: pl.LazyFrame | None = None) -> pl.DataFrame:
    """Return the pairs that repeat one which stands earlier in plan order, or is published.

    `duplicate`: the same words in both texts, in whatever order. `near_duplicate`:
    but for one word in a text of ENOUGH_WORDS or more, replaced, added or left out,
    or for one or two characters in a row, in one of ENOUGH_CHARACTERS, where words are not spaced.

    Args:
        pairs: plan_row, KEYS, input and positive_document.
        published: The same but plan_row, None where there is nothing.

    Returns:
        plan_row and found, one row per pair that repeats another.
    """
    rows = pairs.select("plan_row", *KEYS, *TEXTS)
    if published is not None:
        earlier = published.select(pl.lit(_EARLIER, pl.Int64).alias("plan_row"), *KEYS, *TEXTS)
        rows = pl.concat([earlier, rows])
    keys = rows.select("plan_row", *KEYS).collect(engine="streaming")
    if not keys["plan_row"].is_sorted():
        keys = keys.sort("plan_row", maintain_order=True)
    again = _sharing(keys, "pair_key").filter(~pl.col("pair_key").is_first_distinct())
    exact = again.select("plan_row", found=pl.lit(DUPLICATE))
    near = [
        _find_near(rows, _sharing(keys, same).select("pair_key"), same, text)
        for same, text in (("input_key", "positive_document"), ("positive_key", "input"))
    ]
    found = pl.concat([exact, *near]).filter(pl.col("plan_row") != _EARLIER)
    return found.unique("plan_row", keep="first", maintain_order=True)


def _sharing(keys: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return the rows of which another row has that key, too."""
    return keys.filter(pl.col(name).is_in(_find_repeated(keys[name])))


def _find_repeated(keys: pl.Series) -> pl.Series:
    """Return a list of the keys that are there twice.

    Sorting takes 8 bytes a row; is_duplicated makes a list for each key.
    """
    ordered = keys.sort()
    return ordered.filter(ordered == ordered.shift()).unique().implode()


def _find_near(rows: pl.LazyFrame, candidates: pl.DataFrame, same: str, text: str) -> pl.DataFrame:
    """Find pairs whose `same` key is an earlier one's and whose `text` is but for one word."""
    folded = pl.col("folded")
    unspaced = 2 * folded.str.count_matches(_UNSPACED) >= folded.str.len_chars()
    characters = pl.when("unspaced").then(folded).str.replace_all(" ", "", literal=True).str.extract_all("(?s).")
    words = (
        rows.join(candidates.lazy(), on="pair_key", how="semi")
        .select("plan_row", same, folded=fold(pl.col(text)))
        .with_columns(unspaced=unspaced)
        .select("plan_row", same, "unspaced", word=pl.coalesce(hash_each(characters), hash_words(folded)))
        .filter(pl.col("word").list.len() >= pl.when("unspaced").then(ENOUGH_CHARACTERS).otherwise(ENOUGH_WORDS))
        .collect(engine="streaming")
    )
    parts = 1 + words.height // _PART_ROWS
    found = [_find_variants(words.filter(pl.col(same) % parts == part), same) for part in range(parts)]
    return pl.concat(found).unique("plan_row").select("plan_row", found=pl.lit(NEAR_DUPLICATE))


def _find_variants(words: pl.DataFrame, same: str) -> pl.DataFrame:
    """Find rows of which a variant, the text or all but one of its words, is an earlier row's, too."""
    # The sum of two hashes stands for two characters in a row, as that of all does for the text.
    two = pl.when("unspaced").then(pl.col("word").list.eval(pl.element() + pl.element().shift()).list.drop_nulls())
    return (
        words.lazy()
        .with_columns(whole=text_key(pl.col("word")), word=pl.col("word").list.concat(two.fill_null([])))
        .explode("word")
        .select("plan_row", same, variant=pl.concat_list("whole", pl.col("whole") - pl.col("word")))
        .explode("variant")
        .with_columns(first=pl.col("plan_row").min().over(same, "variant"))
        .filter(pl.col("plan_row") > pl.col("first"))
        .select("plan_row")
        .collect(engine="streaming")
    )


def find_groups(pairs: pl.LazyFrame) -> pl.DataFrame:
    """Return the pairs that share a text with another one, in whichever place, with the group they form.

    In a batch, a pair of the same group is no negative: its text is right, too.

    Args:
        pairs: KEYS.

    Returns:
        pair_key, once each, and group_id: the least pair_key of all that are joined by shared texts.
    """
    keys = pairs.select(*KEYS).collect(engine="streaming")
    once = _sharing_a_text(keys).filter(pl.col("pair_key").is_first_distinct())
    groups = _sharing_a_text(once).with_columns(group_id=pl.col("pair_key"))
    while True:
        # Each round carries the least key one shared text further.
        texts = pl.concat(groups.select("group_id", text=name) for name in ("input_key", "positive_key"))
        least = texts.select(pl.col("group_id").min().over("text")).to_series()
        joined = groups.with_columns(group_id=pl.min_horizontal(least.head(groups.height), least.tail(groups.height)))
        if joined["group_id"].equals(groups["group_id"]):
            return groups.select("pair_key", "group_id")
        groups = joined


def _sharing_a_text(keys: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of which another row has a text, too, as its input or as its positive document."""
    other = keys.filter(pl.col("positive_key") != pl.col("input_key"))["positive_key"]
    texts = pl.concat([keys["input_key"], other])
    return keys.filter(pl.any_horizontal(pl.col("input_key", "positive_key").is_in(_find_repeated(texts))))
