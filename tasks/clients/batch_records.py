"""What the bucket knows of batches at the provider: written before they are sent, kept until they are collected.

Of each batch, by its name: NAME.keys (its requests, 16 bytes each) and NAME.json
before it is sent, NAME.sent.json when the provider has taken it, NAME.done.json when
its completions are in the journal; then the others are removed.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any

from tasks.clients import storage
from tasks.clients.documents import read_document
from tasks.core.batching import Batch

KEY_BYTES = 16
_FIELDS = tuple(field.name for field in fields(Batch))


class Records:
    """The batches of one recipe and source, under `uri`; the source's lease has one writer at a time."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._ended: set[str] = set()

    def find_open(self) -> list[Batch]:
        """Return the batches that are not collected, the oldest first, and remove what is left of the others."""
        kinds: defaultdict[str, set[str]] = defaultdict(set)
        for item in storage.list_objects(self.uri):
            name, _, kind = item.uri.removeprefix(f"{self.uri}/").partition(".")
            kinds[name].add(kind)
        self._ended = {name for name, found in kinds.items() if "done.json" in found}
        storage.delete_objects(
            [
                self._object(name, kind)
                for name, found in kinds.items()
                # Without a record, keys were never sent.
                if name in self._ended or "json" not in found
                for kind in sorted(found - {"done.json"})
            ]
        )
        batches = []
        for name, found in kinds.items():
            if name not in self._ended and "json" in found:
                record = read_document(self._object(name, "json"), *_FIELDS)
                if "sent.json" in found:
                    record |= read_document(self._object(name, "sent.json"), "job", "file")
                batches.append(Batch(**{field: record[field] for field in _FIELDS}))
        return sorted(batches, key=lambda batch: (batch.written_at, batch.name))

    def is_ended(self, name: str) -> bool:
        """Whether a batch of this name was collected before."""
        return name in self._ended

    def write(self, batch: Batch, keys: Sequence[str]) -> bool:
        """Keep a batch that is about to be sent; False where there is one of its name."""
        storage.write_bytes(self._object(batch.name, "keys"), join_keys(keys))
        return storage.create_bytes(self._object(batch.name, "json"), batch.to_json())

    def write_sent(self, batch: Batch) -> None:
        """Keep the provider's names of a batch that it has taken."""
        storage.write_bytes(
            self._object(batch.name, "sent.json"), json.dumps({"job": batch.job, "file": batch.file}).encode()
        )

    def write_done(self, batch: Batch, outcome: Mapping[str, Any]) -> None:
        """Keep that everything of a batch is in the journal."""
        done = json.loads(batch.to_json()) | dict(outcome)
        storage.write_bytes(self._object(batch.name, "done.json"), json.dumps(done).encode())
        self._ended.add(batch.name)
        self.drop(batch)

    def drop(self, batch: Batch) -> None:
        """Forget a batch: its requests are asked for anew."""
        storage.delete_objects([self._object(batch.name, kind) for kind in ("json", "sent.json", "keys")])

    def read_keys(self, batch: Batch) -> list[str]:
        """Return the keys of a batch's requests, in their order."""
        return split_keys(storage.read_bytes(self._object(batch.name, "keys")))

    def describe(self, batch: Batch) -> str:
        """Say which batch it is, where it was sent to, and how to give it up."""
        record = self._object(batch.name, "json")
        where = batch.api_base or "its provider's own address"
        return f"batch {batch.job} (sent to {where}; without {record} its requests are asked for anew)"

    def _object(self, name: str, kind: str) -> str:
        return f"{self.uri}/{name}.{kind}"


def find_collected(uri: str) -> list[storage.StoredObject]:
    """Return what is still kept under `uri` of batches that are collected; without its record an open one is lost."""
    batches: defaultdict[str, list[storage.StoredObject]] = defaultdict(list)
    for item in storage.list_folder(uri):
        folder, _, name = item.uri.rpartition("/")
        batches[f"{folder}/{name.partition('.')[0]}"].append(item)
    collected = (items for name, items in batches.items() if any(one.uri == f"{name}.done.json" for one in items))
    return [item for items in collected for item in items]


def forget_keys(uri: str, keys: Collection[str]) -> int:
    """Take requests out of all batches under `uri`, so that what answers them is not collected; return how many."""
    forgotten = 0
    for item in storage.list_objects(uri):
        if item.uri.endswith(".keys"):
            known = split_keys(storage.read_bytes(item.uri))
            kept = [key for key in known if key not in keys]
            if len(kept) < len(known):
                storage.write_bytes(item.uri, join_keys(kept))
            forgotten += len(known) - len(kept)
    return forgotten


def join_keys(keys: Sequence[str]) -> bytes:
    """Return what a .keys object holds."""
    return b"".join(map(bytes.fromhex, keys))


def split_keys(data: bytes) -> list[str]:
    """Return the keys that a .keys object holds."""
    return [data[at : at + KEY_BYTES].hex() for at in range(0, len(data), KEY_BYTES)]
