"""Stages that hold fewer rows than others catch up: from token ids, or from what the stage before sends once more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from dllm_chat.session.leg import RowsLost
from dllm_chat.session.line_ear import LineEar
from dllm_chat.session.patience import patience_s
from dllm_chat.session.stage_leg import StageFailed, StageLeg
from dllm_chat.session.together import Together
from dllm_protocol.messages import OUTPUTS_HELD, ROW_REPLAYED
from dllm_protocol.session.ledger import WINDOW_PROMPT_ROWS, Ledger
from dllm_protocol.session.rows import charged
from dllm_protocol.session.transcript import RowLabel

REPLAYS_AHEAD: Final = 4
"""Slices that are on their way to a stage at once."""


class CatchingUp:
    """Brings the stages of a line to the same number of rows. Whoever has them is left alone."""

    def __init__(
        self,
        legs: Sequence[StageLeg],
        ear: LineEar,
        ledger: Ledger,
        store: Callable[[], None],
        label: RowLabel,
        held: Sequence[int],
        together: Together,
        next_request: Callable[[], int],
    ) -> None:
        """``held``: token ids of the rows; ``together``: which of them were asked for together."""
        self._legs = legs
        self._ear = ear
        self._ledger = ledger
        self._store = store
        self._label = label
        self._held = list(held)
        self._together = together
        self._next_request = next_request

    async def run(self) -> None:
        """Bring every stage to all rows.

        Raises:
            StageFailed, RowsLost, DepositUsedUp
        """
        rows = len(self._held)
        index = 0
        anew: set[bytes] = set()
        while index < len(self._legs):
            leg = self._legs[index]
            if leg.rows >= rows:
                index += 1
                continue
            source = self._legs[index - 1] if index else None
            try:
                await self._catch_up(leg, source, rows)
            except RowsLost as lost:
                if source is None or lost.provider != source.provider:
                    raise
                await self._stop(leg)
                if source.provider in anew:
                    # It does not keep so much: the rows go through the whole line once more.
                    for one in self._legs:
                        one.rows = min(one.rows, leg.rows)
                    raise
                # What was sent before is not kept any more: the stage before computes it once more.
                anew.add(source.provider)
                source.rows = min(source.rows, leg.rows)
                index -= 1

    async def _catch_up(self, leg: StageLeg, source: StageLeg | None, rows: int) -> None:
        """Have one stage decode what it lacks, from token ids or from what the stage before sends again."""
        sent: deque[int] = deque()
        left = deque(self._together.parts(ROW_REPLAYED, leg.rows, rows))
        while left or sent:
            if left and len(sent) < REPLAYS_AHEAD:
                first, end = left.popleft()
                sent.append(await self._replay_rows(leg, source, first, self._held[first:end]))
                continue
            request = sent.popleft()
            await self._ear.until(
                partial(leg.has_answered, request),
                patience_s(WINDOW_PROMPT_ROWS),
                lambda: StageFailed(
                    leg.provider,
                    "a stage did not catch up in time",
                    behind=source.provider if source is not None else b"",
                ),
            )
            self._ear.raise_failures()

    async def _stop(self, leg: StageLeg) -> None:
        """Give up what a stage is asked for, and wait until that is so: a stage takes few requests at once."""
        await give_up_on(self._ear, leg)
        await self._ear.until(
            lambda: not leg.unanswered,
            patience_s(1),
            lambda: StageFailed(leg.provider, "a stage did not give up rows that it waits for"),
        )

    async def _replay_rows(self, leg: StageLeg, source: StageLeg | None, first: int, ids: list[int]) -> int:
        request = self._next_request()
        top_k = self._legs[-1].ready.top_k
        self._ledger.require_room({leg.provider: charged(ROW_REPLAYED, len(ids), OUTPUTS_HELD)})
        leg.asked(request, first, len(ids))
        if source is None:
            _, frame = leg.leg.decode(
                first, ids, kind=ROW_REPLAYED, top_k=top_k, outputs=OUTPUTS_HELD, request=request
            )
            self._store()
            await leg.send(frame)
            return request
        frame = leg.leg.expect(
            request,
            first,
            len(ids),
            kind=ROW_REPLAYED,
            top_k=top_k,
            outputs=OUTPUTS_HELD,
            label=self._label.of(self._held[: first + len(ids)]),
            gives_logits=False,
        )
        self._store()
        await leg.send(frame)
        await source.send(source.leg.resend(request, first, len(ids)))
        return request


async def give_up_on(ear: LineEar, leg: StageLeg) -> None:
    """Whatever a stage is still asked for is not wanted any more."""
    for request in leg.unanswered:
        ear.give_up(request)
        await leg.send(leg.leg.cancel(request))
