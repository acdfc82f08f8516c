"""A partition's two commits, and what becomes of the first where the second never came.

Both carry one number. The rejected table is committed first, so a number that
only it has belongs to a run that died in between: its commit is taken back, and
the partition is again what it was before that run.
"""

from dataclasses import dataclass

from tasks.clients import table
from tasks.clients.lease import hold_lease
from tasks.clients.table import Publish, Table
from tasks.core.layout import Layout


@dataclass(frozen=True)
class Before:
    """Both tables as they were before a publish; `done` when its commits took place already."""

    pairs: Table
    rejected: Table
    what: Publish
    done: bool


def settle(layout: Layout, partition: str, run_id: str) -> None:
    """Take back what a dead run has half published, once no living run is publishing."""
    if _is_half(*_open(layout), partition):
        with hold_lease(layout.lease, run_id):
            _take_back(layout, partition, run_id)


def settle_all(layout: Layout, run_id: str) -> None:
    """Take back every half publish of the destination; call it under the publish lease."""
    for partition in table.published_partitions(table.open_table(layout.rejected)):
        _take_back(layout, partition, run_id)


def begin(layout: Layout, partition: str, run_id: str, mark: str) -> Before:
    """Return both tables as they stand before the publish with this mark; call it under the publish lease.

    Args:
        layout: The destination.
        partition: The day.
        run_id: The run that publishes.
        mark: Tells this publish from any other, also from another attempt of the same run.
    """
    pairs, rejected = _take_back(layout, partition, run_id)
    what = Publish(partition, run_id, mark, table.last_publish(pairs, partition) + 1)
    done = table.find_publish(pairs, mark)
    if done is None:
        return Before(pairs, rejected, what, done=False)
    return Before(table.open_table(layout.pairs, done - 1), rejected, what, done=True)


def _open(layout: Layout) -> tuple[Table, Table]:
    # The one that is committed last is opened first: a publish in between looks half, never whole.
    pairs = table.open_table(layout.pairs)
    return pairs, table.open_table(layout.rejected)


def _is_half(pairs: Table, rejected: Table, partition: str) -> bool:
    return table.last_publish(rejected, partition) > table.last_publish(pairs, partition)


def _take_back(layout: Layout, partition: str, run_id: str) -> tuple[Table, Table]:
    """Bring the rejected table's partition back to before the commit that pairs lacks, if there is one."""
    pairs, rejected = _open(layout)
    if not _is_half(pairs, rejected, partition):
        return pairs, rejected
    table.take_back(layout.rejected, partition, run_id, table.last_publish(pairs, partition))
    return _open(layout)
