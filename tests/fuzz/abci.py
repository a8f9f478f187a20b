"""Decoders of ABCI messages and of snapshots: CometBFT passes on what peers sent."""

from __future__ import annotations

from collections.abc import Callable

from dllm_protocol.comet_wire import bytes_field, message_field, varint_field
from dllm_protocol.consensus_params import ConsensusParams
from dllm_protocol.timestamp import Timestamp
from full_node.consensus.abci import types
from full_node.consensus.abci.framing import Frames, delimited
from full_node.consensus.abci.requests import decode_request
from full_node.state.snapshots.format import PairReader, describe, encode_pair, pack_chunk, unpack_chunk
from tests.fuzz.decoder import Decoder
from tests.fuzz.records import example, record_types

_TIME = Timestamp(1_790_000_000, 5).encode()
_VALIDATOR = bytes_field(1, b"\x07" * 20) + varint_field(3, 10)
_VOTE = message_field(1, _VALIDATOR) + varint_field(3, 2)
_COMMIT = varint_field(1, 1) + message_field(2, _VOTE)
_EXTENDED = message_field(2, message_field(1, _VALIDATOR) + varint_field(5, 2))
_OFFENCE = (
    varint_field(1, 1)
    + message_field(2, _VALIDATOR)
    + varint_field(3, 9)
    + message_field(4, _TIME)
    + varint_field(5, 40)
)
_POWER = types.ValidatorPower(b"\x07" * 32, 10).encode()
_CONTENT = encode_pair(b"key", b"value") * 3


def _block(number: int) -> bytes:
    body = (
        message_field(1, b"tx")
        + message_field(2, _COMMIT)
        + message_field(3, _OFFENCE)
        + bytes_field(4, b"\x01" * 32)
        + varint_field(5, 7)
        + message_field(6, _TIME)
        + bytes_field(7, b"\x02" * 32)
        + bytes_field(8, b"\x03" * 20)
    )
    return message_field(number, body)


def _requests() -> tuple[bytes, ...]:
    snapshot = message_field(1, _snapshot()) + bytes_field(2, b"\x01" * 32)
    init = (
        message_field(1, _TIME)
        + bytes_field(2, b"chain")
        + bytes_field(3, _params())
        + message_field(4, _POWER)
        + bytes_field(5, b"{}")
        + varint_field(6, 1)
    )
    prepare = (
        varint_field(1, 1000)
        + message_field(2, b"tx")
        + message_field(3, _EXTENDED)
        + message_field(4, _OFFENCE)
        + varint_field(5, 7)
        + message_field(6, _TIME)
    )
    query = bytes_field(1, b"key") + bytes_field(2, b"/store") + varint_field(3, 7) + varint_field(4, 1)
    return (
        _block(20),
        _block(17),
        message_field(5, init),
        message_field(16, prepare),
        message_field(6, query),
        message_field(13, snapshot),
        message_field(15, varint_field(1, 1) + bytes_field(2, b"chunk") + bytes_field(3, b"peer")),
        message_field(8, bytes_field(1, b"tx") + varint_field(2, 1)),
        message_field(2, b""),
    )


def _params() -> bytes:
    """ConsensusParams as CometBFT sends them, of our defaults."""
    params = ConsensusParams()
    block = varint_field(1, params.block.block_max_bytes) + varint_field(2, params.block.block_max_gas)
    age = varint_field(1, params.evidence_max_age_ns // types.NS_PER_SECOND)
    evidence = varint_field(1, params.evidence_max_age_blocks) + message_field(2, age)
    return message_field(1, block) + message_field(2, evidence)


def _snapshot() -> bytes:
    manifest = next(one for one in record_types() if one.__module__.startswith("full_node.state.snapshots"))
    return types.encode_snapshot(describe(example(manifest)))  # type: ignore[arg-type]  # the only record there


def _frames(data: bytes) -> None:
    """Whole, and byte by byte: the cuts must not matter."""
    whole = Frames().feed(data)
    cut, pieces = Frames(), []
    for at in range(len(data[:4096])):
        pieces += cut.feed(data[at : at + 1])
    assert pieces == whole or len(data) > 4096


def _pairs(data: bytes) -> None:
    list(PairReader().feed(data))


def decoders() -> list[Decoder]:
    """ABCI and snapshots."""
    table: list[tuple[str, Callable[[bytes], object], tuple[bytes, ...]]] = [
        ("consensus.abci.requests.decode_request", decode_request, _requests()),
        ("consensus.abci.types.ValidatorPower.decode", types.ValidatorPower.decode, (_POWER,)),
        ("consensus.abci.types.CommitInfo.decode", types.CommitInfo.decode, (_COMMIT,)),
        ("consensus.abci.types.CommitInfo.decode_extended", types.CommitInfo.decode_extended, (_EXTENDED,)),
        ("consensus.abci.types.Offence.decode", types.Offence.decode, (_OFFENCE,)),
        ("consensus.abci.types.decode_snapshot", types.decode_snapshot, (_snapshot(),)),
        ("consensus.abci.types.decode_consensus_params", types.decode_consensus_params, (_params(),)),
        ("consensus.abci.framing.Frames.feed", _frames, (delimited(_requests()[0]) * 2,)),
        (
            "state.snapshots.format.unpack_chunk",
            lambda data: unpack_chunk(data, len(_CONTENT)),
            (pack_chunk(_CONTENT), pack_chunk(bytes(1 << 20))),
        ),
        ("state.snapshots.format.PairReader.feed", _pairs, (_CONTENT,)),
    ]
    return [Decoder(f"full_node.{name}", "abci", read, examples) for name, read, examples in table]
