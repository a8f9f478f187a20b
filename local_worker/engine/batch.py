"""The arrays behind a `llama_batch`, filled by slices instead of by elements."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from local_worker.engine.role import Role
from local_worker.engine.rows import Rows
from local_worker.engine.scheduler import SHORT_ROWS

MAX_OUTPUT_BYTES: Final = 1 << 27
"""What llama.cpp may move as logits in one batch of a chunk that gives none: it does so for every row, unasked.

With the largest vocabularies (262,208 tokens) that are 127 rows, just enough to cut no slice smaller than a tile.
"""
_MAX_HIDDEN_BYTES: Final = 1 << 24
"""Hidden states of one batch: they cross the pipe in one frame."""
_INT32 = ctypes.POINTER(ctypes.c_int32)


def most_rows(role: Role, wished: int, sequences: int, n_embd: int, vocab_size: int) -> int:
    """Most rows of a batch: a chunk's are bounded by what its rows weigh."""
    if role.is_whole:
        return wished
    rows = min(wished, _MAX_HIDDEN_BYTES // (4 * max(1, n_embd)))
    if role.gives_hidden:
        rows = min(rows, MAX_OUTPUT_BYTES // (4 * max(1, vocab_size)))
    return max(rows, sequences, SHORT_ROWS)


class BatchRows:
    """Room for ``rows`` rows: of token ids, or of hidden states where ``n_embd`` says how wide they are."""

    def __init__(self, rows: int, *, n_embd: int) -> None:
        self._tokens = np.zeros(0 if n_embd else rows, dtype=np.int32)
        self._hidden = np.zeros((rows if n_embd else 0, n_embd), dtype=np.float32)
        self._takes_hidden = n_embd > 0
        self._positions = np.zeros(rows, dtype=np.int32)
        self._counts = np.ones(rows, dtype=np.int32)
        self._sequence_ids = np.zeros(rows, dtype=np.int32)
        self._wanted = np.zeros(rows, dtype=np.int8)
        self._pointers = self._sequence_ids.ctypes.data + 4 * np.arange(rows, dtype=np.uintp)

    def pointers(self) -> dict[str, Any]:
        """The fields of a `llama_batch`; they stay valid as long as this object lives."""
        hidden = self._hidden.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        return {
            "n_tokens": 0,
            "token": None if self._takes_hidden else self._tokens.ctypes.data_as(_INT32),
            "embd": hidden if self._takes_hidden else None,
            "pos": self._positions.ctypes.data_as(_INT32),
            "n_seq_id": self._counts.ctypes.data_as(_INT32),
            "seq_id": self._pointers.ctypes.data_as(ctypes.POINTER(_INT32)),
            "logits": self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        }

    def fill(self, parts: Sequence[Rows], *, wants_all: bool) -> int:
        """Put the parts in, one behind the other; returns how many rows they are.

        Args:
            wants_all: every row has an output, whatever its part says.
        """
        at = 0
        target = self._hidden if self._takes_hidden else self._tokens
        for part in parts:
            rows = len(part.inputs)
            end = at + rows
            outputs = rows if wants_all else part.outputs
            target[at:end] = part.inputs
            if rows == 1:
                self._positions[at] = part.first_position
            else:
                self._positions[at:end] = np.arange(part.first_position, part.first_position + rows)
            self._sequence_ids[at:end] = part.sequence
            self._wanted[at : end - outputs] = 0
            self._wanted[end - outputs : end] = 1
            at = end
        return at
