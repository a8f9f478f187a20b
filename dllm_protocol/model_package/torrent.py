"""A piece of a model as a torrent of its own [format]: BitTorrent v2 (BEP 52), made out of the manifest alone.

    info = {"file tree": {ROOT: {"": {"length": size_bytes, "pieces root": root}}},
            "meta version": 2, "name": ROOT, "piece length": span_bytes(size_bytes)}

ROOT is the piece's root in hexadecimal. Everybody who knows the manifest has the same info, so the same info-hash, and
meets in the same swarm. What BitTorrent calls a piece, a run of a file's bytes with a hash of its own, is a span here.
"""

from __future__ import annotations

import hashlib
from typing import Final

from dllm_protocol.model_manifest import BLOCK_BYTES, Piece, PieceRoot
from dllm_protocol.model_package.errors import PieceRefused
from dllm_protocol.model_package.layout import piece_name

SPAN_BYTES_MIN: Final = 256 * 1024
SPANS_MAX: Final = 16_384
SPAN_BYTES_MAX: Final = 64 * 1024 * 1024
PIECE_BYTES_MAX: Final = SPANS_MAX * SPAN_BYTES_MAX
"""The largest piece that can travel: a tebibyte."""
HASH_BYTES: Final = 32

Bencoded = int | bytes | dict[bytes, "Bencoded"]


def span_bytes(size_bytes: int) -> int:
    """Length of a span: the least power of two from 256 KiB on that makes no more than 16,384 of them.

    Raises:
        PieceRefused: a piece of no bytes, or of more than `PIECE_BYTES_MAX`.
    """
    if not 1 <= size_bytes <= PIECE_BYTES_MAX:
        raise PieceRefused(
            f"a piece of {size_bytes} bytes cannot travel, 1 to {PIECE_BYTES_MAX} are possible"
        )
    found = SPAN_BYTES_MIN
    while found * SPANS_MAX < size_bytes:
        found *= 2
    return found


def span_count(size_bytes: int) -> int:
    """How many spans a piece has.

    Raises:
        PieceRefused: as `span_bytes`.
    """
    return -(-size_bytes // span_bytes(size_bytes))


def torrent_name(piece: Piece) -> str:
    """The torrent's name, and that of its one file: nothing in it that a stranger chose."""
    return piece.root.hex()


def torrent_info(piece: Piece) -> dict[bytes, Bencoded]:
    """The info dictionary.

    Raises:
        PieceRefused: as `span_bytes`.
    """
    name = torrent_name(piece).encode()
    file: dict[bytes, Bencoded] = {b"length": piece.size_bytes, b"pieces root": piece.root}
    return {
        b"file tree": {name: {b"": file}},
        b"meta version": 2,
        b"name": name,
        b"piece length": span_bytes(piece.size_bytes),
    }


def info_hash(piece: Piece) -> bytes:
    """What the piece's swarm is found by (32 bytes; BitTorrent v2's info-hash).

    Raises:
        PieceRefused: as `span_bytes`.
    """
    return hashlib.sha256(bencode(torrent_info(piece))).digest()


def bencode(value: Bencoded) -> bytes:
    """BitTorrent's encoding of numbers, bytes and dictionaries (BEP 3): keys in ascending order."""
    if isinstance(value, dict):
        return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    return b"i%de" % value


class PieceHashes:
    """Computes a piece's root and the hashes of its spans while its bytes go by."""

    def __init__(self, expected_bytes: int) -> None:
        """
        Args:
            expected_bytes: the piece's size by the manifest, which decides how long a span is.

        Raises:
            PieceRefused: as `span_bytes`.
        """
        self.size_bytes = 0
        self._is_one_span = span_count(expected_bytes) == 1
        self._span_bytes = span_bytes(expected_bytes)
        self._current = PieceRoot()
        self._spans = bytearray()

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes, however many."""
        self.size_bytes += len(data)
        view = memoryview(data)
        while view:
            portion = view[: self._span_bytes - self._current.size_bytes]
            self._current.update(portion)
            view = view[len(portion) :]
            if self._current.size_bytes == self._span_bytes and not self._is_one_span:
                self._spans += self._current.root()
                self._current = PieceRoot()
            elif self._current.size_bytes == self._span_bytes and view:
                # Longer than it may be: no root will fit it, and nobody needs to know which it has.
                return

    def spans(self) -> bytes:
        """The hashes of all spans, one behind the other (BEP 52's piece layer); none of a piece of one span."""
        if self._is_one_span:
            return b""
        if not self._current.size_bytes:
            return bytes(self._spans)
        height = (-(-self._current.size_bytes // BLOCK_BYTES) - 1).bit_length()
        last = self._current.root()
        for level in range(height, _height(self._span_bytes)):
            last = hashlib.sha256(last + _nothing(level)).digest()
        return bytes(self._spans) + last

    def root(self) -> bytes:
        """The root of all bytes so far (32 bytes)."""
        return self._current.root() if self._is_one_span else _root_of(self.spans(), self._span_bytes)


def check_spans(piece: Piece, spans: bytes) -> None:
    """Compare hashes of spans with the root of the piece that they are said to be of.

    Raises:
        PieceRefused: there are too many or too few, or they lead to another root.
    """
    count = span_count(piece.size_bytes)
    wanted = HASH_BYTES * count if count > 1 else 0
    name = piece_name(piece.kind, piece.index)
    if len(spans) != wanted:
        raise PieceRefused(f"piece {name} has {len(spans)} bytes of span hashes, {wanted} fit its size")
    if wanted and (found := _root_of(spans, span_bytes(piece.size_bytes))) != piece.root:
        raise PieceRefused(
            f"the span hashes of piece {name} lead to root {found.hex()}, the manifest says {piece.root.hex()}"
        )


def _root_of(spans: bytes, length: int) -> bytes:
    level = [spans[at : at + HASH_BYTES] for at in range(0, len(spans), HASH_BYTES)]
    height = _height(length)
    while len(level) > 1:
        if len(level) % 2:
            level.append(_nothing(height))
        level = [hashlib.sha256(level[at] + level[at + 1]).digest() for at in range(0, len(level), 2)]
        height += 1
    return level[0] if level else bytes(HASH_BYTES)


def _height(length: int) -> int:
    """Levels of the tree below a span of so many bytes."""
    return (length // BLOCK_BYTES).bit_length() - 1


def _nothing(height: int) -> bytes:
    """The root of a tree of that height without any block in it."""
    found = bytes(HASH_BYTES)
    for _ in range(height):
        found = hashlib.sha256(found + found).digest()
    return found
