"""Numbers with the words that they count."""


def noun(number: int, one: str, more: str = "") -> str:
    """Return the word that follows `number`: `one` after 1, else `more`, which is `one` with an s where it is empty."""
    return one if number == 1 else more or f"{one}s"


def counted(number: int, one: str, more: str = "") -> str:
    """Return `number` and its word, like 1 pair and 1,200 pairs; `one` and `more` as in `noun`."""
    return f"{number:,} {noun(number, one, more)}"
