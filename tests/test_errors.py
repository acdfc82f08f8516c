import pickle

import pytest

from tasks.clients.storage_errors import TransientStorageError
from tasks.core import errors
from tasks.core.errors import PairmillError

OURS: list[type[PairmillError]] = [
    *(one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, PairmillError)),
    TransientStorageError,
]


@pytest.mark.parametrize("kind", OURS)
def test_an_error_crosses_process_borders_whole(kind: type[PairmillError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("what was found, and what to do")))
    assert (type(copy), str(copy)) == (kind, "what was found, and what to do")


def test_only_a_wrong_parameter_exits_with_two() -> None:
    assert {kind.exit_code for kind in OURS if kind is not errors.UsageError} == {1}
    assert errors.UsageError.exit_code == 2
