"""From a source's rows to distinct descriptions, each in the languages that it is wanted in."""

import hashlib

import polars as pl

from tasks.core.languages import LANGUAGES
from tasks.core.naming import find_language, mix_shares
from tasks.core.requests import MOST_CHARACTERS, Order, hash_descriptions, normalise_description


def leave_out_long(batch: pl.DataFrame) -> pl.DataFrame:
    """Return `batch` without descriptions of more than MOST_CHARACTERS, blanks around them not counted."""
    # A character has four bytes at most. How many there are is known without the text, which may be
    # one of megabytes in every row of a small Parquet.
    some = batch.filter(pl.col("task").str.len_bytes().fill_null(0) <= 4 * MOST_CHARACTERS)
    return some.filter(pl.col("task").str.strip_chars().str.len_chars().fill_null(0) <= MOST_CHARACTERS)


def normalise(batch: pl.DataFrame) -> pl.DataFrame:
    """Return `batch` without blank descriptions, `task` normalised, with `description_hash` and `language`.

    `language` is the one that the source names, by its English name or code, under
    our name; null where it names none; what it says where that is unknown.
    """
    texts = [normalise_description(text or "") for text in batch["task"].to_list()]
    named = batch.with_columns(pl.Series("task", texts, dtype=pl.String)).filter(pl.col("task") != "")
    hashes = hash_descriptions(named["task"].to_list())
    return named.with_columns(pl.Series("description_hash", hashes, dtype=pl.String), _read_languages(named))


def _read_languages(batch: pl.DataFrame) -> pl.Series:
    if "language" not in batch.columns:
        return pl.Series("language", [None] * batch.height, dtype=pl.String)
    said = batch["language"].cast(pl.String).str.strip_chars()
    names = {text: find_language(text) or text for text in said.unique().drop_nulls() if text}
    return said.replace_strict(names, default=None, return_dtype=pl.String)


def draw_languages(descriptions: pl.DataFrame, order: Order) -> pl.DataFrame:
    """Give each description without a language the one that the mix of `order` draws for it.

    Drawn by the description and the seed alone, so that it stays the same from night to night.
    """
    if order.language_mix == "each":
        return descriptions
    seed = int.from_bytes(hashlib.blake2b(b"%d" % order.recipe.seed, digest_size=7).digest(), "big")
    place = descriptions["description_hash"].str.slice(0, 14).str.to_integer(base=16, dtype=pl.Int64)
    shares = mix_shares()
    ends = pl.Series(shares.values(), dtype=pl.Float64).cum_sum()
    drawn = ends.search_sorted(((place + seed) % 2**56) / 2**56, side="right").clip(0, len(shares) - 1)
    return descriptions.with_columns(pl.col("language").fill_null(pl.Series(list(shares)).gather(drawn)))


def number_hashes(hashes: pl.Expr) -> pl.Expr:
    """Return 124 bits of each hex hash as a number, in half the memory of its text."""
    return hashes.str.slice(0, 31).str.to_integer(base=16, dtype=pl.Int128)


def number_languages(languages: pl.Expr) -> pl.Expr:
    """Return a small number for each language, 0 for none."""
    return languages.replace_strict(
        {name: at for at, name in enumerate(LANGUAGES, 1)}, default=0, return_dtype=pl.UInt8
    )


def find_first(numbers: pl.Series, languages: pl.Series, order: Order) -> pl.Series:
    """Mark the first row of each description and language.

    Args:
        numbers: Of the descriptions, see `number_hashes`.
        languages: Of the rows, see `number_languages`. A row with none stands for
            each of the order's, and those rows are repeated that name one of them beside it.
        order: The run.
    """
    first = (numbers + languages.cast(pl.Int128)).is_first_distinct()
    every = numbers.filter(languages == 0)
    if len(every) in (0, len(numbers)):
        return first
    meant = languages.is_in([at for at, name in enumerate(LANGUAGES, 1) if name in order.languages])
    return first & ~(meant & numbers.is_in(every.implode()))
