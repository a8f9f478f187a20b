"""What frames say: requests of the service, answers of the engine, and how each is packed and checked."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from local_worker.engine.frames import Failure, FrameRefused, Kind, frame

Ids = npt.NDArray[np.int32]
Logits = npt.NDArray[np.float32]
Hidden = npt.NDArray[np.float32]
"""Hidden states [rows, n_embd]: what one block hands on to the next."""

MAX_TEXT_BYTES: Final = 1 << 22
MAX_TOP_K: Final = 1024
_DECODE = struct.Struct("<IIHBI")
_ROWS = struct.Struct("<BIHH")
_ROW = struct.Struct("<Id")
_PIECE = struct.Struct("<HH")
_VOCABULARY = struct.Struct("<IBB")
_FAILURE = struct.Struct("<BIH")


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a running engine says of its model; sizes in bytes, ids are -1 where the model has none."""

    architecture: str
    layers: int
    n_embd: int
    vocab_size: int
    context_train: int
    context_rows: int
    sequences: int
    threads: int
    parameters: int
    model_bytes: int
    kv_bytes: int
    bos: int
    eos: int
    eot: int
    adds_bos: bool
    first_layer: int
    """A whole model has the layers 0 to ``model_layers``; a chunk has ``layers`` of them."""
    end_layer: int
    model_layers: int
    device: str = ""
    """The graphics card that has layers; empty where only the CPU computes."""
    gpu_layers: int = 0
    """Layers on it."""

    @property
    def takes_hidden(self) -> bool:
        """Whether hidden states go in, instead of token ids."""
        return self.first_layer > 0

    @property
    def gives_hidden(self) -> bool:
        """Whether hidden states come out, instead of logits."""
        return self.end_layer < self.model_layers


@dataclass(frozen=True, slots=True)
class Ticket:
    """How one row goes over lanes: as part of the client's ``request``, in over one lane and out over another.

    Lanes are numbered by the service; 0 is none.
    """

    request: int
    lane_in: int
    lane_out: int


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """Rows to decode: ``inputs`` (token ids, or a chunk's hidden states) at ``first_position`` onwards in ``sequence``;
    KV from there on is dropped first.
    """

    call: int
    sequence: int
    first_position: int
    top_k: int
    all_outputs: bool
    inputs: Ids | Hidden
    ticket: Ticket | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RowOutput:
    """The ``top_k`` largest logits of one row, largest first, and what normalises them.

    ``logit - logsumexp`` is the exact natural-log probability over the whole vocabulary.
    """

    position: int
    ids: Ids
    logits: Logits
    logsumexp: float


@dataclass(frozen=True, slots=True)
class RowsAnswer:
    """Outputs of one slice; ``last`` says that the call is answered, ``held_rows`` what the sequence now holds."""

    last: bool
    held_rows: int
    rows: list[RowOutput]


@dataclass(frozen=True, slots=True, eq=False)
class LaneAnswer:
    """What became of a row that went over lanes: its hidden state [1, n_embd], or its logits."""

    hidden: Hidden | None
    rows: list[RowOutput]
    sent: bool
    """Whether the engine itself sent the hidden state on."""


@dataclass(frozen=True, slots=True)
class EngineVocabulary:
    """Every token: its bytes in running text (its name for control tokens), llama.cpp's attribute bits, and more.

    Attributes:
        attributes: bits as below (``UNKNOWN`` …), indexed by id as ``pieces`` is.
        end_ids: tokens that end an answer.
        adds_space: tokenising puts one space before the text (SentencePiece's dummy prefix).
        tokenizer: "spm", "bpe", "wpm", "ugm", "rwkv" or "plamo2".
    """

    pieces: tuple[bytes, ...]
    attributes: tuple[int, ...]
    end_ids: tuple[int, ...]
    bos: int
    eos: int
    eot: int
    adds_bos: bool
    adds_space: bool
    tokenizer: str


UNKNOWN, UNUSED, NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 2, 4, 8, 16, 32


def decode_frame(request: DecodeRequest, call: int) -> bytes:
    """The frame of a decode request, under the number ``call``."""
    head = _DECODE.pack(
        request.sequence, request.first_position, request.top_k, request.all_outputs, len(request.inputs)
    )
    return frame(Kind.DECODE, call, head + request.inputs.astype("<i4", copy=False).tobytes())


def read_decode(call: int, body: bytes) -> DecodeRequest:
    """Parse a decode request; ranges that depend on the model are checked by who knows it."""
    head = _unpack(_DECODE, body)
    sequence, first_position, top_k, all_outputs, count = head
    ids = _array(body, _DECODE.size, "<i4", count)
    if all_outputs > 1 or len(body) != _DECODE.size + 4 * count:
        raise FrameRefused(f"a decode request of {count} ids has {len(body)} bytes")
    return DecodeRequest(call, sequence, first_position, top_k, bool(all_outputs), ids)


def rows_frame(call: int, last: bool, held_rows: int, rows: list[RowOutput]) -> bytes:
    """The frame of one slice's outputs; all rows have the same number of ids."""
    k = len(rows[0].ids) if rows else 0
    parts = [_ROWS.pack(last, held_rows, len(rows), k)]
    for row in rows:
        parts += (_ROW.pack(row.position, row.logsumexp), row.ids.tobytes(), row.logits.tobytes())
    return frame(Kind.ROWS, call, b"".join(parts))


def read_rows(body: bytes) -> RowsAnswer:
    """Parse one slice's outputs; arrays are views into ``body``."""
    last, held_rows, count, k = _unpack(_ROWS, body)
    stride = 12 + 8 * k
    if len(body) != _ROWS.size + count * stride:
        raise FrameRefused(f"{count} rows of {k} logits in {len(body)} bytes")
    rows = []
    for start in range(_ROWS.size, len(body), stride):
        position, logsumexp = _ROW.unpack_from(body, start)
        ids = _array(body, start + 12, "<i4", k)
        logits = np.frombuffer(body, np.dtype("<f4"), k, start + 12 + 4 * k)
        rows.append(RowOutput(position, ids, logits, logsumexp))
    return RowsAnswer(bool(last), held_rows, rows)


def failure_frame(call: int, failure: Failure, message: str, held_rows: int = 0) -> bytes:
    """The frame of a named failure; the message is cut at 2,000 bytes."""
    text = message.encode()[:2000].decode(errors="ignore").encode()
    return frame(Kind.FAILED, call, _FAILURE.pack(failure, held_rows, len(text)) + text)


def read_failure(body: bytes) -> tuple[Failure, int, str]:
    """Parse a failure: its name, the rows that the sequence still holds, and the message."""
    failure, held_rows, length = _unpack(_FAILURE, body)
    if len(body) != _FAILURE.size + length:
        raise FrameRefused(f"a failure's message of {length} bytes in {len(body)}")
    try:
        return Failure(failure), held_rows, body[_FAILURE.size :].decode(errors="replace")
    except ValueError as error:
        raise FrameRefused(f"unknown failure {failure}") from error


def tokens_frame(call: int, ids: Ids) -> bytes:
    """The frame of a tokenised text."""
    return frame(Kind.TOKENS, call, ids.astype("<i4", copy=False).tobytes())


def read_tokens(body: bytes) -> list[int]:
    """Parse a tokenised text."""
    if len(body) % 4:
        raise FrameRefused(f"token ids of {len(body)} bytes")
    return [int(token) for token in np.frombuffer(body, np.dtype("<i4"))]


def ready_frame(info: EngineInfo) -> bytes:
    """The first frame of an engine that can serve."""
    return frame(Kind.READY, 0, json.dumps(asdict(info)).encode())


def read_ready(body: bytes) -> EngineInfo:
    """Parse an engine's first words."""
    try:
        info = EngineInfo(**json.loads(body))
    except (TypeError, ValueError, RecursionError) as error:
        raise FrameRefused("the engine's first words are not what it should say") from error
    for name in (field.name for field in fields(EngineInfo)):
        value = getattr(info, name)
        text, flag = name in ("architecture", "device"), name == "adds_bos"
        number = type(value) is int and -1 <= value < 1 << 62
        if not (isinstance(value, str) if text else isinstance(value, bool) if flag else number):
            raise FrameRefused(f"the engine says {name} = {str(value)[:40]!r}")
    return info


def vocabulary_frame(call: int, vocabulary: EngineVocabulary) -> bytes:
    """The frame of a whole vocabulary."""
    name = vocabulary.tokenizer.encode()
    flags = vocabulary.adds_bos | vocabulary.adds_space << 1
    parts = [_VOCABULARY.pack(len(vocabulary.pieces), flags, len(name)), name]
    parts.append(struct.pack("<iii", vocabulary.bos, vocabulary.eos, vocabulary.eot))
    parts.append(struct.pack(f"<I{len(vocabulary.end_ids)}i", len(vocabulary.end_ids), *vocabulary.end_ids))
    for piece, attribute in zip(vocabulary.pieces, vocabulary.attributes, strict=True):
        parts += (_PIECE.pack(len(piece), attribute & 0xFFFF), piece)
    return frame(Kind.PIECES, call, b"".join(parts))


def read_vocabulary(body: bytes) -> EngineVocabulary:
    """Parse a whole vocabulary."""
    try:
        count, flags, name_length = _VOCABULARY.unpack_from(body)
        at = _VOCABULARY.size + name_length
        name = body[_VOCABULARY.size : at].decode("ascii")
        bos, eos, eot, ends = struct.unpack_from("<iiiI", body, at)
        at += 16
        end_ids = struct.unpack_from(f"<{ends}i", body, at) if 4 * ends <= len(body) else ()
        at += 4 * ends
        pieces, attributes = [], []
        for _ in range(count):
            length, attribute = _PIECE.unpack_from(body, at)
            at += _PIECE.size + length
            pieces.append(body[at - length : at])
            attributes.append(attribute)
    except (struct.error, UnicodeDecodeError) as error:
        raise FrameRefused("a vocabulary that ends too early") from error
    if at != len(body):
        raise FrameRefused(f"a vocabulary of {at} bytes in a frame of {len(body)}")
    adds_bos, adds_space = bool(flags & 1), bool(flags & 2)
    return EngineVocabulary(
        tuple(pieces), tuple(attributes), tuple(end_ids), bos, eos, eot, adds_bos, adds_space, name
    )


def _unpack(form: struct.Struct, body: bytes) -> tuple[int, ...]:
    if len(body) < form.size:
        raise FrameRefused(f"a body of {len(body)} bytes is below {form.size}")
    return form.unpack_from(body)


def _array(body: bytes, offset: int, kind: str, count: int) -> Ids:
    if len(body) < offset + 4 * count:
        raise FrameRefused(f"{count} ids in {len(body) - offset} bytes")
    return np.frombuffer(body, np.dtype(kind), count, offset)
