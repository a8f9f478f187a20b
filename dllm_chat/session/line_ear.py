"""What a line of stages says: every message of every stage, who has done what, and who is not heard any more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Final, NoReturn

from dllm_chat.session.decoder import RowLogits
from dllm_chat.session.leg import RowsLost
from dllm_chat.session.pace import Pace
from dllm_chat.session.patience import BEAT_S, SILENT_S, patience_s
from dllm_chat.session.stage_leg import StageFailed, StageLeg, StageSlow
from dllm_protocol.encoding import Record
from dllm_protocol.messages import (
    REFUSED_NEXT,
    REFUSED_PREVIOUS,
    REFUSED_REQUEST,
    Acknowledge,
    Done,
    Goodbye,
    Linked,
    Output,
    Pong,
    Refused,
    Tokens,
    Unlinked,
    VocabularyPart,
    unpack_floats,
    unpack_ids,
)

SETTLE_S: Final = 1.0
"""Longest wait, at the end of an answer, for what became of requests that were given up."""


class LineEar:
    """Hears all stages of a line.

    Attributes:
        outputs: rows of logits that came, by request; only of requests that have an entry.
        linked: providers that stand in line.
        given_up: requests of which nothing is wanted any more.
        cancelled: requests that somebody may still be at work on.
        answers: tokens of texts, by request.
        parts: parts of the vocabulary.
    """

    def __init__(
        self, legs: Sequence[StageLeg], generation: int, pace: Pace, clock_s: Callable[[], float]
    ) -> None:
        """Begin to read.

        Args:
            generation: of the line; what is said about earlier ones does not count.
            pace: is told how long each stage had a row.
        """
        self.outputs: dict[int, deque[RowLogits]] = {}
        self.linked: set[bytes] = set()
        self.given_up = {request for leg in legs for request in leg.unanswered}
        self.cancelled: set[int] = set()
        self.answers: dict[int, Tokens] = {}
        self.parts: deque[VocabularyPart] = deque()
        self.round_trip_s: float | None = None
        self._legs = list(legs)
        self._generation = generation
        self._clock_s = clock_s
        self._pace = pace
        self._timed = 0
        self._newest_done = 0
        """Newest request that the last stage answered in full."""
        self._asked_s = 0.0
        self._told_s: dict[int, float] = {}
        """How long after it was asked for each stage said that it is done with the timed row, by index."""
        self._progress = 0
        self._pinged_s = 0.0
        self._ping_trips_s: dict[bytes, float] = {}
        self._refusals: deque[tuple[StageLeg, Refused]] = deque()
        self._failure: StageFailed | None = None
        self._changed = asyncio.Event()
        for leg in self._legs:
            leg.read(self._take, self._changed.set)

    def give_up(self, request: int) -> None:
        """Nothing of a request is wanted any more, nor what stages that refused it said of it."""
        self.given_up.add(request)
        self._refusals = deque(one for one in self._refusals if one[1].request != request)

    async def ping_ends(self) -> None:
        """Measure `round_trip_s`: to the first stage, from stage to stage, and from the last one back."""
        self._pinged_s = self._clock_s()
        for leg in {leg.provider: leg for leg in (self._legs[0], self._legs[-1])}.values():
            await leg.ping()

    def time_row(self, request: int) -> None:
        """A row is asked for on its own: how long does each stage have it?"""
        self._timed, self._asked_s = request, self._clock_s()
        self._told_s.clear()

    def require_pace(self, rows: int, tolerated: Collection[bytes]) -> None:
        """Between two windows: is there a stage that holds the others up? Raises StageSlow.

        Args:
            rows: held before the next one.
            tolerated: providers that may.
        """
        if not self._pace.is_due(rows):
            return
        trips_s = [*self._ping_trips_s.values(), *(leg.link_round_trip_s for leg in self._legs)]
        for index in self._pace.slow_stages(max(trips_s)):
            leg = self._legs[index]
            if leg.provider not in tolerated:
                raise StageSlow(leg.provider, f"stage {index + 1} has become slow")

    async def all_caught_up(self) -> None:
        """Wait until every stage has done what the last one answered.

        One that answers sooner than rows can have come to it makes the client ask the others for more than they have
        room for; what they would refuse then is no fault of theirs.

        Raises:
            StageFailed, RowsLost: as `until`.
        """

        def behind() -> list[int]:
            return [
                request for leg in self._legs for request in leg.unanswered if request not in self.given_up
            ]

        await self.until(lambda: not behind(), patience_s(1), lambda: self.stuck(min(behind())))

    def stuck(self, request: int) -> StageFailed:
        """Who keeps a request up: the first that has not done it."""
        for index, leg in enumerate(self._legs):
            if not leg.has_answered(request):
                return StageFailed(
                    leg.provider,
                    f"stage {index + 1} did not do its rows in time",
                    behind=self._legs[index - 1].provider if index else b"",
                )
        return StageFailed(
            self._legs[-1].provider, "the last stage gave no logits for rows that were asked for"
        )

    async def until(self, holds: Callable[[], bool], limit_s: float, late: Callable[[], StageFailed]) -> None:
        """Wait for something, with an ear on every stage.

        Raises:
            StageFailed: a stage is of no more use; or ``late``, when no stage did anything for ``limit_s``.
            RowsLost: a stage no longer holds rows that it held.
        """
        progress, deadline_s = self._progress, self._clock_s() + limit_s
        while not holds():
            if progress != self._progress:
                progress, deadline_s = self._progress, self._clock_s() + limit_s
            self.raise_failures()
            self._changed.clear()
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._changed.wait()
            except TimeoutError:
                await self._beat()
            if self._clock_s() > deadline_s and not holds():
                raise late()

    async def settle(self, gone: bytes = b"") -> None:
        """Hear what became of requests that were given up: rows that were not decoded are not paid.

        Args:
            gone: a provider that says nothing more.
        """
        legs = [leg for leg in self._legs if leg.provider != gone]
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while any(leg.alive and leg.unanswered for leg in legs):
                    self._changed.clear()
                    await self._changed.wait()

    async def _beat(self) -> None:
        now_s = self._clock_s()
        for index, leg in enumerate(self._legs):
            silent_s = now_s - leg.silent_since_s if leg.silent_since_s is not None else 0.0
            if silent_s > SILENT_S:
                raise StageFailed(
                    leg.provider, f"stage {index + 1} gave no sign of life for {silent_s:.1f} s"
                )
            await leg.ping()

    def raise_failures(self) -> None:
        """Raise what a stage failed with or refused, if anything. Raises StageFailed, RowsLost."""
        for index, leg in enumerate(self._legs):
            if leg.failure is not None:
                raise StageFailed(
                    leg.provider, f"the channel to stage {index + 1} failed: {leg.failure}"
                ) from leg.failure
        if self._failure is not None:
            raise self._failure
        if self._refusals:
            self._refused(*self._refusals.popleft())

    def _refused(self, leg: StageLeg, refused: Refused) -> NoReturn:
        index = self._legs.index(leg)
        words = refused.message or str(refused.reason)
        if refused.reason == REFUSED_REQUEST:
            # Whatever else it was asked for then is lost for the same reason: once is enough.
            self._refusals = deque(one for one in self._refusals if one[0] is not leg)
            lost = RowsLost(f"stage {index + 1} lost rows: {words}")
            lost.provider = leg.provider
            raise lost
        if refused.reason == REFUSED_PREVIOUS and len(self._legs) > 1:
            # Before the first stage is the last one, which tells it what is likeliest.
            before = index or len(self._legs)
            accused = self._legs[before - 1].provider
            raise StageFailed(accused, f"stage {before}: {words}", accuser=leg.provider)
        if refused.reason == REFUSED_NEXT and index + 1 < len(self._legs):
            raise StageFailed(
                self._legs[index + 1].provider, f"stage {index + 2}: {words}", accuser=leg.provider
            )
        raise StageFailed(leg.provider, f"stage {index + 1} refused: {words}")

    def _take(self, leg: StageLeg, message: Record) -> None:
        """One message of one stage."""
        self._progress += isinstance(message, Done | Output)
        match message:
            case Output():
                waiting = self.outputs.get(message.request)
                if waiting is not None:
                    logits = RowLogits(
                        message.position, unpack_ids(message.ids), unpack_floats(message.logits)
                    )
                    waiting.append(logits)
            case Done() | Refused():
                self._answered(leg, message)
            case Tokens():
                self.answers[message.request] = message
            case VocabularyPart():
                self.parts.append(message)
            case Linked() if message.generation == self._generation:
                leg.form, leg.link_round_trip_s = message.form, message.round_trip_us / 1e6
                self.linked.add(leg.provider)
            case Unlinked() if message.generation == self._generation:
                self._lost_link(leg, message.message)
            case Pong():
                leg.assume_done(message.done)
                self._note_pong(leg)
            case Goodbye():
                self._failure = StageFailed(leg.provider, f"a stage said goodbye: {message.message}")
            case Acknowledge() | _:
                pass  # the ledger has taken it

    def _answered(self, leg: StageLeg, message: Done | Refused) -> None:
        if leg is self._legs[-1] and isinstance(message, Done):
            self._newest_done = max(self._newest_done, message.request)
            for one in self._legs[:-1]:
                one.assume_done(message.request)
        if message.request == self._timed and isinstance(message, Done):
            self._told_s.setdefault(self._legs.index(leg), self._clock_s() - self._asked_s)
            if len(self._told_s) == len(self._legs):
                self._pace.note_row([self._told_s[index] for index in range(len(self._legs))])
                self._timed = 0
        if all(one.has_answered(message.request) for one in self._legs):
            self.cancelled.discard(message.request)
        # Whose engine ended right behind a row that it had handed on says so next time as well: then it matters.
        is_late = leg is not self._legs[-1] and message.request <= self._newest_done
        if isinstance(message, Refused) and message.request not in self.given_up and not is_late:
            self._refusals.append((leg, message))

    def _lost_link(self, leg: StageLeg, words: str) -> None:
        index = self._legs.index(leg)
        if index + 1 < len(self._legs):
            self._failure = StageFailed(
                self._legs[index + 1].provider, f"stage {index + 2}: {words}", accuser=leg.provider
            )

    def _note_pong(self, leg: StageLeg) -> None:
        ends = {self._legs[0].provider, self._legs[-1].provider}
        if self.round_trip_s is not None or leg.provider not in ends or not self._pinged_s:
            return
        self._ping_trips_s.setdefault(leg.provider, self._clock_s() - self._pinged_s)
        if ends <= self._ping_trips_s.keys():
            ways_s = sum(self._ping_trips_s[one.provider] for one in (self._legs[0], self._legs[-1]))
            self.round_trip_s = (ways_s + sum(one.link_round_trip_s for one in self._legs)) / 2
