"""What one stage of a route says to the next one [format].

A link is a sealed channel of its own for each session and pair of neighbours. The stage before dials as a client does
(`ClientHello` to the next provider's sealing key, for the session); its first sealed frame holds a `StageClaim` instead
of a client's `Claim`. From then on both sides send `StageFrame`s.
"""

from __future__ import annotations

from dllm_protocol.encoding import (
    U32,
    ByteString,
    ListOf,
    OneOf,
    Record,
    Text,
    Unsigned,
    record,
    wire,
)
from dllm_protocol.errors import ChannelRefused
from dllm_protocol.hashing import Tag
from dllm_protocol.messages import FORM_BF16, MAX_FRAME_BYTES, MAX_HANDED_ROWS, Frame, StageClaim
from dllm_protocol.sealing import SealedStream
from dllm_protocol.session.handshake import ProviderNotProved
from dllm_protocol.signing import Signer, sign_tagged, verify_tagged

MAX_ROW_DATA_BYTES = 768 * 1024
"""Hidden states of one frame."""
MAX_FILLER_BYTES = 256 * 1024


@record
class StageReady(Record):
    """The next stage's answer to the claim: rows may come."""

    width: int = wire(1, U32)
    """Numbers of a hidden state."""


@record
class HandedRows(Record):
    """Hidden states of rows of one request, in order; a request's rows may come in several frames."""

    request: int = wire(1, U32)
    first_position: int = wire(2, U32)
    rows: int = wire(3, Unsigned(MAX_HANDED_ROWS, minimum=1))
    form: int = wire(4, Unsigned(FORM_BF16, minimum=1))
    """FORM_F32 or FORM_BF16."""
    data: bytes = wire(5, ByteString(2, MAX_ROW_DATA_BYTES))
    """rows · width numbers, little-endian."""


@record
class Filler(Record):
    """Bytes that only measure the link; answered with `Filled`."""

    nonce: int = wire(1, U32)
    data: bytes = wire(2, ByteString(0, MAX_FILLER_BYTES))


@record
class Filled(Record):
    """A Filler arrived."""

    nonce: int = wire(1, U32)


@record
class StageGoodbye(Record):
    """The sender is about to close, and says why."""

    message: str = wire(1, Text(300))


STAGE_MESSAGE = OneOf({1: StageReady, 2: HandedRows, 3: Filler, 4: Filled, 5: StageGoodbye})


@record
class StageFrame(Record):
    """What is sealed on a link."""

    messages: tuple[Record, ...] = wire(1, ListOf(STAGE_MESSAGE, 4, minimum=1))


def make_stage_claim(
    service_key: Signer, provider: bytes, hash_of_handshake: bytes, *, lane: bool = False
) -> StageClaim:
    """The proof that ``provider`` dials; ``lane``: for a lane instead of a link."""
    return StageClaim(provider, sign_tagged(service_key, Tag.STAGE_CLAIM, hash_of_handshake), int(lane))


def check_stage_claim(claim: StageClaim, service_key: bytes, hash_of_handshake: bytes) -> None:
    """Refuse a claim that the provider's registered key did not sign for this handshake.

    Raises:
        ProviderNotProved
    """
    if not verify_tagged(service_key, Tag.STAGE_CLAIM, hash_of_handshake, claim.signature):
        raise ProviderNotProved("the stage before is not the provider that it says")


class StageLink:
    """One end of a link, without I/O: messages in, sealed frames out."""

    def __init__(self, stream: SealedStream) -> None:
        self._stream = stream

    def claim(self, claim: StageClaim) -> bytes:
        """The frame with the claim."""
        return self._stream.seal(Frame((claim,)).encode())

    def hand_over(self) -> bytes:
        """See `SealedStream.hand_over`."""
        return self._stream.hand_over()

    def seal(self, *messages: Record) -> bytes:
        """A frame of messages."""
        return self._stream.seal(StageFrame(messages).encode())

    def open(self, frame: bytes) -> tuple[Record, ...]:
        """The messages of a frame.

        Raises:
            ChannelRefused, MalformedBytes: close the link.
        """
        if len(frame) > MAX_FRAME_BYTES:
            raise ChannelRefused(f"a frame has {len(frame)} bytes, at most {MAX_FRAME_BYTES} are taken")
        return StageFrame.decode(self._stream.open(frame)).messages
