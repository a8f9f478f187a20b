"""How batches are cut, and which part of a model an engine holds."""

from __future__ import annotations

import numpy as np
import pytest

from local_worker.engine.role import Role, even_groups
from local_worker.engine.rows import Rows


def parts_of(*shape: tuple[int, int]) -> list[Rows]:
    return [Rows(sequence, 0, np.zeros(rows, np.int32), rows) for sequence, rows in shape]


@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ([(0, 5)], [[(0, 0, 5)]]),
        ([(0, 1), (1, 1), (2, 1)], [[(0, 0, 1), (1, 0, 1), (2, 0, 1)]]),
        ([(0, 5), (1, 3)], [[(0, 0, 3), (1, 0, 3)], [(0, 3, 2)]]),
        ([(0, 1), (2, 1)], [[(0, 0, 1)], [(1, 0, 1)]]),
        ([(0, 2), (1, 1), (2, 2)], [[(0, 0, 1), (1, 0, 1), (2, 0, 1)], [(0, 1, 1)], [(2, 1, 1)]]),
        ([], []),
    ],
)
def test_neighbours_go_together_as_long_as_all_have_rows(
    shape: list[tuple[int, int]], groups: list[list[tuple[int, int, int]]]
) -> None:
    assert list(even_groups(parts_of(*shape))) == groups


@pytest.mark.parametrize(
    ("role", "takes", "gives", "speaks"),
    [
        (Role(0, 4, 4), False, False, True),
        (Role(0, 1, 4), False, True, True),
        (Role(1, 3, 4), True, True, False),
        (Role(3, 4, 4), True, False, True),
    ],
)
def test_what_goes_in_and_out(role: Role, takes: bool, gives: bool, speaks: bool) -> None:
    assert (role.takes_hidden, role.gives_hidden, role.has_vocabulary) == (takes, gives, speaks)
    assert role.is_whole == (not takes and not gives)
