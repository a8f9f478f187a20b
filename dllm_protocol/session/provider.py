"""The provider's end of one leg, without I/O.

    side = ProviderLeg(terms, stream, handshake_hash)
    for order in side.receive(frame):     → Claimed, StoreVoucher, DecodeRows, TokenizeTexts, SendVocabulary, …
        …carry it out…
    send(side.ready(…)); send(side.acknowledge(…)); send(side.output(…)); …

`receive` yields orders one at a time, in the order of the messages. A `StoreVoucher` must be on disk before the
caller goes on: what stands behind it in the frame is served on its strength.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from dllm_protocol.encoding import Record
from dllm_protocol.errors import ChannelRefused
from dllm_protocol.messages import (
    MAX_DECODE_ROWS,
    MAX_FRAME_BYTES,
    MAX_TOKENIZE_BYTES,
    MAX_WORDS_BYTES,
    OUTPUTS_LAST,
    REFUSED_VOUCHER,
    ROW_DRAFTED,
    ROW_KEPT,
    ROW_PROMPT,
    ROW_REPLAYED,
    Acknowledge,
    Cancel,
    Claim,
    Decode,
    Done,
    Expect,
    Frame,
    GetVocabulary,
    Goodbye,
    Linked,
    Neighbours,
    Output,
    Pay,
    Ping,
    Pong,
    Ready,
    Refused,
    Resend,
    Tokenize,
    Tokens,
    Unlinked,
    VocabularyPart,
    pack_floats,
    pack_ids,
    unpack_ids,
)
from dllm_protocol.pricing import NO_ROWS, RowCounts
from dllm_protocol.sealing import SealedStream
from dllm_protocol.session.acceptance import Standing, Terms, VoucherRefused, check_voucher, own_leg
from dllm_protocol.session.handshake import check_claim
from dllm_protocol.session.orders import (
    CancelRequest,
    Claimed,
    DecodeRows,
    Farewell,
    Order,
    Reply,
    ResendRows,
    SendVocabulary,
    StandBetween,
    StoreVoucher,
    TakeRows,
    TokenizeTexts,
)
from dllm_protocol.session.rows import charged, charged_in_part
from dllm_protocol.session.transcript import Transcript
from dllm_protocol.signing import Signer
from dllm_protocol.voucher import SignedVoucher, WindowAck, sign_ack

__all__ = [
    "CancelRequest",
    "Claimed",
    "DecodeRows",
    "Farewell",
    "Order",
    "ProviderLeg",
    "Reply",
    "ResendRows",
    "SendVocabulary",
    "StandBetween",
    "Standing",
    "StoreVoucher",
    "TakeRows",
    "Terms",
    "TokenizeTexts",
    "VoucherRefused",
]

_KINDS = (ROW_PROMPT, ROW_KEPT, ROW_DRAFTED, ROW_REPLAYED)


class ProviderLeg:
    """One sealed channel to one client."""

    def __init__(
        self,
        terms: Terms,
        standing: Standing,
        stream: SealedStream,
        handshake_hash: bytes,
        service_key: Signer,
    ) -> None:
        self.terms = terms
        self.standing = standing
        self._stream = stream
        self._handshake_hash = handshake_hash
        self._service_key = service_key
        self._transcript: Transcript | None = None
        self._last_request = 0
        self._unacknowledged: deque[WindowAck] = deque()
        self._generation = 0
        self._done_request = 0

    def receive(self, frame: bytes) -> Iterator[Order]:
        """Open a frame and yield what is to be done, message by message.

        Raises:
            ChannelRefused, MalformedBytes: the client broke the protocol; close the connection.
        """
        if len(frame) > MAX_FRAME_BYTES:
            raise ChannelRefused(f"a frame has {len(frame)} bytes, at most {MAX_FRAME_BYTES} are taken")
        for message in Frame.decode(self._stream.open(frame)).messages:
            yield self._take(message)

    def claimed_by(self, claim: Claim) -> None:
        """Take the claim that stood alone in the first sealed frame.

        Raises:
            SessionNotProved
        """
        self._take_claim(claim)

    def _take(self, message: Record) -> Order:
        if isinstance(message, Claim):
            return self._take_claim(message)
        if self._transcript is None:
            raise ChannelRefused(f"{type(message).__name__} came before the session was claimed")
        match message:
            case Pay():
                return self._take_voucher(message.voucher)
            case Decode():
                return self._take_decode(message)
            case Expect():
                return self._take_expect(message)
            case Resend():
                return self._take_resend(message)
            case Neighbours():
                return self._take_neighbours(message)
            case Tokenize():
                return self._take_tokenize(message)
            case GetVocabulary():
                return SendVocabulary(message.offset)
            case Cancel():
                return CancelRequest(message.request)
            case Ping():
                return Reply(Pong(message.nonce, self._done_request))
            case Goodbye():
                return Farewell(message.message)
            case _:
                raise ChannelRefused(f"a client does not send {type(message).__name__}")

    def _take_claim(self, claim: Claim) -> Order:
        if self._transcript is not None:
            raise ChannelRefused("the session was claimed twice on one channel")
        check_claim(claim, self.terms.session_key, self._handshake_hash)
        self._transcript = Transcript(claim.transcript_secret, claim.previous_transcript)
        return Claimed()

    def _take_voucher(self, signed: SignedVoucher) -> Order:
        check_voucher(signed, self.terms, self.standing)
        if signed.voucher.transcript != self._chains.head:
            raise VoucherRefused(
                f"voucher {signed.voucher.n} names transcript {signed.voucher.transcript.hex()[:16]}…, "
                f"the rows asked for give {self._chains.head.hex()[:16]}…"
            )
        self.standing = replace(self.standing, voucher=signed)
        self._unacknowledged.append(self._ack_of(signed))
        return StoreVoucher(self.standing)

    def _take_decode(self, message: Decode) -> Order:
        if not self.terms.is_first:
            raise ChannelRefused("this stage takes rows from the one before it, not token ids")
        ids = unpack_ids(message.ids)
        if not 1 <= len(ids) <= MAX_DECODE_ROWS or message.kind not in _KINDS:
            raise ChannelRefused(f"a decode of {len(ids)} rows of kind {message.kind} makes no sense")
        if message.outputs < 1 or message.top_k < 1:
            raise ChannelRefused("a decode without outputs or top_k makes no sense")
        self._count(message.request)
        self._chains.absorb_decode(message)
        refusal = self._charge(message.request, charged(message.kind, len(ids), message.outputs))
        return refusal or DecodeRows(
            message.request,
            message.first_position,
            ids,
            message.kind,
            message.top_k,
            message.outputs or OUTPUTS_LAST,
            bool(message.quiet),
        )

    def _charge(self, request: int, rows: RowCounts) -> Reply | None:
        """Count rows as served; a refusal where no voucher covers them."""
        wanted = self.standing.served.plus(rows)
        if not self.covered.covers(wanted):
            text = f"{wanted.total} rows in all, vouchers cover {self.covered.total}"
            return Reply(_refused(request, REFUSED_VOUCHER, text, 0))
        self.standing = replace(self.standing, served=wanted)
        return None

    def _take_expect(self, message: Expect) -> Order:
        if self.terms.is_first:
            raise ChannelRefused("the first stage takes token ids, there is none before it")
        if message.rows < 1 or message.kind not in _KINDS or message.outputs < 1 or message.top_k < 1:
            raise ChannelRefused(f"{message.rows} rows of kind {message.kind} to expect make no sense")
        self._count(message.request)
        self._chains.absorb_expect(message)
        refusal = self._charge(message.request, charged(message.kind, message.rows, message.outputs))
        return refusal or TakeRows(
            message.request,
            message.first_position,
            message.rows,
            message.kind,
            message.top_k,
            message.outputs,
            message.label,
            bool(message.quiet),
        )

    def _take_resend(self, message: Resend) -> Order:
        if message.rows < 1:
            raise ChannelRefused("no rows to send once more make no sense")
        self._count(message.request)
        return ResendRows(message.request, message.first_position, message.rows)

    def _take_neighbours(self, message: Neighbours) -> Order:
        if message.generation <= self._generation:
            raise ChannelRefused(f"line {message.generation} came after line {self._generation}")
        terms = self.terms
        if terms.is_first == bool(message.previous) or (
            message.previous and not terms.stands_before(message.previous)
        ):
            raise ChannelRefused("the stage before is not one of the route's for the layers before")
        if message.next and not terms.stands_behind(message.next):
            raise ChannelRefused("the stage behind is not one of the route's for the layers behind")
        if message.ring and not terms.closes_ring(message.ring):
            raise ChannelRefused("a ring goes from a provider of the last layers to one of the first")
        self._generation = message.generation
        return StandBetween(message.generation, message.previous, message.next, message.form, message.ring)

    def _take_tokenize(self, message: Tokenize) -> Order:
        self._count(message.request)
        if sum(map(len, message.texts)) > MAX_TOKENIZE_BYTES:
            raise ChannelRefused(f"texts to tokenise exceed {MAX_TOKENIZE_BYTES} bytes")
        try:
            return TokenizeTexts(message.request, tuple(text.decode() for text in message.texts))
        except UnicodeDecodeError as error:
            raise ChannelRefused(f"text to tokenise is not UTF-8 at byte {error.start}") from error

    @property
    def covered(self) -> RowCounts:
        """Rows that the best voucher covers on this leg."""
        leg = own_leg(self.standing.voucher, self.terms)
        return leg.rows if leg else NO_ROWS

    @property
    def _chains(self) -> Transcript:
        if self._transcript is None:
            raise ChannelRefused("the session is not claimed")
        return self._transcript

    def ready(self, *, context_rows: int, held_rows: int, held_digest: bytes, top_k: int) -> bytes:
        """Frame that answers the claim."""
        n = self.standing.voucher.voucher.n if self.standing.voucher else 0
        return self._seal(Ready(context_rows, held_rows, held_digest, self.standing.served, n, top_k))

    @property
    def unacknowledged(self) -> int:
        """Vouchers that were taken and not acknowledged yet."""
        return len(self._unacknowledged)

    def acknowledge(self) -> bytes:
        """Frame with the signed ack of the oldest voucher that has none yet; call it when that one is stored.

        What the ack says was fixed when its voucher came, and it is made once: an ack that took the newest voucher,
        or the outputs of a later moment, would be the second one for its number, and two are slashed.
        """
        if not self._unacknowledged:
            raise ChannelRefused("there is no voucher to acknowledge")
        ack = self._unacknowledged.popleft()
        return self._seal(Acknowledge(sign_ack(self._service_key, ack)))

    def _ack_of(self, signed: SignedVoucher) -> WindowAck:
        leg = own_leg(signed, self.terms)
        return WindowAck(
            self.terms.chain_id,
            self.terms.session,
            self.terms.entry.provider,
            signed.voucher.n,
            signed.voucher.transcript,
            self._chains.outputs,
            leg.cumulative_udllm if leg else 0,
        )

    def output(
        self,
        request: int,
        position: int,
        ids: Sequence[int],
        logits: Sequence[float],
        log_sum_exp: float,
        *,
        last: bool,
    ) -> bytes:
        """Frame with the logits of a row; with ``last``, also Done."""
        message = Output(request, position, pack_ids(ids), pack_floats(logits), pack_floats((log_sum_exp,)))
        self._chains.absorb_output(message)
        return self._seal(message, self._done(request)) if last else self._seal(message)

    def done(self, request: int) -> bytes:
        """Frame that ends a request."""
        return self._seal(self._done(request))

    def handed_on(self, request: int) -> None:
        """A request ended of whose end the client wants to hear only when it asks for a sign of life."""
        self._done(request)

    def _done(self, request: int) -> Done:
        self._done_request = request
        return Done(request)

    def refuse(self, request: int, reason: int, text: str, decoded_rows: int) -> bytes:
        """Frame that refuses a request or ends it early."""
        return self._seal(_refused(request, reason, text, decoded_rows))

    def reply(self, order: Reply) -> bytes:
        """Frame that answers at once."""
        return self._seal(order.message)

    def linked(self, generation: int, form: int, round_trip_us: int, bytes_per_s: int) -> bytes:
        """Frame that answers Neighbours: the next stage is reached, or there is none."""
        return self._seal(Linked(generation, form, round_trip_us, bytes_per_s))

    def unlinked(self, generation: int, text: str) -> bytes:
        """Frame that answers Neighbours, or says later that the next stage is not reached any more."""
        return self._seal(Unlinked(generation, _words(text)))

    def take_back(self, order: DecodeRows | TakeRows, decoded_rows: int) -> None:
        """Of this request only the first rows were decoded: the others do not count as served."""
        rows = order.rows if isinstance(order, TakeRows) else len(order.ids)
        asked = charged(order.kind, rows, order.outputs)
        done = charged_in_part(order.kind, rows, order.outputs, decoded_rows)
        self.standing = replace(self.standing, served=self.standing.served.minus(asked.minus(done)))

    def tokens(self, request: int, ids: Sequence[Sequence[int]]) -> bytes:
        """Frame with the tokens of each text."""
        return self._seal(Tokens(request, tuple(pack_ids(one) for one in ids)))

    def vocabulary_part(self, offset: int, total_bytes: int, data: bytes) -> bytes:
        """Frame with a part of the vocabulary."""
        return self._seal(VocabularyPart(offset, total_bytes, data))

    def goodbye(self, message: str) -> bytes:
        """Frame before closing."""
        return self._seal(Goodbye(_words(message)))

    def _count(self, request: int) -> None:
        if request <= self._last_request:
            raise ChannelRefused(f"request {request} came after request {self._last_request}")
        self._last_request = request

    def _seal(self, *messages: Record) -> bytes:
        return self._stream.seal(Frame(messages).encode())


def _refused(request: int, reason: int, text: str, decoded_rows: int) -> Refused:
    return Refused(request, reason, _words(text), decoded_rows)


def _words(text: str) -> str:
    """As much of a text as a message takes. Another stage's words may be in it: no choice of them may break ours."""
    printable = "".join(one if one.isprintable() else "?" for one in text[:MAX_WORDS_BYTES])
    return printable.encode()[:MAX_WORDS_BYTES].decode(errors="ignore")
