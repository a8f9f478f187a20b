"""Numbers for a line's requests: the same at all stages, counting up, and with gaps that say something.

Behind a single row the last stage may tell the first one the likeliest token, which then decodes that row ahead and
hands it on under the next number. So this number stands for that row and nothing else: whoever asks for it takes what
was decoded ahead, if anything was; whoever wants another row leaves the number out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllm_chat.session.stage_leg import StageLeg


@dataclass(frozen=True, slots=True)
class _Row:
    """The newest single row."""

    request: int
    position: int
    likeliest: int | None = None
    """Token behind it; None: not known yet."""


class RequestNumbers:
    """Of one line."""

    def __init__(self, legs: Sequence[StageLeg]) -> None:
        """``legs``: may have been asked for things before, in another line."""
        self._legs = legs
        self._row = _Row(self._newest, -1)

    @property
    def _newest(self) -> int:
        return max(leg.leg.last_request for leg in self._legs)

    def next(self) -> int:
        """For a request of any kind."""
        newest, row = self._newest, self._row.request
        return max(newest, row) + 1 + (newest == row)

    def next_row(self, position: int, token: int) -> int:
        """For a single row, of a token that was chosen."""
        row, newest = self._row, self._newest
        agrees = (newest, position, token) == (row.request, row.position + 1, row.likeliest)
        request = newest + 1 if agrees else self.next()
        self._row = _Row(request, position)
        return request

    def told(self, request: int, likeliest: int) -> None:
        """The logits behind a single row have come."""
        if request == self._row.request:
            self._row = _Row(request, self._row.position, likeliest)
