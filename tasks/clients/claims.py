"""What other runs of a destination are making at this moment, so that it is paid for once.

A run's staged plan is its claim, as long as the run renews the lease of its source.
Plans are made one at a time, so that of two runs the later one sees the earlier one's.
"""

import json
from collections.abc import Collection

import polars as pl

from tasks.clients import frames, storage
from tasks.clients.lease import is_renewed
from tasks.core.layout import Layout
from tasks.core.planning import CLAIMED, number_hashes
from tasks.core.requests import Order


def find_claimed(order: Order, numbers: pl.DataFrame, languages: Collection[str]) -> pl.DataFrame:
    """Return what living runs of other sources have planned of these descriptions and languages.

    Call it before the published pairs are looked at: a run that ends meanwhile has published.
    Where there is any, it takes as long as a renewal of the other's lease does.

    Args:
        order: The run that asks.
        numbers: Column number, the descriptions asked for.
        languages: Those that any of them is asked for in.

    Returns:
        CLAIMED, each once.
    """
    found = [pl.DataFrame(schema=CLAIMED)]
    staged = [item.uri for item in storage.list_objects(f"{order.destination}/staging/")]
    for lease in staged:
        if not lease.startswith(order.layout.source_leases) or (owner := _find_owner(lease)) in ("", order.run_id):
            continue
        plan = [uri for uri in staged if f"/{owner}/plan/" in uri]
        claimed = _read_claims(plan, numbers, languages)
        if claimed.height and is_renewed(lease):
            found.append(claimed)
    return pl.concat(found).unique()


def find_living(layout: Layout, runs: Collection[str]) -> dict[str, str]:
    """Return the leases of sources that any of these `runs` still renews, each with its run."""
    leases = [item.uri for item in storage.list_objects(f"{layout.destination}/staging/")]
    owners = {lease: _find_owner(lease) for lease in leases if lease.startswith(layout.source_leases)}
    return {lease: owner for lease, owner in owners.items() if owner in runs and is_renewed(lease)}


def _find_owner(lease: str) -> str:
    """Return the run that holds the lease, empty text where it has just ended."""
    held = storage.find_bytes(lease)
    return str(json.loads(held[0])["owner"]) if held else ""


def _read_claims(plan: list[str], numbers: pl.DataFrame, languages: Collection[str]) -> pl.DataFrame:
    if not plan:
        return pl.DataFrame(schema=CLAIMED)
    try:
        return (
            frames.scan_frames(plan)
            .filter(pl.col("language").is_in(list(languages)))
            .select("language", number=number_hashes(pl.col("description_hash")))
            .join(numbers.lazy(), on="number", how="semi")
            .select(*CLAIMED)
            .collect(engine="streaming")
        )
    except FileNotFoundError:
        # The run has ended meanwhile, and has tidied up.
        return pl.DataFrame(schema=CLAIMED)
