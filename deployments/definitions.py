"""Reads prefect.yaml, so that nothing in it is written twice."""

from pathlib import Path
from typing import Any

import yaml

PREFECT_FILE = Path(__file__).with_name("prefect.yaml")


def read_deployments() -> list[dict[str, Any]]:
    """Return the deployments with the environment's values filled in; empty where it has none."""
    from prefect.utilities.templating import apply_values  # noqa: PLC0415  (after the environment)

    content = yaml.safe_load(PREFECT_FILE.read_text(encoding="utf-8"))
    deployments: list[dict[str, Any]] = apply_values(content["deployments"], {}, warn_on_notset=False)
    return deployments


def read_environment() -> dict[str, str]:
    """Return the variables that every run of a deployment is given."""
    content = yaml.safe_load(PREFECT_FILE.read_text(encoding="utf-8"))
    return dict(content["definitions"]["environment"])
