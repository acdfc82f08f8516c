"""kill -9 of runs at random moments, of which its machine stays, and the local folder with it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kills import PARTS, kill_runs
from tests.night import Night

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("part", range(PARTS))
def test_a_killed_run_loses_nothing_and_pays_only_what_was_in_flight_again(
    part: int, nights: Callable[[str], Night], reader: tuple[Callable[[str], None], Path]
) -> None:
    kill_runs("kept", part, nights, reader)
