"""One question, from the proved offers to the receipt."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from dllm_chat.dispatch.market import (
    Market,
    NoProvider,
    foresee,
    limits_of,
    make_quote,
    only_stage,
    read_market,
    share_of,
    shares_of,
)
from dllm_chat.dispatch.sessions import Purse, Sessions, deposit_for
from dllm_chat.sanitize import clean_line
from dllm_chat.session.dialing import dial
from dllm_chat.session.events import (
    AskEvent,
    AskOptions,
    Progress,
    ProviderShare,
    Quote,
    QuoteReady,
    Routed,
    TookOver,
)
from dllm_chat.session.leg import LegFailed, OpenLeg, VocabularyRefused
from dllm_chat.session.prompt import PromptMaker
from dllm_chat.session.sampler import Sampler
from dllm_chat.session.saved import SavedSession
from dllm_chat.session.speculation import Speculation
from dllm_chat.session.turn import Turn
from dllm_chat.session.vocabularies import VocabularyCache
from dllm_chat.session.windows import WindowControl
from dllm_protocol.actions import CloseSession, OpenSession, TopUpSession
from dllm_protocol.assignment import leg_entries
from dllm_protocol.chat_templates import ChatMessage
from dllm_protocol.errors import ChannelRefused, MalformedBytes, NetworkUnreachable, NotFound, TimedOut
from dllm_protocol.records import RouteStage
from dllm_protocol.session.ledger import DepositUsedUp, Ledger
from dllm_protocol.vocabulary import Vocabulary
from dllm_protocol.voucher import SignedVoucher
from light_node.queries import ProvedReads
from light_node.sending import Sender


@dataclass(frozen=True, slots=True)
class Chain:
    """Everything that a question needs of one chain."""

    chain_id: str
    prefix: str
    """Bech32 prefix of addresses."""
    reads: ProvedReads
    sender: Sender
    sessions: Sessions
    purse: Purse
    vocabularies: VocabularyCache


class Conversation:
    """One question under way. `events` runs it; afterwards the other attributes say what came of it."""

    def __init__(
        self, chain: Chain, options: AskOptions, model: str, token_logs: dict[bytes, list[int]]
    ) -> None:
        """Prepare.

        Args:
            token_logs: session id → token ids that its providers may still hold rows of; kept up to date.
        """
        self._chain = chain
        self._options = options
        self._model = model
        self._token_logs = token_logs
        self._stop_asked = False
        self._events: list[AskEvent] = []
        self._exclude = set(options.exclude)
        self._failed_now: set[bytes] = set()
        self.turn: Turn | None = None
        self.saved: SavedSession | None = None
        self.ledger: Ledger | None = None
        self.market: Market | None = None
        self.served: list[ProviderShare] = []
        self.served_ids: list[bytes] = []
        self.fees_udllm = 0
        self.transactions: list[bytes] = []
        self.voucher_before: SignedVoucher | None = None
        self._in_vain_rows = 0

    @property
    def token_log(self) -> list[int]:
        """Token ids whose rows a provider may hold: of prompt and answer so far, and guesses behind them."""
        turn = self.turn
        if turn is not None and turn.prompt is not None:
            return turn.leg.held or [*turn.prompt.ids, *turn.generated]
        return self._token_logs.get(self.saved.route.session, []) if self.saved else []

    def stop(self) -> None:
        """End the answer after the current token."""
        self._stop_asked = True
        if self.turn is not None:
            self.turn.stop_asked = True

    async def events(self, messages: Sequence[ChatMessage]) -> AsyncGenerator[AskEvent]:
        """Quote, session, stream. The receipt is made by the caller, who knows where it goes."""
        yield Progress("reading the proved offers")
        market = self.market = await read_market(self._chain.reads, self._model)
        with (
            self._chain.sessions.reuse(self._model, frozenset(self._exclude)) as found,
            ExitStack() as claims,
        ):
            saved = found if found and await self._chain.sessions.still_open(found) else None
            leg: OpenLeg | None = None
            while leg is None:
                stage, quote = await self._quote(market, messages, saved)
                yield QuoteReady(quote)
                self._in_vain_rows = quote.drafted_in_vain_rows
                if saved is None:
                    yield Progress("opening a session")
                    self._use(await self._open(market, stage, quote, claims))
                else:
                    self._use(await self._filled_up(saved, quote))
                yield Routed(*self._routed())
                leg = await self._first_leg(may_open_another=saved is not None)
                saved = None
            try:
                async for event in self._stream(leg, messages, market):
                    yield event
            finally:
                self._keep()
                if self.turn is not None:
                    await self.turn.leg.close("the answer is over")

    def _routed(self) -> tuple[str, tuple[ProviderShare, ...]]:
        """Session id and who serves."""
        if self.saved is None:
            raise LegFailed("there is no session")
        return self.saved.route.session.hex(), shares_of(self.saved.route, self._chain.prefix)

    def _keep(self) -> None:
        """Write what the next question needs of this one's session."""
        self._store()
        if self.saved is not None:
            self._token_logs[self.saved.route.session] = self.token_log

    async def _stream(
        self, leg: OpenLeg, messages: Sequence[ChatMessage], market: Market
    ) -> AsyncGenerator[AskEvent]:
        vocabulary, leg = await self._vocabulary(leg, market)
        self.turn = Turn(
            leg=leg,
            next_leg=self._next_leg,
            vocabulary=vocabulary,
            maker=PromptMaker(market.manifest.chat_template, vocabulary),
            sampler=Sampler(self._options.sampling, secrets.randbits(63)),
            options=self._options,
            context_rows=market.manifest.context_rows,
            speculation=self._speculation(),
            stop_asked=self._stop_asked,
        )
        async for delta in self.turn.run(messages):
            for event in self._drain():
                yield event
            yield delta
        for event in self._drain():
            yield event

    def _speculation(self) -> Speculation | None:
        """Guesses within what was quoted."""
        if self.saved is None or not self._in_vain_rows:
            return None
        stage = _stage_left(self.saved)
        prices = limits_of((stage,), stage.stage.end_layer - stage.stage.first_layer)
        return Speculation(WindowControl(prices, self._in_vain_rows), time.perf_counter)

    def _drain(self) -> list[AskEvent]:
        events, self._events = self._events, []
        return events

    async def _quote(
        self, market: Market, messages: Sequence[ChatMessage], saved: SavedSession | None
    ) -> tuple[RouteStage, Quote]:
        params = await self._chain.sender.params()
        stages = (_stage_left(saved),) if saved else foresee(market, self._exclude, params)
        stage = only_stage(self._model, stages)
        quote = make_quote(
            market,
            stage,
            prompt_bytes=sum(len(message.text.encode()) + 16 for message in messages),
            options=self._options,
            share_ppm=params.community_share_ppm,
            prefix=self._chain.prefix,
            fees_udllm=0,
        )
        if saved is not None and self._chain.sessions.left_udllm(saved) >= quote.max_cost_udllm:
            return stage, quote
        fees = await self._session_fees(market, stage) if saved is None else await self._top_up_fee(saved)
        account = await self._chain.reads.account(self._chain.purse.account)
        spendable = account.balance_udllm if account else 0
        deposit = deposit_for(quote.max_cost_udllm, spendable, fees)
        return stage, replace(quote, deposit_udllm=deposit, fees_udllm=fees)

    async def _top_up_fee(self, saved: SavedSession) -> int:
        action = TopUpSession(saved.route.session, 1 << 40)
        return await self._chain.sender.fee_of(self._chain.purse, (action,))

    async def _session_fees(self, market: Market, stage: RouteStage) -> int:
        """Fees of opening and closing, before they are known to the byte."""
        sender, purse = self._chain.sender, self._chain.purse
        opening = OpenSession(
            market.manifest.name, bytes(32), stage.stage.prices, tuple(sorted(self._exclude)), 1 << 40
        )
        closing = CloseSession(bytes(32), None, (), ())
        return await sender.fee_of(purse, (opening,)) + await sender.fee_of(purse, (closing,))

    async def _open(self, market: Market, stage: RouteStage, quote: Quote, claims: ExitStack) -> SavedSession:
        saved, sent = await self._chain.sessions.open(
            market, stage, quote.deposit_udllm, frozenset(self._exclude), claims
        )
        self.fees_udllm += sent.fee_udllm
        self.transactions.append(sent.tx_hash)
        return saved

    async def _filled_up(self, saved: SavedSession, quote: Quote) -> SavedSession:
        """An open session with room for the answer; what that locks stands in the quote."""
        if not quote.deposit_udllm:
            return saved
        saved, sent = await self._chain.sessions.top_up(saved, quote.deposit_udllm)
        self.fees_udllm += sent.fee_udllm
        self.transactions.append(sent.tx_hash)
        return saved

    def _use(self, saved: SavedSession) -> None:
        self.saved = saved
        self.ledger = self._chain.sessions.ledger(saved)
        self.voucher_before = self.ledger.state.last_voucher

    def _store_promises(self) -> None:
        """Write the session where a voucher or an ack is new; called before anything is sent on its strength.

        Rows used since then are not written one by one: after a crash the provider's own count of them is taken over.
        """
        if self.saved is None or self.ledger is None:
            return
        old, new = self.saved.ledger, self.ledger.state
        if old.last_voucher is not new.last_voucher or old.acks is not new.acks:
            self._store()

    def _store(self) -> None:
        """Write the session where it changed."""
        if self.saved is None or self.ledger is None:
            return
        if self.saved.ledger is not self.ledger.state:
            self.saved = replace(self.saved, ledger=self.ledger.state)
            self._chain.sessions.store.save(self.saved)

    async def _first_leg(self, *, may_open_another: bool) -> OpenLeg | None:
        """The leg to begin with.

        None where nobody of an older session answers any more, while others offer the model: those who failed
        just now are left out of the next session.

        Raises:
            The last provider's failure.
        """
        try:
            return await self._another_leg(NoProvider("the session's route has nobody left who answers"))
        except (ChannelRefused, NetworkUnreachable, TimedOut, MalformedBytes, NotFound):
            offers = {entry.provider for entry in self.market.book.entries} if self.market else set()
            self._exclude |= self._failed_now
            if not may_open_another or offers <= self._exclude:
                raise
            return None

    async def _next_leg(self, failure: LegFailed | DepositUsedUp) -> OpenLeg:
        """What `Turn` calls when a leg cannot go on."""
        if self.turn is None:
            raise failure
        provider = self.turn.leg.provider
        if isinstance(failure, DepositUsedUp):
            return await self._refilled(provider, failure)
        await self.turn.leg.close("going on elsewhere")
        self._fail(provider)
        successor = await self._another_leg(failure)
        self._events.append(
            TookOver(self._share(provider), self._share(successor.provider), clean_line(failure.message))
        )
        return successor

    async def _refilled(self, provider: bytes, failure: DepositUsedUp) -> OpenLeg:
        """Top the session up and open the same provider's leg again, so that it reads the new deposit."""
        saved, turn = self.saved, self.turn
        if saved is None or turn is None or self.ledger is None:
            raise failure
        await turn.leg.close("topping up")
        self._store()
        amount = max(failure.needed_udllm - saved.deposit_udllm, saved.deposit_udllm)
        self.saved, sent = await self._chain.sessions.top_up(replace(saved, ledger=self.ledger.state), amount)
        self.fees_udllm += sent.fee_udllm
        self.transactions.append(sent.tx_hash)
        self.ledger.deposit_udllm = self.saved.deposit_udllm
        return await self._connect(provider)

    def _fail(self, provider: bytes) -> None:
        """The provider is not used again in this session, and is owed no more than it acknowledged."""
        if self.saved is None or self.ledger is None:
            return
        self._failed_now.add(provider)
        self.ledger.abandon(provider)
        self.saved = replace(
            self.saved, failed=tuple(sorted({*self.saved.failed, provider})), ledger=self.ledger.state
        )
        self._chain.sessions.store.save(self.saved)

    async def _another_leg(self, failure: ChannelRefused | NotFound) -> OpenLeg:
        """A leg to the next provider of the route that answers: stages first, then standbys."""
        if self.saved is None:
            raise failure
        candidates = [stage.stage.provider for stage in self.saved.route.stages]
        candidates += [stage.standby.provider for stage in self.saved.route.stages if stage.standby]
        last: Exception = failure
        for provider in candidates:
            if provider in self.saved.failed or provider in self._exclude:
                continue
            try:
                return await self._connect(provider)
            except (ChannelRefused, NetworkUnreachable, TimedOut, MalformedBytes) as error:
                last = error
                self._fail(provider)
        raise last

    async def _connect(self, provider: bytes) -> OpenLeg:
        """Dial a provider whose keys and endpoints are proved now."""
        if self.saved is None or self.ledger is None:
            raise LegFailed("there is no session")
        leg = await dial(
            self._chain, self.saved, self.ledger, provider, store=self._store_promises, known=self.token_log
        )
        share = self._share(provider)
        if share not in self.served:
            self.served.append(share)
            self.served_ids.append(provider)
        return leg

    async def _vocabulary(self, leg: OpenLeg, market: Market) -> tuple[Vocabulary, OpenLeg]:
        """The model's vocabulary, from the cache or from whoever serves, checked against the manifest."""
        wanted = market.manifest.vocabulary_hash
        cached = self._chain.vocabularies.load(wanted)
        while cached is None:
            try:
                cached = await leg.vocabulary(wanted)
                self._chain.vocabularies.save(cached)
            except (LegFailed, VocabularyRefused, MalformedBytes) as error:
                await leg.close("no usable vocabulary")
                self._fail(leg.provider)
                leg = await self._another_leg(LegFailed(error.message, hint=error.hint))
        return cached, leg

    def _share(self, provider: bytes) -> ProviderShare:
        if self.saved is None:
            raise LegFailed("there is no session")
        return share_of(leg_entries(self.saved.route)[provider][0], self._chain.prefix)


def _stage_left(saved: SavedSession) -> RouteStage:
    """The session's stage without those who failed in it: the standby in the first place where it is alone."""
    (stage,) = saved.route.stages  # sessions of others are opened to be closed only
    if stage.standby is None or stage.standby.provider in saved.failed:
        return replace(stage, standby=None)
    return RouteStage(stage.standby, None) if stage.stage.provider in saved.failed else stage
