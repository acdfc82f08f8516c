"""What makes two texts the same: folded texts and their 64-bit keys.

A key is the sum, modulo 2**64, of the hashes of a text's words, so it does not
know their order, and a text without one of its words has the key minus that
word's hash. xxh3 does not change between versions, as polars' own hash does.
"""

import polars as pl
import polars_hash  # noqa: F401  (adds the namespace nchash)

# Odd, so that no bit is lost; two, so that a pair is not its mirror image.
_MIX = (-7046029254386353131, 6364136223846793005)

# All that parts words but a single space, which may stay: to replace each costs more than to find the others.
_BETWEEN_WORDS = r"[\p{P}\p{S}\s]{2,}|[\p{P}\p{S}]|[^\S ]"


def fold(text: pl.Expr) -> pl.Expr:
    """Return `text` folded to what two readers would call the same words.

    NFKD without U+0300 to U+036F (other marks are letters in Thai, Tamil,
    Hindi), lower case, final sigma and sharp s folded, punctuation to space.
    """
    # Nothing of ASCII is decomposed, and most texts are; what is null costs nothing.
    beyond = pl.when(text.str.len_bytes() > text.str.len_chars()).then(text)
    lower = (
        beyond.str.normalize("NFKD")
        .str.replace_all("[\u0300-\u036f]", "")
        .str.to_lowercase()
        .str.replace_all("ς", "σ", literal=True)
        .str.replace_all("ß", "ss", literal=True)
    )
    return pl.coalesce(lower, text.str.to_lowercase()).str.replace_all(_BETWEEN_WORDS, " ").str.strip_chars()


def split_words(folded: pl.Expr) -> pl.Expr:
    """Return the list of a folded text's words, in their order, with repeats."""
    return folded.str.split(" ")


def hash_words(folded: pl.Expr) -> pl.Expr:
    """Return the list of hashes of a folded text's words, in their order, with repeats."""
    return hash_each(split_words(folded))


def hash_each(texts: pl.Expr) -> pl.Expr:
    """Return the list of hashes of a list's texts."""
    return texts.list.eval(pl.element().nchash.xxh3_64().reinterpret(signed=True))  # type: ignore[attr-defined]


def text_key(words: pl.Expr) -> pl.Expr:
    """Return the Int64 key of a text from the hashes of its words."""
    return words.list.sum()


def pair_key() -> pl.Expr:
    """Return the Int64 key of a pair from the columns input_key and positive_key."""
    return pl.col("input_key") * _MIX[0] + pl.col("positive_key") * _MIX[1]
