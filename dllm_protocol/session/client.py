"""The client's end of one leg, without I/O.

    leg = ClientLeg(handshake, session_key, ledger, …)
    send(leg.first_message)
    send(leg.take_hello(answer))           → the Claim, sealed
    events = leg.receive(frame)            → Event, …
    send(leg.decode(…))                    → one sealed frame: a voucher where one is due, then the request

Whoever drives it stores ``ledger.state`` before sending what `decode` or `seal_turn` returned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

from dllm_protocol.encoding import Record
from dllm_protocol.errors import ChannelRefused
from dllm_protocol.messages import (
    MAX_FRAME_BYTES,
    OUTPUTS_ALL,
    OUTPUTS_LAST,
    Acknowledge,
    Cancel,
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
    pack_ids,
    unpack_floats,
    unpack_ids,
)
from dllm_protocol.sealing import SealedStream
from dllm_protocol.session.handshake import ClientHandshake, make_claim
from dllm_protocol.session.ledger import Ledger
from dllm_protocol.session.rows import charged, charged_in_part
from dllm_protocol.session.transcript import Transcript
from dllm_protocol.signing import Signer
from dllm_protocol.voucher import SignedVoucher

_MOST_ASSUMED = 64
_RECENT_OUTPUTS = 1024


@dataclass(frozen=True, slots=True)
class _Pending:
    """A Decode that is not answered in full."""

    kind: int
    rows: int
    outputs: int
    first_position: int
    awaited: range
    """Positions whose outputs are still to come, in this order."""


class ClientLeg:
    """One sealed channel to one provider of the route."""

    def __init__(
        self,
        handshake: ClientHandshake,
        *,
        provider: bytes,
        service_key: bytes,
        session_key: Signer,
        ledger: Ledger,
        transcript_secret: bytes,
    ) -> None:
        self.provider = provider
        self.ready: Ready | None = None
        self.first_message = handshake.first_message
        self._handshake = handshake
        self._service_key = service_key
        self._session_key = session_key
        self._ledger = ledger
        self._secret = transcript_secret
        self._stream: SealedStream | None = None
        self._previous = ledger.transcript
        self.transcript = Transcript(transcript_secret, self._previous)
        self._requests = 0
        self._pending: dict[int, _Pending] = {}
        self._asked: dict[int, type[Record]] = {}
        self._assumed: dict[int, _Pending] = {}
        """The newest requests that were assumed to be done."""
        self._pings: Counter[int] = Counter()
        self._parts_asked = 0
        self._newest_voucher_n = 0
        self._generation = 0
        self._recent_outputs = [self.transcript.outputs]

    @property
    def newest_voucher_n(self) -> int:
        """Number of the newest voucher that this leg was given."""
        return self._newest_voucher_n

    @property
    def last_request(self) -> int:
        """Number of the newest request; 0: none was made."""
        return self._requests

    def take_hello(self, answer: bytes) -> bytes:
        """Check the provider's hello; return the sealed Claim to send.

        Raises:
            ProviderNotProved
        """
        self._stream, hash_of_handshake = self._handshake.finish(answer)
        claim = make_claim(self._session_key, hash_of_handshake, self._secret, self._previous)
        return self._seal(claim)

    def tokenize(self, texts: Sequence[bytes]) -> tuple[int, bytes]:
        """(request number, frame) that asks for the tokens of texts."""
        request = self._number(Tokens)
        return request, self._seal(Tokenize(request, tuple(texts)))

    def get_vocabulary(self, offset: int) -> bytes:
        """Frame that asks for a part of the vocabulary."""
        self._parts_asked += 1
        return self._seal(GetVocabulary(offset))

    def decode(
        self,
        first_position: int,
        ids: Sequence[int],
        *,
        kind: int,
        top_k: int,
        outputs: int = OUTPUTS_LAST,
        request: int | None = None,
        gives_logits: bool = True,
        quiet: bool = False,
    ) -> tuple[int, bytes]:
        """(request number, frame) that asks for rows, with the voucher before them where one is due.

        Args:
            request: its number, above all before it; None counts on.
            gives_logits: False at a stage that is not the last.
            quiet: such a stage need not say that it is done; see `assume_done`.

        Raises:
            DepositUsedUp: the ledger could not promise them; nothing changed.
        """
        voucher = self._ledger.use(self.provider, charged(kind, len(ids), outputs), self.transcript.head)
        request = self._number(Done, request)
        message = Decode(request, first_position, pack_ids(ids), kind, top_k, outputs, int(quiet))
        self._pending[request] = _pending(kind, len(ids), outputs, first_position, gives_logits=gives_logits)
        self.transcript.absorb_decode(message)
        return request, self._seal(*self._pay(voucher), message)

    def expect(
        self,
        request: int,
        first_position: int,
        rows: int,
        *,
        kind: int,
        top_k: int,
        outputs: int,
        label: bytes,
        gives_logits: bool,
        quiet: bool = False,
    ) -> bytes:
        """Frame that does the same at a stage behind the first, which gets the rows from the one before it.

        Raises:
            DepositUsedUp: the ledger could not promise them; nothing changed.
        """
        voucher = self._ledger.use(self.provider, charged(kind, rows, outputs), self.transcript.head)
        self._number(Done, request)
        message = Expect(request, first_position, rows, kind, top_k, outputs, label, int(quiet))
        self._pending[request] = _pending(kind, rows, outputs, first_position, gives_logits=gives_logits)
        self.transcript.absorb_expect(message)
        return self._seal(*self._pay(voucher), message)

    def resend(self, request: int, first_position: int, rows: int) -> bytes:
        """Frame that has rows sent to the next stage once more."""
        self._number(Done, request)
        return self._seal(Resend(request, first_position, rows))

    def assume_done(self, request: int) -> None:
        """A quiet request was carried out, as somebody behind this stage has shown.

        Its own word on that may still come, over another way than what showed it.
        """
        pending = self._pending.pop(request, None)
        if self._asked.pop(request, None) is not None and pending is not None:
            self._assumed[request] = pending
            while len(self._assumed) > _MOST_ASSUMED:
                del self._assumed[min(self._assumed)]

    def neighbours(
        self, generation: int, previous: bytes, next_provider: bytes, form: int, ring: bytes = b""
    ) -> bytes:
        """Frame that says who serves before and behind from now on; answered with Linked or Unlinked."""
        self._generation = generation
        return self._seal(Neighbours(generation, previous, next_provider, form, ring))

    def seal_turn(self) -> bytes | None:
        """Frame with a voucher over the turn's final transcript, or None where nothing is new."""
        voucher = self._ledger.seal_turn(self.transcript.head)
        return self._seal(*self._pay(voucher)) if voucher else None

    def end_session(self) -> bytes:
        """Frame with the session's final voucher. The channels that it goes out on were opened with one secret."""
        return self._seal(*self._pay(self._ledger.finish(self.transcript.head)))

    def cancel(self, request: int) -> bytes:
        """Frame that stops a request."""
        return self._seal(Cancel(request))

    def ping(self, nonce: int) -> bytes:
        """Frame that asks for a sign of life."""
        self._pings[nonce] += 1
        return self._seal(Ping(nonce))

    def forget_unanswered(self) -> None:
        """The channel is over: rows that were asked for and not answered do not count.

        A provider that decoded them all the same says so when it is dialled again.
        """
        for pending in self._pending.values():
            self._ledger.credit(self.provider, charged(pending.kind, pending.rows, pending.outputs))
        self._pending.clear()

    def goodbye(self, message: str) -> bytes:
        """Frame before closing."""
        return self._seal(Goodbye(message))

    def receive(self, frame: bytes) -> tuple[Record, ...]:
        """Open a frame; return its messages, each checked: Ready, Tokens, Output, Done, Refused, ….

        Raises:
            ChannelRefused, MalformedBytes: the provider broke the protocol; the channel is of no more use.
        """
        if self._stream is None:
            raise ChannelRefused("a frame came before the handshake was over")
        if len(frame) > MAX_FRAME_BYTES:
            raise ChannelRefused(f"a frame has {len(frame)} bytes, at most {MAX_FRAME_BYTES} are taken")
        messages = Frame.decode(self._stream.open(frame)).messages
        for message in messages:
            self._take(message)
        return messages

    def _take(self, message: Record) -> None:
        if self.ready is None and not isinstance(message, Ready | Goodbye):
            raise ChannelRefused(f"{type(message).__name__} came before Ready")
        match message:
            case Ready():
                self._take_ready(message)
            case Output():
                self._take_output(message)
            case Done():
                self._answered(message.request, Done)
                pending = self._pending.pop(message.request, None)
                if pending is not None and pending.awaited:
                    raise ChannelRefused(
                        f"request {message.request} ended without the logits of {len(pending.awaited)} rows"
                    )
            case Refused():
                self._take_refused(message)
            case Tokens():
                self._answered(message.request, Tokens)
                if any(len(packed) % 4 for packed in message.ids):
                    raise ChannelRefused("tokens came that are not whole 32-bit numbers")
            case Acknowledge():
                if message.ack.ack.provider != self.provider:
                    raise ChannelRefused("the ack is for the leg of another provider")
                if message.ack.ack.outputs not in self._recent_outputs:
                    raise ChannelRefused("the ack commits to outputs that the provider never gave")
                self._ledger.take_ack(message.ack, self._service_key)
            case VocabularyPart():
                self._parts_asked -= 1
                if self._parts_asked < 0:
                    raise ChannelRefused("a part of the vocabulary came that nobody asked for")
            case Pong():
                if message.nonce not in self._pings:
                    raise ChannelRefused(f"pong {message.nonce} came without its ping")
                self._pings -= Counter((message.nonce,))
            case Linked() | Unlinked():
                if not 0 < message.generation <= self._generation:
                    raise ChannelRefused(
                        f"an answer to line {message.generation} came, which nobody asked for"
                    )
            case Goodbye():
                pass
            case _:
                raise ChannelRefused(f"a provider does not send {type(message).__name__}")

    def _take_ready(self, ready: Ready) -> None:
        if self.ready is not None:
            raise ChannelRefused("the provider said Ready twice")
        if ready.voucher_n > self._ledger.state.n:
            raise ChannelRefused(
                f"the provider holds voucher {ready.voucher_n}, ours go up to {self._ledger.state.n}",
                hint="this home was put back to an older state: close the session and open another",
            )
        self._ledger.resume(self.provider, ready.voucher_n, ready.served)
        self.ready = ready

    def _take_output(self, output: Output) -> None:
        pending = self._pending.get(output.request)
        if pending is None:
            raise ChannelRefused(f"an output came for request {output.request}, which is not open")
        if not pending.awaited or output.position != pending.awaited[0]:
            raise ChannelRefused(
                f"an output came for position {output.position}, of {pending.first_position}.."
                f"{pending.first_position + pending.rows - 1} those of {list(pending.awaited[:1])} on are awaited"
            )
        self._pending[output.request] = replace(pending, awaited=pending.awaited[1:])
        ids = unpack_ids(output.ids)
        if len(output.ids) != len(output.logits) or not ids or len(set(ids)) < len(ids):
            raise ChannelRefused(
                f"an output names {len(ids)} ids, {len(set(ids))} of them different, {len(output.logits) // 4} logits"
            )
        if not all(map(isfinite, unpack_floats(output.logits))):
            raise ChannelRefused(f"a logit of the row at {output.position} is not a number")
        self.transcript.absorb_output(output)
        self._recent_outputs.append(self.transcript.outputs)
        del self._recent_outputs[:-_RECENT_OUTPUTS]

    def _take_refused(self, refused: Refused) -> None:
        pending = self._pending.pop(refused.request, None) or self._assumed.get(refused.request)
        is_assumed = self._assumed.pop(refused.request, None) is not None
        if self._asked.pop(refused.request, None) is None and not is_assumed:
            raise ChannelRefused(f"a refusal came for request {refused.request}, which is not open")
        if pending is not None:
            if refused.decoded_rows > pending.rows:
                raise ChannelRefused(
                    f"{refused.decoded_rows} rows are said decoded, asked were {pending.rows}"
                )
            asked = charged(pending.kind, pending.rows, pending.outputs)
            done = charged_in_part(pending.kind, pending.rows, pending.outputs, refused.decoded_rows)
            self._ledger.credit(self.provider, asked.minus(done))

    def _number(self, answer: type[Record], request: int | None = None) -> int:
        if request is not None and request <= self._requests:
            raise ChannelRefused(f"request {request} was to come after request {self._requests}")
        self._requests = self._requests + 1 if request is None else request
        self._asked[self._requests] = answer
        return self._requests

    def _answered(self, request: int, answer: type[Record]) -> None:
        if answer is Done and self._assumed.pop(request, None) is not None:
            return
        if self._asked.pop(request, None) is not answer:
            raise ChannelRefused(f"{answer.__name__} came for request {request}, which does not wait for it")

    def _seal(self, *messages: Record) -> bytes:
        if self._stream is None:
            raise ChannelRefused("the channel does not stand yet")
        return self._stream.seal(Frame(messages).encode())

    def _pay(self, voucher: SignedVoucher | None) -> tuple[Record, ...]:
        if voucher is None:
            return ()
        self._newest_voucher_n = voucher.voucher.n
        return (Pay(voucher),)


def _pending(kind: int, rows: int, outputs: int, first_position: int, *, gives_logits: bool) -> _Pending:
    end = first_position + rows
    awaited = range(0)
    if gives_logits and outputs == OUTPUTS_LAST:
        awaited = range(end - 1, end)
    elif gives_logits and outputs == OUTPUTS_ALL:
        awaited = range(first_position, end)
    return _Pending(kind, rows, outputs, first_position, awaited)
