"""Strict reading: whole input first, then byte by byte, and only declared errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.block import Block
from dllm_protocol.block_errors import MalformedBlock
from dllm_protocol.comet_wire import BYTES, VARINT, bytes_field, read_fields, varint_field
from dllm_protocol.commit import BlockID, Commit, CommitSig
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.evidence import Vote, decode_evidence
from dllm_protocol.header import Header
from dllm_protocol.timestamp import Timestamp
from dllm_protocol.validator_set import Validator, ValidatorSet
from tests.vectors.record_consensus import made_chain, made_evidence

CHAIN = made_chain()
EVIDENCE = made_evidence(CHAIN)
BLOCK = Block(CHAIN.blocks[4].header, (b"tx",), (EVIDENCE,), CHAIN.commits[3])
SHAPE = {1: VARINT, 2: BYTES}
DECODERS: list[Callable[[bytes], object]] = [
    Block.decode,
    Header.decode,
    Commit.decode,
    CommitSig.decode,
    BlockID.decode,
    Vote.decode,
    decode_evidence,
    Validator.decode,
    ValidatorSet.decode,
    Timestamp.decode,
]


def test_values_are_read() -> None:
    fields = read_fields("M", varint_field(1, -5) + bytes_field(2, "ü".encode()), SHAPE)
    assert fields.signed(1) == -5
    assert fields.text(2) == "ü"
    assert read_fields("M", b"", SHAPE).unsigned(1) == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x18\x01", "field 3 of wire type 0 is unknown"),
        (b"\x0a\x00", "field 1 of wire type 2 is unknown"),
        (b"\x08\x01\x08\x02", "field 1 comes after field 1"),
        (b"\x12\x01a\x08\x01", "field 1 comes after field 2"),
        (b"\x08\x00", "although it is zero"),
        (b"\x08\x81\x00", "padded"),
        (b"\x08", "cut short"),
        (b"\x12\x05a", "claims 5 bytes"),
    ],
)
def test_what_a_canonical_writer_would_not_write_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(MalformedBlock, match=words):
        read_fields("M", data, SHAPE)


def test_bounds_are_kept() -> None:
    fields = read_fields("M", varint_field(1, 300) + bytes_field(2, b"\xff"), SHAPE)
    with pytest.raises(MalformedBlock, match="above 299"):
        fields.unsigned(1, 299)
    with pytest.raises(MalformedBlock, match="outside"):
        fields.signed(1, 200)
    with pytest.raises(MalformedBlock, match="not UTF-8"):
        fields.text(2)


@given(st.binary(max_size=200))
def test_anything_at_all_raises_only_declared_errors(data: bytes) -> None:
    for decode in DECODERS:
        try:
            found = decode(data)
        except MalformedBytes:
            continue
        encode = getattr(found, "encode", None)
        assert encode is None or decode is decode_evidence or encode() == data


@given(st.data())
def test_a_changed_byte_is_refused_or_read_as_another_block(data: st.DataObject) -> None:
    encoded = bytearray(BLOCK.encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        found = Block.decode(bytes(encoded))
    except MalformedBytes:
        return
    assert found != BLOCK
    assert found.encode() == bytes(encoded)
