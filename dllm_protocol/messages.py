"""What client and provider say to each other inside a sealed channel [format].

A frame carries one or more messages, handled in order. Requests are numbered by the client; answers repeat the
number. Everything is bounded; a peer that goes beyond a bound loses its connection.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

from dllm_protocol.encoding import (
    ADDRESS,
    BOOL,
    HASH,
    OPTIONAL_ADDRESS,
    PUBLIC_KEY,
    SIGNATURE,
    U32,
    U64,
    ByteString,
    FormatVersion,
    ListOf,
    Nested,
    OneOf,
    Record,
    Text,
    Unsigned,
    record,
    wire,
)
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.pricing import RowCounts
from dllm_protocol.voucher import CHAIN_ID, SignedAck, SignedVoucher

CHANNEL_VERSION = 1
MAX_FRAME_BYTES = 1 << 20
MAX_MESSAGES_PER_FRAME = 16
MAX_DECODE_ROWS = 4096
MAX_TOP_K = 256
MAX_TOKENIZE_BYTES = 256 * 1024
MAX_TOKENIZE_TEXTS = 64
MAX_VOCABULARY_BYTES = 32 << 20
VOCABULARY_PART_BYTES = 256 * 1024
MAX_WORDS_BYTES = 300
"""Of a reason in words, as UTF-8."""

ROW_PROMPT, ROW_KEPT, ROW_DRAFTED, ROW_REPLAYED = 1, 2, 3, 4
OUTPUTS_LAST, OUTPUTS_ALL, OUTPUTS_NONE, OUTPUTS_HELD = 1, 2, 3, 4
"""What is delivered of rows: the last one's logits, everyone's, nobody's; or the rows are only held, and do not even go
to the next stage."""

REFUSED_VOUCHER, REFUSED_CONTEXT, REFUSED_BUSY = 1, 2, 3
REFUSED_REQUEST, REFUSED_ENGINE, REFUSED_DRAINING = 4, 5, 6
REFUSED_CANCELLED, REFUSED_PREVIOUS, REFUSED_NEXT = 7, 8, 9
"""The last two: the stage before gave nothing usable, the one behind takes nothing."""
FORM_ANY, FORM_F32, FORM_BF16 = 0, 1, 2
"""How hidden states travel between stages."""
MAX_HANDED_ROWS = 512
"""Rows of one request on a route of several stages."""

_BIG_ENDIAN = sys.byteorder == "big"
_PACKED_IDS = ByteString(0, 4 * MAX_DECODE_ROWS)


@record
class ClientHello(Record):
    """First message, sealed to the provider's sealing key: who is wanted, for which session."""

    version: int = wire(1, FormatVersion(CHANNEL_VERSION))
    chain_id: str = wire(2, CHAIN_ID)
    provider: bytes = wire(3, ADDRESS)
    session: bytes = wire(4, HASH)


@record
class ProviderHello(Record):
    """Answer in the clear: an ephemeral key that the service key signed for exactly this first message."""

    ephemeral_key: bytes = wire(1, PUBLIC_KEY)
    signature: bytes = wire(2, SIGNATURE)


@record
class Claim(Record):
    """First sealed message of the client: proof that it holds the session key."""

    signature: bytes = wire(1, SIGNATURE)
    """Of the session key over the handshake's hash."""
    transcript_secret: bytes = wire(2, HASH)
    """32 random bytes that the transcript starts from, so that guessing a prompt confirms nothing."""
    previous_transcript: bytes = wire(3, HASH)
    """Transcript of the session's last voucher; zeros before the first."""


@record
class Ready(Record):
    """First sealed message of the provider: what it has and what it will take."""

    context_rows: int = wire(1, U32)
    """Longest sequence that it will hold for this session."""
    held_rows: int = wire(2, U32)
    """Rows of this session that are still in its KV cache."""
    held_digest: bytes = wire(3, HASH)
    """`session.transcript.held_digest` of their token ids."""
    served: RowCounts = wire(4, Nested(RowCounts))
    """Rows it has decoded for this session in all."""
    voucher_n: int = wire(5, U64)
    """Highest voucher it holds; 0 = none."""
    top_k: int = wire(6, Unsigned(MAX_TOP_K))
    """Most logits it gives a row."""


@record
class Tokenize(Record):
    """Ask for the tokens of pieces of text, each on its own, without control tokens."""

    request: int = wire(1, U32)
    texts: tuple[bytes, ...] = wire(
        2, ListOf(ByteString(0, MAX_TOKENIZE_BYTES), MAX_TOKENIZE_TEXTS, minimum=1)
    )
    """UTF-8, line feeds and all."""


@record
class Tokens(Record):
    """Token ids of each text, in order."""

    request: int = wire(1, U32)
    ids: tuple[bytes, ...] = wire(2, ListOf(ByteString(0, 4 * MAX_TOKENIZE_BYTES), MAX_TOKENIZE_TEXTS))
    """Packed with `pack_ids`."""


@record
class GetVocabulary(Record):
    """Ask for the part of the canonical vocabulary that starts at ``offset``."""

    offset: int = wire(1, U32)


@record
class VocabularyPart(Record):
    """A part of the canonical vocabulary."""

    offset: int = wire(1, U32)
    total_bytes: int = wire(2, Unsigned(MAX_VOCABULARY_BYTES))
    data: bytes = wire(3, ByteString(0, VOCABULARY_PART_BYTES))


@record
class Pay(Record):
    """A voucher; it counts for everything behind it in the stream."""

    voucher: SignedVoucher = wire(1, Nested(SignedVoucher))


@record
class Acknowledge(Record):
    """The provider's answer to a voucher."""

    ack: SignedAck = wire(1, Nested(SignedAck))


@record
class Decode(Record):
    """Decode rows: positions first_position … of the session's sequence, cutting off what stood behind."""

    request: int = wire(1, U32)
    first_position: int = wire(2, U32)
    ids: bytes = wire(3, _PACKED_IDS)
    """Packed with `pack_ids`; at least one, at most MAX_DECODE_ROWS."""
    kind: int = wire(4, Unsigned(ROW_REPLAYED))
    """How the rows count: one of the ROW_ constants."""
    top_k: int = wire(5, Unsigned(MAX_TOP_K))
    outputs: int = wire(6, Unsigned(OUTPUTS_HELD))
    """Which rows' logits are wanted: one of the OUTPUTS_ constants."""
    quiet: int = wire(7, BOOL)
    """1: a stage that hands these rows on need not say Done. Whoever answers the client does all the same."""


@record
class Output(Record):
    """The largest logits behind one row."""

    request: int = wire(1, U32)
    position: int = wire(2, U32)
    ids: bytes = wire(3, ByteString(0, 4 * MAX_TOP_K))
    """Token ids, largest logit first, packed with `pack_ids`."""
    logits: bytes = wire(4, ByteString(0, 4 * MAX_TOP_K))
    """Their logits, f32 little-endian."""
    log_sum_exp: bytes = wire(5, ByteString(4, 4))
    """log Σ exp over the whole row, f32 little-endian: exact probabilities need it."""


@record
class Done(Record):
    """All outputs of a Decode were sent."""

    request: int = wire(1, U32)


@record
class Refused(Record):
    """A request that is not carried out, or not to its end."""

    request: int = wire(1, U32)
    reason: int = wire(2, Unsigned(REFUSED_NEXT))
    """One of the REFUSED_ constants."""
    message: str = wire(3, Text(MAX_WORDS_BYTES))
    decoded_rows: int = wire(4, U32)
    """Rows of it that were decoded, and count."""


@record
class Cancel(Record):
    """Stop a request as soon as possible."""

    request: int = wire(1, U32)


@record
class Ping(Record):
    """Are you there?"""

    nonce: int = wire(1, U32)


@record
class Pong(Record):
    """Here."""

    nonce: int = wire(1, U32)
    done: int = wire(2, U32)
    """The newest request for rows that was carried out; 0: none was."""


@record
class Goodbye(Record):
    """The sender is about to close, and says why."""

    message: str = wire(1, Text(MAX_WORDS_BYTES))


@record
class Neighbours(Record):
    """On a route of several stages: who serves before and behind the provider from now on."""

    generation: int = wire(1, U32)
    """Counts up with every change of the line."""
    previous: bytes = wire(2, OPTIONAL_ADDRESS)
    """Provider whose hidden states come in; empty at the first stage."""
    next: bytes = wire(3, OPTIONAL_ADDRESS)
    """Provider that hidden states go to; empty at the last stage."""
    form: int = wire(4, Unsigned(FORM_BF16))
    """How they go there: a FORM_ constant; FORM_ANY leaves it to the provider's measurement of the link."""
    ring: bytes = wire(5, OPTIONAL_ADDRESS)
    """At the last stage: the first one's provider, which may be told what the likeliest token is. At the first: the
    last one's, which may tell. Empty elsewhere, and where nobody may."""


@record
class Linked(Record):
    """The provider stands in line: it reaches its next stage, or has none."""

    generation: int = wire(1, U32)
    form: int = wire(2, Unsigned(FORM_BF16))
    """How hidden states will go there; 0 at the last stage."""
    round_trip_us: int = wire(3, U32)
    """Measured on the link to the next stage, in microseconds."""
    bytes_per_s: int = wire(4, U64)
    """Measured on the link to the next stage."""


@record
class Unlinked(Record):
    """The provider does not reach its next stage, or lost it."""

    generation: int = wire(1, U32)
    message: str = wire(2, Text(MAX_WORDS_BYTES))


@record
class Expect(Record):
    """What `Decode` is at a stage that is not the first: the rows come from the previous stage, under this number."""

    request: int = wire(1, U32)
    first_position: int = wire(2, U32)
    rows: int = wire(3, Unsigned(MAX_HANDED_ROWS))
    """At least one."""
    kind: int = wire(4, Unsigned(ROW_REPLAYED))
    top_k: int = wire(5, Unsigned(MAX_TOP_K))
    outputs: int = wire(6, Unsigned(OUTPUTS_HELD))
    label: bytes = wire(7, HASH)
    """What the client calls all rows up to the last of these; `Ready.held_digest` gives it back."""
    quiet: int = wire(8, BOOL)
    """As in `Decode`."""


@record
class Resend(Record):
    """Send rows that went to the next stage before once more, under this number: another provider took that stage."""

    request: int = wire(1, U32)
    first_position: int = wire(2, U32)
    rows: int = wire(3, Unsigned(MAX_HANDED_ROWS))
    """At least one."""


@record
class StageClaim(Record):
    """First sealed message of the stage before: proof that it is that provider. See `dllm_protocol.stage_link`."""

    provider: bytes = wire(1, ADDRESS)
    signature: bytes = wire(2, SIGNATURE)
    """Of its service key over the handshake's hash."""
    lane: int = wire(3, BOOL)
    """1: what follows is a lane between the engines; see `dllm_protocol.lane`."""


MESSAGE = OneOf(
    {
        1: Claim,
        2: Ready,
        3: Tokenize,
        4: Tokens,
        5: GetVocabulary,
        6: VocabularyPart,
        7: Pay,
        8: Acknowledge,
        9: Decode,
        10: Output,
        11: Done,
        12: Refused,
        13: Cancel,
        14: Ping,
        15: Pong,
        16: Goodbye,
        17: Neighbours,
        18: Linked,
        19: Unlinked,
        20: Expect,
        21: Resend,
        22: StageClaim,
    }
)


@record
class Frame(Record):
    """What is sealed: messages in order."""

    messages: tuple[Record, ...] = wire(1, ListOf(MESSAGE, MAX_MESSAGES_PER_FRAME, minimum=1))


def pack_ids(ids: Sequence[int]) -> bytes:
    """Token ids as unsigned 32-bit little-endian numbers."""
    values = array("I", ids)
    if _BIG_ENDIAN:
        values.byteswap()
    return values.tobytes()


def unpack_ids(packed: bytes) -> list[int]:
    """Token ids from `pack_ids`.

    Raises:
        MalformedBytes: the length is not a multiple of four.
    """
    _check_words(packed)
    values = array("I", packed)
    if _BIG_ENDIAN:
        values.byteswap()
    return values.tolist()


def pack_floats(numbers: Sequence[float]) -> bytes:
    """f32 little-endian."""
    values = array("f", numbers)
    if _BIG_ENDIAN:
        values.byteswap()
    return values.tobytes()


def unpack_floats(packed: bytes) -> list[float]:
    """Floats from `pack_floats`.

    Raises:
        MalformedBytes: the length is not a multiple of four.
    """
    _check_words(packed)
    values = array("f", packed)
    if _BIG_ENDIAN:
        values.byteswap()
    return values.tolist()


def _check_words(packed: bytes) -> None:
    if len(packed) % 4:
        raise MalformedBytes(f"{len(packed)} bytes do not hold whole 32-bit numbers")
