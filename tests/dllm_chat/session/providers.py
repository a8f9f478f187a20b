"""Providers without sockets and without llama.cpp: both ends of real legs, and a model that anybody can compute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dllm_chat.session.leg import OpenLeg
from dllm_chat.session.token_log import TokenLog
from dllm_protocol.assignment import leg_entries, route_hash, session_id_of
from dllm_protocol.encoding import Record
from dllm_protocol.messages import OUTPUTS_ALL, OUTPUTS_NONE, REFUSED_REQUEST, ROW_DRAFTED, Ready
from dllm_protocol.offer_book import BookEntry
from dllm_protocol.pricing import RowPrices
from dllm_protocol.records import Route, RouteStage
from dllm_protocol.sealing import SealingKey
from dllm_protocol.session.acceptance import legs_of
from dllm_protocol.session.client import ClientLeg
from dllm_protocol.session.handshake import ClientHandshake, ProviderHandshake
from dllm_protocol.session.ledger import Ledger, fresh_state
from dllm_protocol.session.provider import (
    CancelRequest,
    DecodeRows,
    Farewell,
    Order,
    ProviderLeg,
    Reply,
    SendVocabulary,
    Standing,
    StoreVoucher,
    Terms,
    TokenizeTexts,
)
from dllm_protocol.session.transcript import NO_TRANSCRIPT, held_digest
from dllm_protocol.signing import SeedSigner
from light_node.channel.client import Channel
from light_node.channel.errors import ChannelLost
from tests.dllm_chat.session.words import FIRST_BYTE, IM_END, IM_START, VOCABULARY, byte_ids

CHAIN = "test-00000000"
PRICES = RowPrices(100, 1000, 1000, 100)
SHARE_PPM = 100_000
SESSION_KEY = SeedSigner(b"\1" * 32)
ACCOUNT = b"\7" * 20
SESSION = session_id_of(ACCOUNT, SESSION_KEY.public_key)


def entry(number: int) -> BookEntry:
    return BookEntry(bytes([number]) * 20, bytes([number + 100]) * 20, 0, 4, PRICES, 8, 500_000)


ROUTE = Route(SESSION, "m", b"\4" * 32, 1, b"\5" * 32, b"\6" * 32, (), (RouteStage(entry(1), entry(2)),))


def make_ledger(deposit_udllm: int = 1_000_000) -> Ledger:
    return Ledger(
        chain_id=CHAIN,
        route=ROUTE,
        session_key=SESSION_KEY,
        deposit_udllm=deposit_udllm,
        community_share_ppm=SHARE_PPM,
        state=fresh_state(SESSION),
    )


def likeliest(ids: Sequence[int], answer_rows: int) -> int:
    """The model: letters that depend on all rows before, until there are so many behind the prompt's last line."""
    letters = len(ids) - 1 - max(at for at, token in enumerate(ids) if token == FIRST_BYTE + ord("\n"))
    if letters >= answer_rows:
        return IM_END
    return FIRST_BYTE + ord("a") + sum((at + 1) * token for at, token in enumerate(ids)) % 26


REPEATED = "def area(w, h):\n    return w * h\n\n"
REPEATS = (
    REPEATED * 6 + REPEATED.replace("area", "size") + "print(area(2, 3))  # area and size\n" + REPEATED * 6
)


def repeats(ids: Sequence[int], _: int) -> int:
    """A model that edits code: it says what it has said, with changes."""
    begin = len(ids) - 1 - next(at for at, token in enumerate(reversed(ids)) if token == IM_START)
    letters = len(ids) - begin - len("assistant\n") - 1
    return FIRST_BYTE + ord(REPEATS[letters]) if letters < len(REPEATS) else IM_END


def never_repeats(ids: Sequence[int], answer_rows: int) -> int:
    """A model that says each byte once."""
    return (
        IM_END if FIRST_BYTE + 127 + answer_rows in ids else FIRST_BYTE + max(127, ids[-1] - FIRST_BYTE) + 1
    )


@dataclass
class Provider:
    """One provider and what it keeps between connections."""

    number: int
    answer_rows: int = 40
    dies_after: int | None = None
    """Decodes that it answers; the connection ends in the middle of the next one."""
    loses_rows_at: int | None = None
    """Before this decode (counted from 0) its cache is gone, once."""
    forgets: bool = False
    """It never holds a row for longer than a request."""
    top_k: int = 8
    model: Callable[[Sequence[int], int], int] = likeliest
    garbage_at: int | None = None
    """From this position on, drafted rows name tokens that there are not."""
    windows: list[int] = field(default_factory=list)
    """Rows of each drafted request."""
    standing: Standing = field(default_factory=Standing)
    held: list[int] = field(default_factory=list)
    decodes: int = 0
    rows: int = 0
    asked_top_k: list[int] = field(default_factory=list)

    @property
    def provider(self) -> bytes:
        return entry(self.number).provider


class MemoryChannel(Channel):
    """A channel whose other end is a `Provider` in the same process."""

    def __init__(self, leg: ClientLeg, theirs: ProviderLeg, provider: Provider) -> None:
        self.leg = leg
        self._theirs = theirs
        self._provider = provider
        self._answers: deque[bytes] = deque()
        self._dead = False
        held = provider.held
        frame = theirs.ready(
            context_rows=2000,
            held_rows=len(held),
            held_digest=held_digest(held) if held else NO_TRANSCRIPT,
            top_k=provider.top_k,
        )
        (ready,) = leg.receive(frame)
        assert isinstance(ready, Ready)
        self.ready = ready

    async def send(self, frame: bytes) -> None:
        if self._dead:
            raise ChannelLost("the connection ended")
        for order in self._theirs.receive(frame):
            self._carry_out(order)

    async def receive(self, timeout_ms: int | None = None) -> tuple[Record, ...]:
        if not self._answers:
            raise ChannelLost("the connection ended")
        return self.leg.receive(self._answers.popleft())

    async def close(self) -> None:
        self._dead = True

    def _carry_out(self, order: Order) -> None:
        provider, theirs = self._provider, self._theirs
        match order:
            case StoreVoucher():
                provider.standing = order.standing
                self._answers.append(theirs.acknowledge())
            case DecodeRows():
                self._decode(order)
                provider.standing = theirs.standing
            case TokenizeTexts():
                ids = [byte_ids(text) for text in order.texts]
                self._answers.append(theirs.tokens(order.request, ids))
            case SendVocabulary():
                raw = VOCABULARY.encode()
                self._answers.append(theirs.vocabulary_part(order.offset, len(raw), raw[order.offset :]))
            case Reply():
                self._answers.append(theirs.reply(order))
            case Farewell() | CancelRequest():
                return
            case _:
                raise AssertionError(f"{order} was not expected")

    def _decode(self, order: DecodeRows) -> None:
        provider = self._provider
        if provider.dies_after is not None and provider.decodes >= provider.dies_after:
            self._dead = True
            return
        if provider.decodes == provider.loses_rows_at:
            provider.loses_rows_at = None
            provider.held.clear()
        if provider.forgets:
            provider.held.clear()
        if order.first_position > len(provider.held):
            self._theirs.take_back(order, 0)
            text = f"rows from {order.first_position} on, but {len(provider.held)} are held"
            self._answers.append(self._theirs.refuse(order.request, REFUSED_REQUEST, text, 0))
            return
        provider.decodes += 1
        provider.rows += len(order.ids)
        provider.asked_top_k.append(order.top_k)
        provider.held = [*provider.held[: order.first_position], *order.ids]
        if order.outputs == OUTPUTS_NONE:
            self._answers.append(self._theirs.done(order.request))
            return
        provider.windows += [len(order.ids)] if order.kind == ROW_DRAFTED else []
        last = order.first_position + len(order.ids) - 1
        for position in range(order.first_position if order.outputs == OUTPUTS_ALL else last, last + 1):
            best = provider.model(provider.held[: position + 1], provider.answer_rows)
            if (
                order.kind == ROW_DRAFTED
                and provider.garbage_at is not None
                and position >= provider.garbage_at
            ):
                best = 1_000_000
            ids = [best, *(token for token in range(FIRST_BYTE, FIRST_BYTE + 20) if token != best)][
                : order.top_k
            ]
            logits = [10.0, *(1.0 - 0.01 * at for at in range(len(ids) - 1))]
            self._answers.append(
                self._theirs.output(order.request, position, ids, logits, 10.1, last=position == last)
            )


def connect(provider: Provider, ledger: Ledger, known: Sequence[int] = (), secret: bytes = b"") -> OpenLeg:
    """A leg from a client with this ledger to the provider, claimed."""
    service, sealing = (
        SeedSigner(bytes([provider.number]) * 32),
        SealingKey(bytes([provider.number + 50]) * 32),
    )
    own, role = leg_entries(ROUTE)[provider.provider]
    handshake = ClientHandshake(
        chain_id=CHAIN,
        provider=provider.provider,
        session=SESSION,
        service_key=service.public_key,
        sealing_key=sealing.public_key,
        ephemeral_seed=b"\x11" * 32,
    )
    client = ClientLeg(
        handshake,
        provider=provider.provider,
        service_key=service.public_key,
        session_key=SESSION_KEY,
        ledger=ledger,
        transcript_secret=secret or bytes([provider.number, len(known) % 251]) * 16,
    )
    theirs = ProviderHandshake(
        client.first_message, chain_id=CHAIN, provider=provider.provider, sealing_key=sealing
    )
    answer, stream, hash_of_handshake = theirs.answer(service, b"\x33" * 32)
    terms = Terms(
        CHAIN,
        SESSION,
        SESSION_KEY.public_key,
        route_hash(ROUTE),
        ledger.deposit_udllm,
        SHARE_PPM,
        own,
        role,
        legs_of(ROUTE),
    )
    other_end = ProviderLeg(terms, provider.standing, stream, hash_of_handshake, service)
    list(other_end.receive(client.take_hello(answer)))
    channel = MemoryChannel(client, other_end, provider)
    return OpenLeg(channel, client, lambda: None, TokenLog(list(known)))
