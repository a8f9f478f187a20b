"""What a snapshot of the state is made of [format 1]; see docs/protocol/snapshots.md.

The state's pairs at one height, ascending by their place in the tree (sha256 of the key), are written one after
the other and the stream is cut every `CHUNK_BYTES`. The manifest names height, root and the hash of each chunk's
content. It does not cover how a chunk is compressed on its way, so that two nodes with different builds of zlib
still offer the same snapshot, and its chunks can come from both.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from dllm_protocol.encoding import HASH, U64, FormatVersion, ListOf, Record, Text, record, wire
from dllm_protocol.errors import VerificationFailed
from dllm_protocol.hashing import Tag, tagged_hash

FORMAT = 1
CHUNK_BYTES = 1 << 20
CHUNKS_MAX = 1 << 16
"""64 GiB of state; a manifest of so many chunks is 2.2 MiB, CometBFT carries 4 MB."""
PACKED_BYTES_MAX = CHUNK_BYTES + (CHUNK_BYTES >> 8)
"""Deflate never grows its input by more than a few bytes in 16 KiB."""
KEY_BYTES_MAX = 1 << 10
VALUE_BYTES_MAX = 1 << 24
_KEY_LENGTH_BYTES = 2
_VALUE_LENGTH_BYTES = 4
_ZLIB_LEVEL = 3
_CHAIN_ID = Text(50, minimum=1)


class SnapshotRefused(VerificationFailed):
    """A snapshot is not what its manifest, or a trusted root, says."""

    code = "E_SNAPSHOT"


@record
class Manifest(Record):
    """What a snapshot claims to be; its hash is the snapshot's identity."""

    format: int = wire(1, FormatVersion(FORMAT, minimum=FORMAT))
    chain_id: str = wire(2, _CHAIN_ID)
    height: int = wire(3, U64)
    root: bytes = wire(4, HASH)
    """The state's root after this height: the app hash in header height + 1."""
    pairs: int = wire(5, U64)
    content_bytes: int = wire(6, U64)
    """Length of the whole stream."""
    chunk_hashes: tuple[bytes, ...] = wire(7, ListOf(HASH, CHUNKS_MAX))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot as nodes tell each other of it; fields as in ABCI's Snapshot."""

    height: int
    format: int
    chunks: int
    hash: bytes
    metadata: bytes
    """The manifest's canonical bytes."""


def snapshot_hash(metadata: bytes) -> bytes:
    """A snapshot's identity (32 bytes) from its manifest's bytes."""
    return tagged_hash(Tag.STATE_SNAPSHOT, metadata)


def chunk_hash(content: bytes) -> bytes:
    """Hash (32 bytes) of a chunk's content, before compression."""
    return tagged_hash(Tag.SNAPSHOT_CHUNK, content)


def describe(manifest: Manifest) -> Snapshot:
    """How a snapshot with this manifest is offered."""
    metadata = manifest.encode()
    return Snapshot(
        manifest.height, manifest.format, len(manifest.chunk_hashes), snapshot_hash(metadata), metadata
    )


def encode_pair(key: bytes, value: bytes) -> bytes:
    """A pair's bytes in the stream: lengths (2 and 4 bytes, big endian) before key and value.

    Raises:
        SnapshotRefused: too long for the format.
    """
    if not 0 < len(key) <= KEY_BYTES_MAX or not 0 < len(value) <= VALUE_BYTES_MAX:
        raise SnapshotRefused(
            f"a pair has {len(key)} + {len(value)} bytes, 1…{KEY_BYTES_MAX} + 1…{VALUE_BYTES_MAX} fit"
        )
    return (
        len(key).to_bytes(_KEY_LENGTH_BYTES, "big")
        + len(value).to_bytes(_VALUE_LENGTH_BYTES, "big")
        + key
        + value
    )


class PairReader:
    """Takes the stream in pieces and gives the pairs that are whole; holds at most one unfinished pair."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def is_between_pairs(self) -> bool:
        """Whether no pair is unfinished."""
        return not self._rest

    def feed(self, content: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yields (key, value) of every pair that ends in `content`. Raises SnapshotRefused."""
        data = self._rest + content
        at, end = 0, len(data)
        head = _KEY_LENGTH_BYTES + _VALUE_LENGTH_BYTES
        while end - at >= head:
            key_bytes = int.from_bytes(data[at : at + _KEY_LENGTH_BYTES], "big")
            value_bytes = int.from_bytes(data[at + _KEY_LENGTH_BYTES : at + head], "big")
            if not 0 < key_bytes <= KEY_BYTES_MAX or not 0 < value_bytes <= VALUE_BYTES_MAX:
                raise SnapshotRefused(
                    f"a pair says {key_bytes} + {value_bytes} bytes, "
                    f"allowed are 1…{KEY_BYTES_MAX} + 1…{VALUE_BYTES_MAX}"
                )
            middle = at + head + key_bytes
            if middle + value_bytes > end:
                break
            yield data[at + head : middle], data[middle : middle + value_bytes]
            at = middle + value_bytes
        self._rest = data[at:]


def pack_chunk(content: bytes) -> bytes:
    """A chunk as it is stored and sent: zlib."""
    return zlib.compress(content, _ZLIB_LEVEL)


def unpack_chunk(packed: bytes, content_bytes: int) -> bytes:
    """A chunk's content, never more than the `content_bytes` (≤ CHUNK_BYTES) that it must have.

    Raises:
        SnapshotRefused: not one zlib stream of exactly that content.
    """
    if len(packed) > PACKED_BYTES_MAX:
        raise SnapshotRefused(f"a chunk has {len(packed)} bytes, at most {PACKED_BYTES_MAX} are allowed")
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, content_bytes + 1)
    except zlib.error as error:
        raise SnapshotRefused(f"a chunk is not a zlib stream: {error}") from error
    if len(content) != content_bytes or not stream.eof or stream.unused_data:
        raise SnapshotRefused(
            f"a chunk unpacks to {len(content)}{'' if stream.eof else ' or more'} bytes, "
            f"the manifest says {content_bytes}"
        )
    return content
