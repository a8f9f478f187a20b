"""Which rows were asked for together: whoever takes over computes them in batches of the same kind, to the same bits.

llama.cpp sums up attention in another order where a batch has many rows, which moves logits of quantised models by a
tenth. So a prompt is replayed in the requests that it came in, and tokens few at a time: batches of one row and of
`FEW_ROWS` give the same bits, and the latter are nearly as fast as large ones.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from dllm_protocol.messages import ROW_DRAFTED, ROW_KEPT, ROW_REPLAYED
from dllm_protocol.session.ledger import WINDOW_PROMPT_ROWS

TILE_ROWS: Final = 64
"""The smallest batch that llama.cpp computes attention of in tiles (GGML_FA_TILE_Q)."""
FEW_ROWS: Final = 32
"""Rows that are computed as single ones are."""


class Together:
    """Requests for more than a few rows, of one session, as far as their rows still count."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int]] = []

    def note(self, kind: int, first: int) -> None:
        """Rows from ``first`` on are asked for one by one: what was asked for there before does not count any more.

        Args:
            kind: a ROW_ constant; those of prompts and replays were cut into `parts`.
        """
        if kind in (ROW_KEPT, ROW_DRAFTED):
            self._spans = [(begin, min(end, first)) for begin, end in self._spans if begin < first]

    def parts(self, kind: int, first: int, end: int) -> list[tuple[int, int]]:
        """How to ask for rows [first, end): ``[(begin, end), …]``, none longer than `WINDOW_PROMPT_ROWS`.

        Args:
            kind: a ROW_ constant; replays are cut as the rows were when they were new.
        """
        if kind != ROW_REPLAYED:
            found = list(pairwise(_bounds(first, end)))
            self.note(ROW_KEPT, first)
            self._spans += [part for part in found if part[1] - part[0] > FEW_ROWS]
            return found
        found = []
        while first < end:
            until = self._end_of_part(first, end)
            found.append((first, until))
            first = until
        return found

    def _end_of_part(self, first: int, end: int) -> int:
        for begin, until in self._spans:
            if begin <= first < until:
                return min(until, end, first + WINDOW_PROMPT_ROWS)
        begins = [begin for begin, _ in self._spans if begin > first]
        return min(first + FEW_ROWS, end, *begins)


def _bounds(first: int, end: int) -> list[int]:
    """Where a prompt is cut: into as few requests as can be, the last of which is no smaller than a tile."""
    bounds = [*range(first, end, WINDOW_PROMPT_ROWS), end]
    if len(bounds) > 2:
        bounds[-2] = min(bounds[-2], end - TILE_ROWS)
    return bounds
