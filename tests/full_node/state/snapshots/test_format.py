"""The snapshot format: recorded vectors, and nothing but the one form is read."""

from __future__ import annotations

import json
import zlib

import pytest

from full_node.state.snapshots.format import (
    CHUNK_BYTES,
    CHUNKS_MAX,
    KEY_BYTES_MAX,
    PACKED_BYTES_MAX,
    VALUE_BYTES_MAX,
    Manifest,
    PairReader,
    SnapshotRefused,
    describe,
    encode_pair,
    pack_chunk,
    unpack_chunk,
)
from tests.vectors.record_snapshots import FILE, examples

PAIRS = [(b"a", b"1"), (b"key", b"x" * 300), (b"b" * KEY_BYTES_MAX, b"2")]
STREAM = b"".join(encode_pair(*pair) for pair in PAIRS)


def test_nothing_differs_from_the_record() -> None:
    assert examples() == json.loads(FILE.read_text("utf-8"))


@pytest.mark.parametrize("step", [1, 2, 5, 7, 100, len(STREAM)])
def test_pairs_are_read_wherever_the_stream_is_cut(step: int) -> None:
    reader = PairReader()
    found = [pair for at in range(0, len(STREAM), step) for pair in reader.feed(STREAM[at : at + step])]
    assert found == PAIRS
    assert reader.is_between_pairs


def test_an_unfinished_pair_is_noticed() -> None:
    reader = PairReader()
    assert list(reader.feed(STREAM[:-1])) == PAIRS[:2]
    assert not reader.is_between_pairs


@pytest.mark.parametrize(
    ("key_bytes", "value_bytes"),
    [(0, 1), (1, 0), (KEY_BYTES_MAX + 1, 1), (1, VALUE_BYTES_MAX + 1), (65_535, 0xFFFFFFFF)],
)
def test_lengths_out_of_bounds_are_refused_before_their_bytes_come(key_bytes: int, value_bytes: int) -> None:
    head = key_bytes.to_bytes(2, "big") + value_bytes.to_bytes(4, "big")
    with pytest.raises(SnapshotRefused, match="a pair says"):
        list(PairReader().feed(head))


def test_a_pair_that_does_not_fit_is_not_written() -> None:
    with pytest.raises(SnapshotRefused):
        encode_pair(b"k" * (KEY_BYTES_MAX + 1), b"v")
    with pytest.raises(SnapshotRefused):
        encode_pair(b"k", b"")


@pytest.mark.parametrize("content", [b"", b"a", b"\x00" * CHUNK_BYTES])
def test_chunks_are_packed_and_unpacked(content: bytes) -> None:
    assert unpack_chunk(pack_chunk(content), len(content)) == content


def test_the_least_compressible_chunk_fits_the_bound() -> None:
    noise = bytes((at * at * 2_654_435_761 >> 13) & 0xFF for at in range(CHUNK_BYTES))
    assert len(pack_chunk(noise)) <= PACKED_BYTES_MAX
    stored = zlib.compress(noise, 0)
    assert len(stored) <= PACKED_BYTES_MAX
    assert unpack_chunk(stored, CHUNK_BYTES) == noise


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(zlib.compress(bytes(1 << 28)), id="a bomb"),
        pytest.param(b"x" * (PACKED_BYTES_MAX + 1), id="too long"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"not zlib at all", id="not zlib"),
        pytest.param(zlib.compress(b"a" * 9), id="too short"),
        pytest.param(zlib.compress(b"a" * 11), id="a byte more"),
        pytest.param(zlib.compress(b"a" * 10)[:-1], id="truncated"),
        pytest.param(zlib.compress(b"a" * 10) + b"x", id="something behind"),
    ],
)
def test_a_chunk_that_is_not_one_stream_of_the_promised_length_is_refused(packed: bytes) -> None:
    with pytest.raises(SnapshotRefused):
        unpack_chunk(packed, 10)


def test_the_largest_manifest_fits_a_message_of_the_engine() -> None:
    largest = Manifest(1, "c" * 50, 1 << 60, b"\x01" * 32, 1 << 60, 1 << 60, (b"\x01" * 32,) * CHUNKS_MAX)
    snapshot = describe(largest)
    assert len(snapshot.metadata) < 4_000_000 - 1_000
    assert Manifest.decode(snapshot.metadata) == largest
