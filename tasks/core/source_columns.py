"""How the columns of a source join ours: their names beside them, and the types that a table stores them as."""

from collections.abc import Collection, Iterable, Mapping

import polars as pl
from polars._typing import PolarsDataType

from tasks.core.columns import OURS
from tasks.core.errors import SchemaError

# Those of a source that are not its own.
MEANT = ("task", "language")


def spell_ours(columns: Collection[str], uri: str) -> dict[str, str]:
    """Map the columns of the source's object `uri` that mean `task` or `language` but for case and blanks around.

    One that is spelled exactly so is meant, and any other then one of the source's own.

    Raises:
        SchemaError: Several may be meant.
    """
    spelled = {}
    for name in MEANT:
        alike = [column for column in columns if column.strip().casefold() == name]
        if name not in alike and len(alike) > 1:
            raise SchemaError(
                f"{uri}: the columns {' and '.join(map(repr, alike))} may both be meant as {name!r}. "
                f"Nothing was paid for. Name one of them {name}, and run again."
            )
        if alike and name not in alike:
            spelled[alike[0]] = name
    return spelled


def source_names(columns: Iterable[str], uri: str = "") -> dict[str, str]:
    """Map each column of the source's object `uri`, but `task` and `language`, to its name in our tables.

    A name of ours, in any case of letters (Delta folds it), gets the suffix
    `_source`, and so does one that an earlier column already took.

    Raises:
        SchemaError: A name that polars would take as a pattern of names.
    """
    taken = {name.casefold() for name in OURS}
    names = {}
    for column in columns:
        if column in MEANT:
            continue
        if column == "*" or (column.startswith("^") and column.endswith("$")):
            raise SchemaError(
                f"{uri}: a column is named {column!r}, which would mean several columns at once. "
                "Nothing was paid for. Rename it in the source, and run again."
            )
        name = column
        while name.casefold() in taken:
            name += "_source"
        taken.add(name.casefold())
        names[column] = name
    return names


def carried(name: str) -> str:
    """Return what the source's own column `name` is called from step to step: no step's own column is called so."""
    return f"source.{name}"


def spell_columns(source: Iterable[str], published: Iterable[str]) -> dict[str, str]:
    """Map each source column to the name that it is `published` by: Delta knows one spelling of a name.

    Raises:
        SchemaError: Two source columns differ by the case of letters only.
    """
    held = {name.casefold(): name for name in published}
    spelled: dict[str, str] = {}
    for name in source:
        spelling = held.setdefault(name.casefold(), name)
        if (other := next((one for one, taken in spelled.items() if taken == spelling), None)) is not None:
            raise SchemaError(
                f"The source has the columns {other!r} and {name!r}, which are one column for a Delta table. "
                "Nothing was paid for. Write the name alike in all objects, and run again."
            )
        spelled[name] = spelling
    return spelled


def fit_source_columns(
    source: Mapping[str, pl.DataType], published: Mapping[str, pl.DataType], table: str
) -> dict[str, pl.DataType]:
    """Return the type that each source column is stored as beside the `published` ones; spell_columns comes before.

    What holds only nulls, a column, a field or a list's elements, takes the published type, and
    whole numbers fit decimals; a new column is added as it is.

    Raises:
        SchemaError: Any other difference; names the column and both types.
    """
    fitted = {}
    for name, dtype in source.items():
        wanted = published.get(name)
        if wanted is None or _fits(dtype, wanted):
            fitted[name] = wanted or storable(dtype)
        else:
            raise SchemaError(
                f"The source's column {name!r} is {dtype}, but {table} holds it as {wanted}. "
                "Nothing was paid for. Rename or convert the column in the source, "
                "or publish to another destination."
            )
    return fitted


def _fits(dtype: PolarsDataType, wanted: PolarsDataType) -> bool:
    """Whether each value of `dtype` is one of `wanted`, too."""
    if isinstance(dtype, pl.List) and isinstance(wanted, pl.List):
        return _fits(dtype.inner, wanted.inner)
    if isinstance(dtype, pl.Struct) and isinstance(wanted, pl.Struct):
        pairs = list(zip(dtype.fields, wanted.fields, strict=False))
        same = [field.name for field in dtype.fields] == [field.name for field in wanted.fields]
        return same and all(_fits(one.dtype, other.dtype) for one, other in pairs)
    if dtype == pl.Null or storable(dtype) == wanted:
        return True
    return dtype.is_integer() and (wanted.is_float() or wanted == pl.Int64)


def storable(dtype: PolarsDataType) -> pl.DataType:
    """Return the type that a Delta table stores values of `dtype` as."""
    whole = dtype() if isinstance(dtype, type) else dtype
    match whole:
        case pl.Null() | pl.Categorical() | pl.Enum() | pl.Time() | pl.Duration() | pl.Int128():
            whole = pl.String()
        case pl.UInt8() | pl.UInt16() | pl.UInt32() | pl.UInt64():
            whole = pl.Int64()
        case pl.Datetime():
            whole = pl.Datetime("us", whole.time_zone)
        case pl.Array() | pl.List():
            whole = pl.List(storable(whole.inner))
        case pl.Struct():
            whole = pl.Struct({field.name: storable(field.dtype) for field in whole.fields})
    return whole
