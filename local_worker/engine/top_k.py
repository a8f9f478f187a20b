"""The largest logits of a row, without a step of Python per vocabulary entry."""

from __future__ import annotations

import math

import numpy as np

from local_worker.engine.messages import Ids, Logits, RowOutput

_GROUP_SIZE = 32
_SAFE_LOGIT = 60.0
"""A largest logit below this lets no sum over 2^20 entries leave f32's range, in either direction."""


class TopK:
    """Reads rows of one vocabulary size; keeps scratch memory, so that a row costs no page faults."""

    def __init__(self, vocab_size: int) -> None:
        self._scratch = np.empty(vocab_size, dtype=np.float32)
        self._columns = vocab_size // _GROUP_SIZE
        self._maxima = np.empty(self._columns, dtype=np.float32)
        self._marks = np.empty(vocab_size, dtype=np.bool_)

    def read(self, row: Logits, position: int, k: int) -> RowOutput:
        """What a client gets of one row [vocab_size].

        Raises:
            ArithmeticError: the model answered with something that is not a number.
        """
        ids = self.largest(row, min(k, len(row)))
        logits = row[ids]
        maximum = float(logits[0]) if len(ids) else math.nan
        logsumexp = self.log_sum_exp(row, maximum) if math.isfinite(maximum) else math.nan
        if not math.isfinite(logsumexp):
            raise ArithmeticError(f"the logits at position {position} are not all numbers")
        return RowOutput(position, ids, logits, logsumexp)

    def largest(self, row: Logits, k: int) -> Ids:
        """Ids of the ``k`` largest logits, largest first; of equal ones the lower id first.

        Split the row into disjoint groups: the k-th largest of the groups' maxima is a lower bound of the k-th
        largest logit. One pass for the maxima and one comparison leave few candidates to sort, which is several
        times faster than a partition of the whole row.
        """
        columns = self._columns
        if columns < 2 * k:
            candidates = np.arange(len(row))
        else:
            grid = row[: columns * _GROUP_SIZE].reshape(_GROUP_SIZE, columns)
            np.max(grid, axis=0, out=self._maxima)  # groups are columns: this runs along memory
            self._maxima.partition(columns - k)
            candidates = np.flatnonzero(np.greater_equal(row, self._maxima[columns - k], out=self._marks))
        order = np.argsort(-row[candidates], kind="stable")[:k]
        return candidates[order].astype(np.int32)

    def log_sum_exp(self, row: Logits, maximum: float) -> float:
        """ln Σ exp(logit) over the whole row; ``maximum``, its largest logit, is taken out where needed."""
        if abs(maximum) < _SAFE_LOGIT:
            maximum = 0.0
            np.exp(row, out=self._scratch)
        else:
            np.subtract(row, np.float32(maximum), out=self._scratch)
            np.exp(self._scratch, out=self._scratch)
        return maximum + math.log(float(self._scratch.sum(dtype=np.float64)))
