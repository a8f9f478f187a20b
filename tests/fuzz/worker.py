"""Decoders of `local_worker`: frames and messages of the engine process, which a hostile model file may have taken
over, what comes over a sealed channel or a lane, and the worker's own files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from dllm_protocol.errors import DllmError
from dllm_protocol.lane import KIND_F32, KIND_HELLO, KIND_TOKEN, LaneMessage, LaneStream, token_body
from dllm_protocol.messages import FORM_BF16, FORM_F32, ROW_PROMPT, Done, Frame, Output, pack_floats, pack_ids
from dllm_protocol.sealing import SealedStream
from dllm_protocol.stage_link import HandedRows
from local_worker.engine import lane_frames, messages
from local_worker.engine.frames import FrameReader, Kind, frame
from local_worker.engine.messages import DecodeRequest, EngineInfo, EngineVocabulary, RowOutput, Ticket
from local_worker.hidden_form import pack, unpack
from local_worker.keys import create_keys, key_file, load_keys
from local_worker.status import read_status
from local_worker.vocabulary import canonical_vocabulary
from tests.dllm_protocol.session.test_channel import make_pair
from tests.fuzz.decoder import Decoder, OtherSpelling
from tests.fuzz.node import through_file
from tests.fuzz.protocol import as_json

_INFO = EngineInfo("llama", 4, 64, 256, 2048, 512, 2, 1, 1000, 4000, 100, 1, 2, -1, True, 0, 4, 4)
_VOCABULARY = EngineVocabulary((b"<s>", b" a"), (8, 4), (1,), 0, 1, -1, True, True, "spm")
_ROW = RowOutput(3, np.array([5, 6], np.int32), np.array([1.5, 0.5], np.float32), 2.0)
_HEAD_BYTES = 9
_LANE_KEYS = b"\x05" * 32, b"\x06" * 32
_ROW_BODY = pack(np.ones((1, 4), np.float32), FORM_F32)


def _body(made: bytes) -> bytes:
    return made[_HEAD_BYTES:]


def _frames(data: bytes) -> None:
    """Whole, and then byte by byte: the cuts must not matter."""
    whole = FrameReader().feed(data)
    reader, pieces = FrameReader(), []
    for at in range(min(len(data), 4096)):
        pieces += reader.feed(data[at : at + 1])
    assert pieces == whole or len(data) > 4096


def _vocabulary(body: bytes) -> None:
    canonical_vocabulary(messages.read_vocabulary(body)).encode()


def _to_provider(data: bytes) -> None:
    """The client's bytes inside a seal that fits, taken by a provider's leg."""
    pair = make_pair()
    list(pair.provider.receive(pair.client._stream.seal(data)))


def _to_client(data: bytes) -> None:
    """The provider's bytes inside a seal that fits, taken by a client's leg that waits for rows."""
    pair = make_pair()
    pair.client.decode(0, [5, 6, 7], kind=ROW_PROMPT, top_k=4)
    pair.client.receive(pair.provider._stream.seal(data))


def _handed(form: int) -> bytes:
    """Rows as a stage hands them on."""
    return HandedRows(1, 0, 2, form, pack(np.ones((2, 4), np.float32), form)).encode()


def _handed_rows(data: bytes) -> None:
    """What the stage before sends: only numbers within bounds, in the shape that was announced, come through."""
    rows = HandedRows.decode(data)
    taken = unpack(rows.data, rows.rows, 4, rows.form)
    assert taken.shape == (rows.rows, 4) and np.isfinite(taken).all()


def _lane() -> tuple[SealedStream, LaneStream]:
    """What another stage's engine seals with, and the end that reads it."""
    return SealedStream(*_LANE_KEYS), LaneStream(SealedStream(*reversed(_LANE_KEYS)))


def _lane_bytes() -> bytes:
    """A lane's first messages as they come."""
    end = LaneStream(_lane()[0])
    said = ((KIND_HELLO, 0, 0, b""), (KIND_F32, 1, 0, _ROW_BODY), (KIND_TOKEN, 2, 1, token_body(5)))
    return b"".join(end.pack(*one) for one in said)


def _fed(data: bytes, piece_bytes: int) -> tuple[list[LaneMessage], DllmError | None]:
    """What comes through, and what ends the lane."""
    _, end = _lane()
    came: list[LaneMessage] = []
    try:
        for at in range(0, len(data), piece_bytes):
            came += end.feed(data[at : at + piece_bytes])
    except DllmError as error:
        return came, error
    return came, None


def _over_lane(data: bytes) -> None:
    """Whole, and then byte by byte: the cuts must not matter."""
    data = data[:4096]
    (whole, error), (pieces, error_of_pieces) = _fed(data, 4096), _fed(data, 1)
    assert repr(error) == repr(error_of_pieces)
    if error is not None:
        raise error
    assert pieces == whole


def _lane_message(data: bytes) -> None:
    """Inside a seal that fits: what is in it is packed again as the same bytes, and used as a token and as a row."""
    theirs, end = _lane()
    sealed = theirs.seal(data)
    (message,) = end.feed(len(sealed).to_bytes(4, "little") + sealed)
    packed = LaneStream(_lane()[0]).pack(*message)
    if packed[4:] != sealed:
        raise OtherSpelling(data.hex())
    if message.kind == KIND_TOKEN:
        assert token_body(message.token) == message.body
    elif message.kind != KIND_HELLO:
        assert np.isfinite(unpack(message.body, 1, 4, message.kind)).all()


def _order(data: bytes) -> None:
    if _body(lane_frames.order_frame(lane_frames.read_order(1, data), 1)) != data:
        raise OtherSpelling(data.hex())


def _new_lane(data: bytes) -> None:
    lane = lane_frames.read_lane(1, data)
    if _body(lane_frames.lane_frame(lane)) != data:
        raise OtherSpelling(data.hex())


def decoders() -> list[Decoder]:
    """Frames, their bodies, sealed messages, files."""
    request = DecodeRequest(1, 0, 0, 4, True, np.array([1, 2, 3], np.int32))
    pair = make_pair()
    _, sealed = pair.client.decode(0, [5, 6, 7], kind=ROW_PROMPT, top_k=4)
    asked = pair.provider._stream.open(sealed)
    output = Output(1, 2, pack_ids([9]), pack_floats([1.5]), pack_floats([2.0]))
    answered = Frame((output, Done(1))).encode()
    order = lane_frames.LaneOrder(1, 0, 5, 4, Ticket(7, 1, 2), 300)
    over_lane = [
        bytes((kind,)) + bytes(8) + body
        for kind, body in ((KIND_TOKEN, token_body(5)), (KIND_F32, _ROW_BODY), (KIND_HELLO, b""))
    ]
    new_lane = lane_frames.NewLane(1, FORM_F32, True, SealedStream(*_LANE_KEYS).hand_over())
    table: list[tuple[str, Callable[[bytes], object], tuple[bytes, ...]]] = [
        (
            "engine.frames.FrameReader.feed",
            _frames,
            (frame(Kind.CANCEL, 7) + frame(Kind.TOKENS, 8, b"abcd"),),
        ),
        (
            "engine.messages.read_decode",
            lambda data: messages.read_decode(1, data),
            (_body(messages.decode_frame(request, 1)),),
        ),
        ("engine.messages.read_rows", messages.read_rows, (_body(messages.rows_frame(1, True, 4, [_ROW])),)),
        (
            "engine.messages.read_failure",
            messages.read_failure,
            (_body(messages.failure_frame(1, messages.Failure.BUSY, "busy")),),
        ),
        ("engine.messages.read_tokens", messages.read_tokens, (bytes(8),)),
        ("engine.lane_frames.read_order", _order, (_body(lane_frames.order_frame(order, 1)),)),
        ("engine.lane_frames.read_lane", _new_lane, (_body(lane_frames.lane_frame(new_lane)),)),
        (
            "engine.lane_frames.read_down",
            lane_frames.read_down,
            (_body(lane_frames.down_frame(1, "it ended", is_fault=True)),),
        ),
        ("hidden_form.unpack", _handed_rows, (_handed(FORM_F32), _handed(FORM_BF16))),
        ("engine.messages.read_vocabulary", _vocabulary, (_body(messages.vocabulary_frame(1, _VOCABULARY)),)),
    ]
    made = [Decoder(f"local_worker.{name}", "worker", read, examples) for name, read, examples in table]
    files: list[tuple[str, Callable[[bytes], object], tuple[bytes, ...]]] = [
        ("engine.messages.read_ready", messages.read_ready, (as_json(asdict(_INFO)),)),
        ("keys.load_keys", through_file(lambda path: load_keys(path.parent), "keys.json"), (_keys(),)),
        (
            "status.read_status",
            through_file(lambda path: read_status(path.parent), "status.json"),
            (as_json({"state": "serving"}),),
        ),
    ]
    made += [
        Decoder(f"local_worker.{name}", "worker-json", read, examples, is_json=True)
        for name, read, examples in files
    ]
    return [
        *made,
        Decoder("dllm_protocol.session.provider.ProviderLeg.receive", "channel", _to_provider, (asked,)),
        Decoder("dllm_protocol.session.client.ClientLeg.receive", "channel", _to_client, (answered,)),
        Decoder("dllm_protocol.lane.LaneStream.feed", "channel", _over_lane, (_lane_bytes(),)),
        Decoder("dllm_protocol.lane.LaneMessage.token", "channel", _lane_message, tuple(over_lane)),
    ]


def _keys() -> bytes:
    """A key file as `dllm-worker init` writes it."""
    with tempfile.TemporaryDirectory() as folder:
        create_keys(Path(folder))
        return key_file(Path(folder)).read_bytes()
