"""What other runs of a destination are making at this moment, so that it is paid for once.

A run's staged plan is its claim, as long as the run renews the lease of its source.
Plans are made one at a time, so that of two runs the later one sees the earlier one's.
"""

from collections.abc import Callable, Collection

import polars as pl

from tasks.clients import frames, storage
from tasks.clients.lease import find_owner, find_renewed
from tasks.core.distinct import number_hashes
from tasks.core.layout import Layout
from tasks.core.planning import CLAIMED
from tasks.core.requests import Order


def find_claimed(
    order: Order,
    numbers: pl.DataFrame,
    languages: Collection[str],
    find_living: Callable[[Collection[str]], set[str]],
) -> pl.DataFrame:
    """Return what living runs of other sources have planned of these descriptions and languages.

    Call it before the published pairs are looked at: a run that ends meanwhile has published.
    Where there is any, it takes as long as a renewal of the others' leases does.

    Args:
        order: The run that asks.
        numbers: Column number, the descriptions asked for.
        languages: Those that any of them is asked for in.
        find_living: Tells the leases whose owners are alive.

    Returns:
        CLAIMED, each once.
    """
    found = dict[str, pl.DataFrame]()
    staged = [item.uri for item in storage.list_objects(f"{order.destination}/staging/")]
    for lease in staged:
        if not lease.startswith(order.layout.source_leases) or (owner := find_owner(lease)) in ("", order.run_id):
            continue
        plan = [uri for uri in staged if f"/{owner}/plan/" in uri]
        claimed = _read_claims(plan, numbers, languages)
        if claimed.height:
            found[lease] = claimed
    living = find_living(found)
    return pl.concat([pl.DataFrame(schema=CLAIMED), *(found[lease] for lease in found if lease in living)]).unique()


def find_living(layout: Layout, runs: Collection[str]) -> dict[str, str]:
    """Return the leases that any of these `runs` still renews, each with its run."""
    leases = [item.uri for item in storage.list_objects(f"{layout.destination}/staging/")]
    owners = {lease: find_owner(lease) for lease in leases if lease.startswith(layout.run_leases)}
    theirs = {lease: owner for lease, owner in owners.items() if owner in runs}
    living = find_renewed(theirs)
    return {lease: owner for lease, owner in theirs.items() if lease in living}


def _read_claims(plan: list[str], numbers: pl.DataFrame, languages: Collection[str]) -> pl.DataFrame:
    if not plan:
        return pl.DataFrame(schema=CLAIMED)
    try:
        with frames.whole_objects(lambda: plan):
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
