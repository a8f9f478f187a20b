"""One question, from the proved offers to the receipt."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from dllm_chat.dispatch.market import (
    BYTES_PER_TOKEN,
    Market,
    TooExpensive,
    foresee_without,
    limits_of,
    make_quote,
    read_market,
    share_of,
)
from dllm_chat.dispatch.sessions import Purse, Sessions, deposit_for
from dllm_chat.sanitize import clean_line
from dllm_chat.session.decoder import Decoder
from dllm_chat.session.events import (
    AskEvent,
    AskOptions,
    Progress,
    ProviderShare,
    Quote,
    QuoteReady,
    Routed,
    Spent,
    StageLinkShown,
    TookOver,
)
from dllm_chat.session.front_desk import LegFailed, VocabularyRefused
from dllm_chat.session.lineup import Lineup
from dllm_chat.session.prompt import PromptMaker
from dllm_chat.session.sampler import Sampler
from dllm_chat.session.saved import SavedSession
from dllm_chat.session.spares import UNREACHED
from dllm_chat.session.speculation import Speculation
from dllm_chat.session.token_log import TokenLog
from dllm_chat.session.turn import Turn
from dllm_chat.session.vocabularies import VocabularyCache
from dllm_chat.session.windows import WindowControl
from dllm_protocol.actions import CloseSession, OpenSession, TopUpSession
from dllm_protocol.assignment import leg_entries
from dllm_protocol.chat_templates import ChatMessage
from dllm_protocol.errors import MalformedBytes, NotFound
from dllm_protocol.pricing import client_price
from dllm_protocol.records import RouteStage
from dllm_protocol.session.ledger import DepositUsedUp, Ledger
from dllm_protocol.vocabulary import Vocabulary
from dllm_protocol.voucher import SignedVoucher
from light_node.queries import ProvedReads
from light_node.sending import Sender

NO_LEG = (*UNREACHED, NotFound)
"""What a line-up without anybody left fails with."""
NOBODY_LEFT = "nobody of the session's route is left; its deposit comes back with: dllm session close --all"


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
        self, chain: Chain, options: AskOptions, model: str, token_logs: dict[bytes, TokenLog]
    ) -> None:
        """Prepare.

        Args:
            token_logs: session id → what its providers may still hold rows of; kept up to date.
        """
        self._chain = chain
        self._options = options
        self._model = model
        self._token_logs = token_logs
        self._stop_asked = False
        self._events: list[AskEvent] = []
        self._exclude = set(options.exclude)
        self._lineup: Lineup | None = None
        self.turn: Turn | None = None
        self.market: Market | None = None
        self.served: list[ProviderShare] = []
        self.served_ids: list[bytes] = []
        self.fees_udllm = 0
        self.transactions: list[bytes] = []
        self.voucher_before: SignedVoucher | None = None
        self._in_vain_rows = 0

    @property
    def saved(self) -> SavedSession | None:
        """The session in use."""
        return self._lineup.saved if self._lineup is not None else None

    @property
    def ledger(self) -> Ledger | None:
        """Its promises."""
        return self._lineup.ledger if self._lineup is not None else None

    @property
    def links(self) -> tuple[StageLinkShown, ...]:
        """How hidden states went between stages."""
        return self._serving.links

    @property
    def _serving(self) -> Lineup:
        if self._lineup is None:
            raise LegFailed("there is no session")
        return self._lineup

    @property
    def spent(self) -> Spent:
        """What this answer has cost so far."""
        lineup = self._lineup
        cost_udllm = lineup.book.cost_since(self.voucher_before) if lineup is not None else 0
        return Spent(cost_udllm, self.fees_udllm)

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
            decoder: Decoder | None = None
            while decoder is None:
                stages, quote = await self._quote(market, messages, saved)
                yield QuoteReady(quote)
                self._in_vain_rows = quote.drafted_in_vain_rows
                if saved is None:
                    yield Progress("opening a session")
                    self._use(await self._open(market, stages, quote, claims))
                else:
                    self._use(await self._filled_up(saved, quote))
                yield Routed(*self._routed())
                decoder = await self._first_decoder(may_open_another=saved is not None)
                saved = None
            try:
                async for event in self._stream(decoder, messages, market):
                    yield event
            finally:
                self._keep()
                await self._serving.close("the answer is over")

    def _routed(self) -> tuple[str, tuple[ProviderShare, ...]]:
        """Session id and who serves: in a session that is used again, without those who failed in it."""
        saved = self._serving.saved
        shares = tuple(share_of(one.stage, self._chain.prefix) for one in saved.stages_left)
        return saved.route.session.hex(), shares

    def _keep(self) -> None:
        """Write what the next question needs of this one's session."""
        lineup = self._serving
        lineup.book.store()
        turn = self.turn
        if turn is not None and turn.prompt is not None:
            held = lineup.decoder.held if lineup.decoder is not None else []
            self._log_of(lineup.saved).ids = list(held) or [*turn.prompt.ids, *turn.generated]

    def _log_of(self, saved: SavedSession) -> TokenLog:
        return self._token_logs.setdefault(saved.route.session, TokenLog())

    async def _stream(
        self, decoder: Decoder, messages: Sequence[ChatMessage], market: Market
    ) -> AsyncGenerator[AskEvent]:
        vocabulary, decoder = await self._vocabulary(decoder, market)
        decoder = await self._with_questions(decoder, messages, market, len(vocabulary.pieces))
        for event in self._drain():
            yield event
        self.turn = Turn(
            leg=decoder,
            next_leg=self._next_decoder,
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
            self._serving.warm_standbys()
        for event in self._drain():
            yield event

    async def _with_questions(
        self, decoder: Decoder, messages: Sequence[ChatMessage], market: Market, vocab_size: int
    ) -> Decoder:
        """Standbys of a new session show what they can, where the quote has room for that."""
        if len(self._serving.saved.route.stages) == 1 or decoder.held:
            return decoder
        try:
            return await self._serving.question_standbys(
                rows=prompt_bytes(messages) // BYTES_PER_TOKEN + self._options.max_tokens // 2,
                vocab_size=vocab_size,
                architecture=market.manifest.architecture,
            )
        except DepositUsedUp as failure:
            return await self._refilled(failure)

    def _speculation(self) -> Speculation | None:
        """Guesses within what was quoted."""
        if not self._in_vain_rows:
            return None
        stages = self._serving.saved.stages_left
        prices = limits_of(stages, stages[-1].stage.end_layer)
        return Speculation(WindowControl(prices, self._in_vain_rows), time.perf_counter)

    def _drain(self) -> list[AskEvent]:
        events, self._events = self._events, []
        return events

    async def _quote(
        self, market: Market, messages: Sequence[ChatMessage], saved: SavedSession | None
    ) -> tuple[tuple[RouteStage, ...], Quote]:
        params = await self._chain.sender.params()
        if saved:
            stages = saved.stages_left
        else:
            avoided = self._chain.sessions.stranded_by(market.manifest.name)
            stages, exclude = foresee_without(market, self._exclude, avoided, params)
            self._exclude |= exclude
        quote = make_quote(
            market,
            stages,
            prompt_bytes=prompt_bytes(messages),
            options=self._options,
            share_ppm=params.community_share_ppm,
            prefix=self._chain.prefix,
            fees_udllm=0,
        )
        if saved is not None and self._chain.sessions.left_udllm(saved) >= quote.max_cost_udllm:
            return stages, quote
        fees = await self._session_fees(market, stages) if saved is None else await self._top_up_fee(saved)
        account = await self._chain.reads.account(self._chain.purse.account)
        spendable = account.balance_udllm if account else 0
        deposit = deposit_for(quote.max_cost_udllm, spendable, fees)
        return stages, replace(quote, deposit_udllm=deposit, fees_udllm=fees)

    async def _top_up_fee(self, saved: SavedSession) -> int:
        action = TopUpSession(saved.route.session, 1 << 40)
        return await self._chain.sender.fee_of(self._chain.purse, (action,))

    async def _session_fees(self, market: Market, stages: Sequence[RouteStage]) -> int:
        """Fees of opening and closing, before they are known to the byte."""
        sender, purse = self._chain.sender, self._chain.purse
        limits = limits_of(stages, market.manifest.layers)
        opening = OpenSession(market.manifest.name, bytes(32), limits, tuple(sorted(self._exclude)), 1 << 40)
        closing = CloseSession(bytes(32), None, (), ())
        return await sender.fee_of(purse, (opening,)) + await sender.fee_of(purse, (closing,))

    async def _open(
        self, market: Market, stages: Sequence[RouteStage], quote: Quote, claims: ExitStack
    ) -> SavedSession:
        saved, sent = await self._chain.sessions.open(
            market, stages, quote.deposit_udllm, frozenset(self._exclude), claims
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
        self._lineup = Lineup(
            self._chain,
            saved,
            exclude=frozenset(self._exclude),
            log=self._log_of(saved),
            on_served=self._note_served,
            on_replaced=self._note_replaced,
        )
        self.voucher_before = self._lineup.ledger.state.last_voucher

    def _note_served(self, provider: bytes) -> None:
        if provider not in self.served_ids:
            self.served.append(self._share(provider))
            self.served_ids.append(provider)

    def _note_replaced(self, failed: bytes, successor: bytes, reason: str) -> None:
        if failed:
            self._events.append(TookOver(self._share(failed), self._share(successor), clean_line(reason)))

    async def _first_decoder(self, *, may_open_another: bool) -> Decoder | None:
        """What to begin with.

        None where nobody of an older session answers any more, while others offer the model: those who failed
        just now are left out of the next session.

        Raises:
            The last provider's failure.
        """
        try:
            return await self._opened()
        except NO_LEG as error:
            offers = {entry.provider for entry in self.market.book.entries} if self.market else set()
            self._exclude |= self._serving.failed_now
            if may_open_another and not offers <= self._exclude:
                return None
            error.hint = NOBODY_LEFT
            raise

    async def _opened(self) -> Decoder:
        try:
            return await self._serving.open()
        except BaseException:
            await self._serving.close("the answer did not begin")
            raise

    async def _next_decoder(self, failure: LegFailed | DepositUsedUp) -> Decoder:
        """What `Turn` calls when it cannot go on with what it has."""
        if isinstance(failure, DepositUsedUp):
            return await self._refilled(failure)
        try:
            return await self._serving.replace(failure, self.turn.rows if self.turn is not None else 0)
        except NO_LEG as error:
            error.hint = NOBODY_LEFT
            raise

    async def _refilled(self, failure: DepositUsedUp) -> Decoder:
        """Top the session up and open the same providers' legs again, so that they read the new deposit."""
        lineup = self._serving
        self._require_within_limit(failure)
        lineup.book.store()
        amount = max(failure.needed_udllm - lineup.saved.deposit_udllm, lineup.saved.deposit_udllm)
        saved, sent = await self._chain.sessions.top_up(lineup.saved, amount)
        self.fees_udllm += sent.fee_udllm
        self.transactions.append(sent.tx_hash)
        return await lineup.reopen(saved)

    def _require_within_limit(self, failure: DepositUsedUp) -> None:
        """No more is locked than the person allowed for this answer. Raises TooExpensive."""
        limit_udllm = self._options.max_cost_udllm
        before = self.voucher_before.voucher.payments_udllm if self.voucher_before else 0
        share_ppm = self._serving.saved.community_share_ppm
        cost_udllm = failure.needed_udllm - client_price(before, share_ppm)
        if limit_udllm is not None and cost_udllm > limit_udllm:
            raise TooExpensive(
                f"going on would bring the answer to {cost_udllm} udllm, allowed are {limit_udllm}",
                hint="providers failed more often than a quote foresees; ask again, or allow more",
            ) from failure

    async def _vocabulary(self, decoder: Decoder, market: Market) -> tuple[Vocabulary, Decoder]:
        """The model's vocabulary, from the cache or from whoever serves, checked against the manifest."""
        wanted = market.manifest.vocabulary_hash
        cached = self._chain.vocabularies.load(wanted)
        while cached is None:
            try:
                cached = await decoder.vocabulary(wanted)
                self._chain.vocabularies.save(cached)
            except (LegFailed, VocabularyRefused, MalformedBytes) as error:
                failure = error if isinstance(error, LegFailed) else LegFailed(error.message, hint=error.hint)
                decoder = await self._serving.replace(failure)
        return cached, decoder

    def _share(self, provider: bytes) -> ProviderShare:
        return share_of(leg_entries(self._serving.saved.route)[provider][0], self._chain.prefix)


def prompt_bytes(messages: Sequence[ChatMessage]) -> int:
    """Size of a conversation as text, with room for what its template adds."""
    return sum(len(message.text.encode()) + 16 for message in messages)
