"""The distinct task descriptions of a source, on the local disk, in order."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from tasks.clients import source, storage
from tasks.core.columns import source_names
from tasks.core.errors import SourceError
from tasks.core.planning import normalise, number_hashes

# The parts of a destination that a source around it must not be read from.
_OURS = ("pairs", "rejected", "journal", "staging", "exports", "runs")


@dataclass
class Descriptions:
    """Local Parquet files of normalised rows, and which of those rows are first of their kind.

    Columns of the files: task, description_hash and the source's own; `schema` is
    the type that each of the source's own columns has over all files.
    """

    objects: list[storage.StoredObject]
    files: list[Path] = field(default_factory=list)
    schema: dict[str, pl.DataType] = field(default_factory=dict)
    first: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.Boolean))
    blank: int = 0

    @property
    def count(self) -> int:
        """Distinct descriptions."""
        return int(self.first.sum())

    @property
    def repeated(self) -> int:
        """Rows whose description stands earlier."""
        return len(self.first) - self.count

    def frames(self, limit: int = 0) -> Iterator[pl.DataFrame]:
        """Yield the distinct descriptions in order, at most `limit` of them unless it is 0."""
        at, left = 0, limit or len(self.first)
        for path in self.files:
            frame = pl.read_parquet(path)
            frame = frame.filter(self.first.slice(at, frame.height)).head(left)
            at += pl.scan_parquet(path).select(pl.len()).collect().item()
            left -= frame.height
            yield frame.with_columns(
                pl.lit(None, dtype).alias(name) if name not in frame.columns else pl.col(name).cast(dtype)
                for name, dtype in self.schema.items()
            ).select("task", "description_hash", *self.schema)
            if left <= 0:
                return


def list_source(uri: str, destination: str) -> list[storage.StoredObject]:
    """Return the objects under `uri` that hold task descriptions, in the order of their names.

    Raises:
        SourceError: There are none.
    """
    found = storage.list_objects(uri)
    ours = tuple(f"{destination}/{name}/" for name in _OURS)
    objects = [item for item in found if source.source_format(item.uri) and not item.uri.startswith(ours)]
    if not objects:
        raise SourceError(
            f"No task descriptions under {uri}: 0 of {len(found)} objects end in {', '.join(source.FORMATS)} "
            f"(or these with {' or '.join(source.COMPRESSIONS)}). Check --source, or that the upload has finished."
        )
    return objects


def read_descriptions(objects: list[storage.StoredObject], scratch: Path) -> Descriptions:
    """Copy the rows of all objects to `scratch`, one frame at a time.

    Raises:
        SourceError: An object cannot be read, or its columns do not fit the others'.
    """
    found = Descriptions(objects)
    numbers: list[pl.Series] = []
    empty = pl.DataFrame()
    for item in objects:
        local = scratch / "object"
        storage.download(item, local)
        for batch in source.read_batches(local, item.uri):
            rows = normalise(batch.rename(source_names(batch.columns)))
            found.blank += batch.height - rows.height
            numbers.append(rows.select(number_hashes(pl.col("description_hash"))).to_series())
            empty = _unite(empty, rows.head(0), item.uri)
            path = scratch / f"descriptions-{len(found.files):06}.parquet"
            rows.write_parquet(path, compression="lz4", statistics=False)
            found.files.append(path)
    found.schema = {name: dtype for name, dtype in empty.schema.items() if name not in ("task", "description_hash")}
    if numbers:
        found.first = pl.concat(numbers).is_first_distinct()
    return found


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
