"""How far rows that came out of a chunk are from those that were to come out.

Two honest machines differ in the last bits, or by a rounding of activations: their kernels add in other orders and
quantise in other places. So rows are compared by what the chunk *added* to what went in. A chunk changes its rows by a
fifth or less; beside the rows themselves, one that computed nothing would look nearly right.

Nothing that is hashed, signed or agreed on depends on these numbers: they are one machine's judgement.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul, sub
from typing import Final


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The most that honest machines differ, in parts of what the rows are measured by."""

    typical: float
    """For the better half of the rows."""
    worst: float
    """For every row."""


DENSE: Final = Tolerance(typical=0.06, worst=0.06)
"""Measured over other attention kernels, unquantised activations and caches: at most 0.021. Chunks that leave a block
out, or have another in its place: at least 0.18."""
ROUTED: Final = Tolerance(typical=0.3, worst=0.9)
"""For models with experts: where two are nearly as good, the last bits decide which is asked. Measured: at most 0.51 in
one row, 0.24 in the better half."""
DENSE_LOGITS: Final = Tolerance(typical=0.25, worst=0.25)
"""Beside the spread of a row's logits. Measured over 136 rows: at most 0.103. A block left out: at least 0.34."""
ROUTED_LOGITS: Final = Tolerance(typical=0.75, worst=2.25)
"""Measured with random routers, which are the worst: at most 0.59 in the better half, 1.25 in one row. Logits that say
nothing are 1 off in every row."""


@dataclass(frozen=True, slots=True)
class RowDifference:
    """One row beside the one that was expected."""

    row: int
    error: float
    """Length of the difference, in parts of the length of what was added (of logits: of their spread)."""
    cosine: float
    """Of what was added, with what was to be added."""
    length_ratio: float
    """Length of what was added, over that of what was to be added."""

    def in_words(self) -> str:
        """What disagreed, with numbers."""
        return (
            f"row {self.row} has an error of {self.error:.2g}, "
            f"cosine {self.cosine:.4f}, length {self.length_ratio:.3g} times"
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows beside those that were expected."""

    rows: tuple[RowDifference, ...]
    is_exact: bool
    """Whether every bit is the same."""

    @property
    def worst(self) -> RowDifference:
        """The row that differs most."""
        return max(self.rows, key=lambda one: one.error)

    def first_beyond(self, tolerance: Tolerance) -> RowDifference | None:
        """The first row that an honest machine would not have given; None where all are near enough."""
        typical = sorted(one.error for one in self.rows)[(len(self.rows) - 1) // 2]
        limit = tolerance.worst if typical <= tolerance.typical else tolerance.typical
        return next((one for one in self.rows if not one.error <= limit), None)


def compare_hidden(expected: bytes, got: bytes, entered: bytes | None, width: int) -> Comparison:
    """Rows of hidden states beside each other, all f32, little-endian.

    Args:
        entered: the rows that went in; None for a first chunk, whose rows are compared as they are.
        width: numbers of a row.

    Raises:
        ValueError: sizes that do not fit each other, or no rows.
    """
    rows = len(expected) // (4 * width) if width > 0 else 0
    sizes = {len(expected), len(got), len(entered) if entered is not None else len(expected)}
    if rows < 1 or sizes != {4 * rows * width}:
        raise ValueError(f"rows of {width} numbers in {sorted(sizes)} bytes")
    found = []
    for row in range(rows):
        wanted, came = _row(expected, row, width), _row(got, row, width)
        if entered is not None:
            base = _row(entered, row, width)
            wanted, came = tuple(map(sub, wanted, base)), tuple(map(sub, came, base))
        found.append(_difference(row, wanted, came))
    return Comparison(tuple(found), expected == got)


def compare_logits(
    expected: Sequence[tuple[Sequence[int], Sequence[float]]],
    got: Sequence[tuple[Sequence[int], Sequence[float]]],
) -> Comparison:
    """Largest logits of each row, with their tokens, beside each other; ``got`` may have more of each row.

    An expected token that is not among those that came counts with the least logit that came, which is above its own.
    Differences are measured by the spread of the expected logits of a row.

    Raises:
        ValueError: another number of rows, or rows without logits.
    """
    if len(expected) != len(got) or not expected or not all(ids for ids, _ in (*expected, *got)):
        raise ValueError(f"{len(expected)} rows of logits beside {len(got)}")
    found = []
    exact = True
    for row, ((ids, wanted), (came_ids, came)) in enumerate(zip(expected, got, strict=True)):
        by_id = dict(zip(came_ids, came, strict=True))
        beside = [by_id.get(token, min(came)) for token in ids]
        exact = exact and list(came_ids[: len(ids)]) == list(ids) and beside == list(wanted)
        mean = math.fsum(wanted) / len(wanted)
        found.append(_difference(row, [one - mean for one in wanted], [one - mean for one in beside]))
    return Comparison(tuple(found), exact)


def _row(data: bytes, row: int, width: int) -> tuple[float, ...]:
    return struct.unpack_from(f"<{width}f", data, 4 * width * row)


def _difference(row: int, wanted: Sequence[float], came: Sequence[float]) -> RowDifference:
    length, other = _length(wanted), _length(came)
    apart = _length(list(map(sub, wanted, came)))
    if apart == 0.0:
        return RowDifference(row, 0.0, 1.0, 1.0)
    if length == 0.0 or not math.isfinite(apart):
        return RowDifference(row, math.inf, 0.0, math.inf)
    cosine = math.fsum(map(mul, wanted, came)) / (length * other) if other else 0.0
    return RowDifference(row, apart / length, cosine, other / length)


def _length(numbers: Sequence[float]) -> float:
    return math.sqrt(math.fsum(map(mul, numbers, numbers)))
