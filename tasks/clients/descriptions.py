"""The distinct task descriptions of a source, on the local disk, in order."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from tasks.clients import source, storage
from tasks.core.counting import counted
from tasks.core.distinct import draw_languages, find_first, leave_out_long, normalise, number_hashes, number_languages
from tasks.core.errors import SourceError
from tasks.core.languages import LANGUAGES
from tasks.core.requests import MOST_CHARACTERS, Order
from tasks.core.source_columns import carried, fit_source_columns, source_names, spell_columns
from tasks.core.width import check_columns

# Columns that every file has.
_NAMED = ("task", "description_hash", "language")
# The parts of a destination that a source around it must not be read from, and what tells that there is one.
_OURS = ("pairs", "rejected", "journal", "staging", "exports", "runs", "rejected-tasks")
_JOURNAL = re.compile(r"(.*)/journal/recipe=[0-9a-f]{16}/")


@dataclass
class Descriptions:
    """Local Parquet files of normalised rows, and which of those rows are first of their kind.

    Columns of the files: task, description_hash, language (null for all of the order's)
    and the source's own; `schema` is the type that each of the source's own columns has
    over all files, and `spelled` the name that it is published by. `languages` are
    those that rows name, and `unknown_languages` counts the rows left out by what they say;
    `blank` and `too_long` count those left out for their description.
    """

    objects: list[storage.StoredObject]
    files: list[Path] = field(default_factory=list)
    schema: dict[str, pl.DataType] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)
    first: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.Boolean))
    blank: int = 0
    too_long: int = 0
    languages: set[str] = field(default_factory=set)
    unknown_languages: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """Distinct descriptions."""
        return int(self.first.sum())

    @property
    def repeated(self) -> int:
        """Rows whose description stands earlier."""
        return len(self.first) - self.count

    def fit(self, published: dict[str, pl.DataType], destination: str) -> None:
        """Give each of the source's own columns the name and type that it has among the `published` ones.

        Raises:
            SchemaError: It does not fit them.
        """
        self.spelled = spell_columns(self.schema, published)
        known = {name: published[spelling] for name, spelling in self.spelled.items() if spelling in published}
        self.schema = fit_source_columns(self.schema, known, destination)

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield the distinct descriptions in order, the source's own columns as they are `carried`."""
        at = 0
        for path in self.files:
            frame = pl.read_parquet(path)
            frame = frame.filter(self.first.slice(at, frame.height))
            at += pl.scan_parquet(path).select(pl.len()).collect().item()
            yield frame.with_columns(
                pl.lit(None, dtype).alias(name) if name not in frame.columns else pl.col(name).cast(dtype)
                for name, dtype in self.schema.items()
            ).select(*_NAMED, *(pl.col(name).alias(carried(self.spelled.get(name, name))) for name in self.schema))


def list_source(uri: str, destination: str) -> list[storage.StoredObject]:
    """Return the objects under `uri` that hold task descriptions, in the order of their names.

    Of a destination, this run's or another one, only what is in its tasks/ does.

    Raises:
        SourceError: There are none, or one whose name s3fs would not read as it is.
    """
    found = storage.list_objects(uri)
    held = {destination, *(place[1] for item in found if (place := _JOURNAL.match(item.uri)))}
    ours = tuple(f"{root}/{name}/" for root in held for name in _OURS)
    objects = [item for item in found if source.source_format(item.uri) and not item.uri.startswith(ours)]
    if not objects:
        formats = f"{', '.join(source.FORMATS)} (or these with {' or '.join(source.COMPRESSIONS)})"
        none = f"none of {counted(len(found), 'object')} there ends in {formats}"
        lies = none if found else "nothing lies there"
        raise SourceError(f"No task descriptions under {uri}: {lies}. Check --source, or that the upload has finished.")
    if odd := next((item.uri for item in objects if "?versionId=" in item.uri), None):
        raise SourceError(f"{odd} has '?versionId=' in its name, which stands for a version. Rename it, and run again.")
    return objects


def read_descriptions(objects: list[storage.StoredObject], scratch: Path, order: Order) -> Descriptions:
    """Copy the rows of all objects to `scratch`, one frame at a time.

    Raises:
        SourceError: An object cannot be read, its columns do not fit the others', no
            language that the source names is known, or every description is too long.
    """
    found = Descriptions(objects)
    numbers: list[pl.DataFrame] = []
    empty = pl.DataFrame()
    for item in objects:
        local = scratch / "object"
        storage.download(item, local)
        for batch in source.read_batches(local, item.uri):
            short = leave_out_long(batch.rename(source_names(batch.columns, item.uri)))
            named = normalise(short)
            found.too_long += batch.height - short.height
            found.blank += short.height - named.height
            rows = draw_languages(_without_unknown(named, found), order)
            number = number_hashes(pl.col("description_hash"))
            numbers.append(rows.select(number=number, language=number_languages(pl.col("language"))))
            empty = _unite(empty, rows.head(0), item.uri)
            check_columns(empty.schema, item.uri)
            path = scratch / f"descriptions-{len(found.files):06}.parquet"
            rows.write_parquet(path, compression="lz4", statistics=False)
            found.files.append(path)
    found.schema = {name: dtype for name, dtype in empty.schema.items() if name not in _NAMED}
    if numbers:
        rows = pl.concat(numbers)
        found.first = find_first(rows["number"], rows["language"], order)
    if found.unknown_languages and not len(found.first):
        said = ", ".join(repr(text) for text, _ in found.unknown_languages.most_common(3))
        raise SourceError(
            f"The source's column 'language' holds no language that is known: {said}. Write English names or codes "
            "(German, de); rename the column if it means something else."
        )
    if found.too_long and not len(found.first):
        raise SourceError(
            f"Every task description of the source ({found.too_long:,}) has more than {MOST_CHARACTERS:,} characters, "
            "where a phrase or a sentence is meant. Give the column that holds those the name 'task'."
        )
    return found


def _without_unknown(rows: pl.DataFrame, found: Descriptions) -> pl.DataFrame:
    """Leave out rows whose language is unknown, and count all that rows say."""
    said = dict(rows["language"].drop_nulls().value_counts().iter_rows())
    unknown = [text for text in said if text not in LANGUAGES]
    found.unknown_languages.update({text: said[text] for text in unknown})
    found.languages |= said.keys() - set(unknown)
    return rows.filter(~pl.col("language").is_in(unknown).fill_null(value=False)) if unknown else rows


def _unite(known: pl.DataFrame, more: pl.DataFrame, uri: str) -> pl.DataFrame:
    for name in known.columns:
        if name in more.columns:
            try:
                pl.concat([known.select(name), more.select(name)], how="vertical_relaxed")
            except pl.exceptions.PolarsError as error:
                raise SourceError(
                    f"{uri}: column {name!r} is {more.schema[name]}, but {known.schema[name]} in those before it. "
                    "Give it one type everywhere, and run again."
                ) from error
    return pl.concat([known, more], how="diagonal_relaxed") if known.width else more
