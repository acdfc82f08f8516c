"""A Delta table's upkeep: small files become few, and rows, files and versions go."""

from deltalake import WriterProperties

from tasks.clients import storage
from tasks.clients.table import open_table, table_errors
from tasks.clients.table_files import FILE_ROWS

_WRITER = WriterProperties(compression="ZSTD", max_row_group_size=FILE_ROWS)


def delete_rows(uri: str, predicate: str) -> int:
    """Delete rows in one commit and return how many they were; `predicate` is SQL of our own, never outside text."""
    held = open_table(uri)
    if held is None:
        return 0
    with table_errors(uri):
        return int(held.delete(predicate)["num_deleted_rows"] or 0)


def tidy(uri: str, history_days: int) -> tuple[int, int]:
    """Merge small files, write a checkpoint, and remove the files that no version of the last days needs.

    Returns:
        (files merged, files removed).
    """
    held = open_table(uri)
    if held is None:
        return 0, 0
    with table_errors(uri):
        merged = held.optimize.compact(writer_properties=_WRITER)
        removed = held.vacuum(24 * history_days, dry_run=False, enforce_retention_duration=False)
        held.update_incremental()
        held.create_checkpoint()
        held.cleanup_metadata()
    return int(merged["numFilesRemoved"]), len(removed)


def drop_history(uri: str) -> bool:
    """Remove every version but the newest, with all files that it does not need; False without a table."""
    held = open_table(uri)
    if held is None:
        return False
    with table_errors(uri):
        held.vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)
        held.update_incremental()
        held.create_checkpoint()
    logs = storage.list_objects(f"{uri}/_delta_log")
    numbered = {item.uri: item.uri.rpartition("/")[2].partition(".")[0] for item in logs}
    old = [name for name, number in numbered.items() if number.isdigit() and int(number) < held.version()]
    storage.delete_objects(old)
    return True
