"""Who serves a session now: opens a leg to each stage of its route, and puts the standby where one fails."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dllm_chat.dispatch.market import NoProvider, share_of
from dllm_chat.session.blame import Blame
from dllm_chat.session.decoder import Decoder
from dllm_chat.session.dialing import dial, dial_stage
from dllm_chat.session.events import StageLinkShown
from dllm_chat.session.front_desk import LegFailed
from dllm_chat.session.leg import LegSlow, OpenLeg
from dllm_chat.session.line import Line
from dllm_chat.session.saved import SavedSession
from dllm_chat.session.session_book import SessionBook
from dllm_chat.session.spares import UNREACHED, Spares
from dllm_chat.session.stage_leg import StageFailed, StageLeg, StageSlow
from dllm_chat.session.standby_questions import question_standbys
from dllm_chat.session.token_log import TokenLog
from dllm_protocol.assignment import leg_entries
from dllm_protocol.errors import DllmError
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.records import RouteStage
from dllm_protocol.session.ledger import DepositUsedUp, Ledger
from dllm_protocol.session.transcript import RowLabel

if TYPE_CHECKING:
    from dllm_chat.session.conversation import Chain


class Lineup:
    """The providers of one session's route, and those of them that are in use."""

    def __init__(
        self,
        chain: Chain,
        saved: SavedSession,
        *,
        exclude: frozenset[bytes],
        log: TokenLog,
        on_served: Callable[[bytes], None],
        on_replaced: Callable[[bytes, bytes, str], None],
    ) -> None:
        """Prepare.

        Args:
            exclude: providers that the person does not want.
            log: rows that providers may still hold; kept up to date by `remember`.
            on_served: told of each provider that a leg was opened to.
            on_replaced: told who failed, who goes on in its place, and why; whenever in an answer that is.
        """
        self.book = SessionBook(chain.sessions, saved)
        self.failed_now: set[bytes] = set()
        self.decoder: Decoder | None = None
        self._chain = chain
        self._exclude = exclude
        self._log = log
        self._on_served = on_served
        self._on_replaced = on_replaced
        self._generation = 0
        self._blame = Blame()
        self._slow_now: set[bytes] = set()
        """Who was slow in this answer: held against nobody, and better than no one."""
        self._tolerated: set[bytes] = set()
        self._spares = Spares(self._dial_watched)
        self._whole_spares = Spares(self._dial_whole)
        self._needed_rows = 0
        """Rows of the answer under way, which whoever takes over must hold."""

    @property
    def saved(self) -> SavedSession:
        """The session as it is saved."""
        return self.book.saved

    @property
    def ledger(self) -> Ledger:
        """Its promises."""
        return self.book.ledger

    @property
    def providers(self) -> tuple[bytes, ...]:
        """Who is in use now, in the order of the stages."""
        decoder = self.decoder
        if isinstance(decoder, Line):
            return tuple(leg.provider for leg in decoder.legs)
        return (decoder.provider,) if isinstance(decoder, OpenLeg) else ()

    @property
    def links(self) -> tuple[StageLinkShown, ...]:
        """How hidden states go from each stage to the next."""
        legs = self.decoder.legs if isinstance(self.decoder, Line) else []
        return tuple(leg.link_shown for leg in legs[:-1])

    async def open(self) -> Decoder:
        """Legs to the first provider of each stage that answers: its own, then its standby.

        Raises:
            The last provider's failure.
        """
        self._needed_rows = 0
        stages = self.saved.route.stages
        if len(stages) == 1:
            self.decoder = await self._open_one(NoProvider("the session's route has nobody left who answers"))
            return self.decoder
        legs = await self._open_all(stages)
        for leg in legs:
            self._on_served(leg.provider)
        return await self._linked(legs, ())

    async def _open_all(self, stages: Sequence[RouteStage]) -> list[StageLeg]:
        """A leg to each stage, or none that stays open."""
        opening = [asyncio.create_task(self._open_stage(stage)) for stage in stages]
        try:
            await asyncio.wait(opening)
            return [task.result() for task in opening]
        except BaseException:
            for task in opening:
                task.cancel()
            opened = await asyncio.gather(*opening, return_exceptions=True)
            legs = [leg for leg in opened if isinstance(leg, StageLeg)]
            await asyncio.gather(*(leg.close("the line is not complete") for leg in legs))
            raise

    async def _open_one(self, failure: Exception, *, slow_too: bool = True) -> OpenLeg:
        """The only stage's leg."""
        (stage,) = self.saved.route.stages
        for provider in self._candidates(stage, slow_too=slow_too):
            try:
                leg = await self._whole_spares.take(provider) or await self._dial_whole(provider)
            except UNREACHED as error:
                failure = error
                self._fail(provider)
                continue
            short = self._short_context(provider, leg.context_rows)
            if short is None:
                self._on_served(provider)
                return leg
            await leg.close("its context is too short to go on with")
            failure = short
        raise failure

    async def _open_stage(self, stage: RouteStage, *, slow_too: bool = True) -> StageLeg:
        """A leg of a longer line."""
        layers = f"layers [{stage.stage.first_layer}, {stage.stage.end_layer})"
        failures: list[tuple[str, DllmError]] = []
        for provider in self._candidates(stage, slow_too=slow_too):
            try:
                leg = await self._spares.take(provider) or await self._dial_stage(provider)
            except UNREACHED as error:
                failures.append((self._called(provider), error))
                self._fail(provider)
                continue
            short = self._short_context(provider, leg.ready.context_rows)
            if short is None:
                return leg
            await leg.close("its context is too short to go on with")
            failures.append((self._called(provider), short))
        words = "".join(f"; {called}: {error.message}" for called, error in failures)
        hint = failures[-1][1].hint if failures else ""
        raise NoProvider(f"nobody is left who answers for {layers}{words}", hint=hint)

    def _short_context(self, provider: bytes, context_rows: int) -> LegFailed | None:
        """Why a provider cannot take an answer over that is longer than what it holds; that is no failure of its."""
        if context_rows >= self._needed_rows:
            return None
        self.failed_now.add(provider)  # for this answer
        return LegFailed(
            f"it holds {context_rows} rows, the answer has {self._needed_rows}",
            hint="ask for shorter answers, or begin a new conversation",
        )

    def _called(self, provider: bytes) -> str:
        """A provider as people see it."""
        return share_of(leg_entries(self.saved.route)[provider][0], self._chain.prefix).address

    async def _dial_whole(self, provider: bytes) -> OpenLeg:
        chain, book = self._chain, self.book
        return await dial(chain, book.saved, book.ledger, provider, store=book.store_promises, log=self._log)

    async def _dial_watched(self, provider: bytes) -> StageLeg:
        """A leg that is read, so that its end is noticed."""
        leg = await self._dial_stage(provider)
        leg.read(lambda _, __: None, lambda: None)
        return leg

    async def _dial_stage(self, provider: bytes) -> StageLeg:
        return await dial_stage(
            self._chain, self.saved, self.ledger, provider, log=self._log, clock_s=time.perf_counter
        )

    def _candidates(self, stage: RouteStage, *, slow_too: bool = True) -> list[bytes]:
        """Who may serve a stage: first who never failed, then who did in an earlier answer, then who is slow now."""
        entries = [entry for entry in (stage.stage, stage.standby) if entry is not None]
        gone = self._exclude | self.failed_now | (set() if slow_too else self._slow_now)
        left = [entry.provider for entry in entries if entry.provider not in gone]
        return sorted(left, key=lambda one: (one in self._slow_now, one in self.saved.failed))

    def warm_standbys(self) -> None:
        """Open channels to standbys beforehand, so that one of them can go on at once.

        Whoever failed in this session is dialled when nobody else is left: back again, it counts what it was promised.
        """
        if self.decoder is None:
            return
        spares = self._spares if isinstance(self.decoder, Line) else self._whole_spares
        for provider in itertools.chain.from_iterable(map(self._candidates, self.saved.route.stages)):
            if provider not in (*self.providers, *self.saved.failed) and provider not in spares:
                spares.open(provider)

    async def question_standbys(self, *, rows: int, vocab_size: int, architecture: str) -> Decoder:
        """Before the first rows of a longer line: ask standbys whose turn it is what the line answers, too.

        Args:
            rows: that each stage will serve in this answer, about.
            vocab_size, architecture: the model's.
        """
        line = self.decoder
        if not isinstance(line, Line) or line.held or any(leg.rows for leg in line.legs):
            if self.decoder is None:
                raise NoProvider("there is no line")
            return self.decoder
        stages = self.saved.route.stages
        left = tuple(replace(one, standby=self._askable(one)) for one in stages)
        try:
            found = await question_standbys(
                line,
                left,
                secret=self._log.secret,
                rows=rows,
                vocab_size=vocab_size,
                architecture=architecture,
                dial=self._dial_watched,
                line_of=self._linked,
            )
        except DepositUsedUp:
            self.decoder = line  # not one with a standby in it: whoever goes on closes all of its legs
            raise
        except LegFailed as failure:
            self.decoder = line
            return await self.replace(failure)
        for provider, leg in found.fit.items():
            self._spares.put(provider, leg)
        for provider in found.unfit:
            self._fail(provider)
        return found.line

    def _askable(self, stage: RouteStage) -> BookEntry | None:
        standby = stage.standby
        return standby if standby is not None and standby.provider in self._candidates(stage) else None

    async def replace(self, failure: LegFailed, rows: int = 0) -> Decoder:
        """Go on without whoever failed; returns what to decode by.

        Args:
            rows: of the answer so far, its prompt included: whoever goes on must hold them.

        Raises:
            The failure that leaves a stage without anybody.
        """
        self._needed_rows = rows
        decoder = self.decoder
        if not isinstance(decoder, Line):
            leg = self.decoder = await self._successor_of_one(decoder, failure)
            return leg
        return await self._mended_until_it_stands(decoder, failure)

    async def _mended_until_it_stands(self, line: Line, failure: LegFailed) -> Line:
        while True:
            try:
                return await self._mended(line, failure)
            except StageFailed as another:
                failure = another

    async def _successor_of_one(self, leg: Decoder | None, failure: LegFailed) -> OpenLeg:
        """Another leg for the only stage; the same one where it is slow, and nobody is left.

        Raises:
            The failure that leaves nobody.
        """
        failed = leg.provider if isinstance(leg, OpenLeg) else b""
        if isinstance(leg, OpenLeg) and isinstance(failure, LegSlow):
            self._slow_now.add(failed)
            try:
                successor = await self._open_one(failure, slow_too=False)
            except UNREACHED:
                leg.may_be_slow = True
                return leg
            await leg.close("going on with another provider")
        else:
            if leg is not None:
                await leg.close("going on elsewhere")
            if failed:
                self._fail(failed)
            successor = await self._open_one(failure)
        self._on_replaced(failed, successor.provider, failure.message)
        return successor

    async def _mended(self, line: Line, failure: LegFailed) -> Line:
        """A line in which whoever is to blame is replaced by its standby."""
        forms = [leg.form for leg in line.legs]
        victim = self._blame.victim(line.legs, failure)
        await line.give_up()
        if victim is not None:
            index = next(i for i, leg in enumerate(line.legs) if leg.provider == victim)
            successor = await self._successor(line, index, failure)
            if successor is not None:
                successor.form = line.legs[index].form  # also where another stage fails before it is linked
                line.legs[index] = successor
                self._on_served(successor.provider)
                self._on_replaced(victim, successor.provider, failure.message)
        return await self._linked(line.legs, forms)

    async def _successor(self, line: Line, index: int, failure: LegFailed) -> StageLeg | None:
        """Another leg for a stage; None where the one that is slow goes on, for want of another.

        Raises:
            LegFailed: nobody is left for the stage.
        """
        leg = line.legs[index]
        is_slow = isinstance(failure, StageSlow)
        if is_slow:
            self._slow_now.add(leg.provider)
        else:
            await leg.close("going on elsewhere")
            self._fail(leg.provider)
        try:
            successor = await self._open_stage(self.saved.route.stages[index], slow_too=not is_slow)
        except (*UNREACHED, NoProvider) as error:
            if is_slow:
                self._tolerated.add(leg.provider)
                return None
            await line.settle(leg.provider)
            await line.close("a stage of the line has nobody left")
            raise LegFailed(
                f"{self._called(leg.provider)}: {failure.message}; {error.message}", hint=error.hint
            ) from error
        if is_slow:
            await leg.close("going on with another provider")
        return successor

    async def _linked(self, legs: Sequence[StageLeg], forms: Sequence[int]) -> Line:
        """A line of these legs that stands."""
        self._generation += 1
        label = RowLabel(self._log.secret)
        held = self.decoder.held if isinstance(self.decoder, Line) else self._log.ids
        line = Line(
            legs,
            self.ledger,
            self.book.store_promises,
            label,
            held,
            self._log.together,
            self._generation,
            time.perf_counter,
            self._tolerated,
        )
        self.decoder = line
        try:
            await line.link(forms)
        except StageFailed as failure:
            if forms:
                raise  # whoever mends a line tries again
            return await self._mended_until_it_stands(line, failure)
        return line

    async def reopen(self, saved: SavedSession) -> Decoder:
        """The same providers over new channels, on which they read the session's deposit anew.

        Args:
            saved: the session with its new deposit.
        """
        self.book.topped_up(saved)
        if self.decoder is not None:
            self._log.ids = list(self.decoder.held)
            await self.decoder.close("topping up")
            self.decoder = None
        await self._close_spares("topping up")  # they know the old deposit only
        return await self.open()

    async def _close_spares(self, reason: str) -> None:
        await asyncio.gather(self._spares.close(reason), self._whole_spares.close(reason))

    def _fail(self, provider: bytes) -> None:
        """The provider is not used again in this session, and is owed no more than it acknowledged."""
        self.failed_now.add(provider)
        self.book.abandon(provider)

    async def close(self, reason: str) -> None:
        """Hang up everywhere."""
        await self._close_spares(reason)
        if self.decoder is not None:
            await self.decoder.close(reason)
        self.book.store()
