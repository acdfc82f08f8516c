"""Serves every deployment from one process: no work pool, no worker.

python -m deployments.serve

It starts each run as a process of its own on this machine, in this directory.
"""

import os
from importlib import import_module
from typing import Any

from deployments.definitions import read_deployments, read_environment

# A backfill waits for its days, so there must be room for both: for more than anybody starts at once.
RUNS_AT_ONCE = 20


def make_deployments() -> list[Any]:
    """Return the deployments of prefect.yaml as this process serves them."""
    from prefect.schedules import Cron  # noqa: PLC0415
    from prefect.types.entrypoint import EntrypointType  # noqa: PLC0415  (after the environment)

    deployments = []
    for one in read_deployments():
        module, _, name = one["entrypoint"].rpartition(".")
        schedules = [Cron(schedule.pop("cron"), **schedule) for schedule in one.get("schedules", [])]
        deployments.append(
            getattr(import_module(module), name).to_deployment(
                name=one["name"],
                description=one["description"],
                tags=one["tags"],
                parameters=one["parameters"],
                schedules=schedules,
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
        )
    return deployments


if __name__ == "__main__":
    for variable, value in read_environment().items():
        os.environ.setdefault(variable, value)

    from prefect import serve

    serve(*make_deployments(), limit=RUNS_AT_ONCE)
