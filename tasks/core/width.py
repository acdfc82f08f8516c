"""How many columns a source may have, and how deep they may be nested."""

from typing import cast

import polars as pl

from tasks.core.errors import SourceError

# A frame has a cell for each of its rows in each column, and in each field inside one; a description has a few.
MOST_COLUMNS = 1_000
MOST_DEPTH = 32


def check_columns(schema: pl.Schema, uri: str) -> None:
    """Check that `schema` is one that frames can have.

    Raises:
        SourceError: It has more than MOST_COLUMNS, or nests them deeper than MOST_DEPTH.
    """
    inside: list[pl.DataType] = schema.dtypes()
    columns = depth = 0
    while inside and columns <= MOST_COLUMNS and depth <= MOST_DEPTH:
        columns, depth = columns + len(inside), depth + 1
        inside = [one for dtype in inside for one in _inside(dtype)]
    if columns > MOST_COLUMNS:
        raise SourceError(
            f"{uri} has more than {MOST_COLUMNS:,} columns, with the fields inside them and those of what was read "
            "before it. Leave out what the dataset does not need, or write it as text, and run again."
        )
    if depth > MOST_DEPTH:
        raise SourceError(
            f"{uri} has a column that is nested deeper than {MOST_DEPTH} levels. Leave it out, or write it as text, "
            "and run again."
        )


def _inside(dtype: pl.DataType) -> list[pl.DataType]:
    """Return the types of which a nested one is made."""
    if isinstance(dtype, pl.Struct):
        return [cast("pl.DataType", field.dtype) for field in dtype.fields]
    return [cast("pl.DataType", dtype.inner)] if isinstance(dtype, (pl.List, pl.Array)) else []
