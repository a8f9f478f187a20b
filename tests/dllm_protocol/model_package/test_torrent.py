"""Torrents of pieces: derived by everybody alike, and the same as libtorrent's own."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.model_manifest import PIECE_BLOCK, Piece, piece_root
from dllm_protocol.model_package.errors import PieceRefused
from dllm_protocol.model_package.torrent import (
    PIECE_BYTES_MAX,
    SPAN_BYTES_MAX,
    SPAN_BYTES_MIN,
    SPANS_MAX,
    PieceHashes,
    bencode,
    check_spans,
    info_hash,
    span_bytes,
    span_count,
    torrent_info,
)
from tests.dllm_protocol.test_model_manifest import reference_root
from tests.vectors.record_torrents import FILE, content, examples

RECORDED: dict[str, Any] = json.loads(FILE.read_text("utf-8"))


def hashed(data: bytes, *portions: int) -> PieceHashes:
    """The hashes of a piece that goes by in portions."""
    hashes = PieceHashes(len(data))
    at = 0
    for portion in portions:
        hashes.update(data[at : at + portion])
        at += portion
    hashes.update(data[at:])
    return hashes


@pytest.mark.conformance("own-golden-vectors")
def test_nothing_differs_from_the_record() -> None:
    assert examples() == RECORDED


@pytest.mark.conformance("own-golden-vectors")
@pytest.mark.parametrize("told", RECORDED["torrents"], ids=lambda told: str(told["size_bytes"]))
def test_recorded_hashes_are_those_of_bep_52(told: dict[str, Any]) -> None:
    """Said plainly: leaves of 16 KiB; each span's tree, the last one filled up with zero hashes; all of it again."""
    data, span = content(told["size_bytes"]), told["span_bytes"]
    leaves = [sha256(data[at : at + 16384]).digest() for at in range(0, len(data), 16384)]
    assert reference_root(leaves).hex() == told["root"] == piece_root([data]).hex()
    width = span // 16384
    spans = [
        reference_root([*leaves[at : at + width], *([bytes(32)] * (width - len(leaves[at : at + width])))])
        for at in range(0, len(leaves), width)
    ]
    assert told["spans"] == (b"".join(spans).hex() if len(spans) > 1 else "")


@pytest.mark.conformance("libtorrent")
@pytest.mark.parametrize("told", RECORDED["torrents"], ids=lambda told: str(told["size_bytes"]))
def test_libtorrent_makes_the_same_torrent_of_the_same_file(told: dict[str, Any], tmp_path: Any) -> None:
    lt = pytest.importorskip("libtorrent", reason="needs libtorrent")
    (tmp_path / told["root"]).write_bytes(content(told["size_bytes"]))
    files = lt.file_storage()
    files.add_file(told["root"], told["size_bytes"])
    making = lt.create_torrent(files, told["span_bytes"], lt.create_torrent.v2_only)
    lt.set_piece_hashes(making, str(tmp_path))
    made = making.generate()
    assert lt.bencode(made[b"info"]).hex() == told["info"]
    layers = {bytes.fromhex(told["root"]): bytes.fromhex(told["spans"])} if told["spans"] else {}
    assert made.get(b"piece layers", {}) == layers
    read = lt.load_torrent_buffer(bencode({b"info": made[b"info"], b"piece layers": layers}))
    assert str(read.ti.info_hashes().v2) == told["info hash"]
    assert not read.ti.info_hashes().has_v1()


@pytest.mark.conformance("libtorrent")
@pytest.mark.parametrize("told", RECORDED["large"], ids=lambda told: str(told["size_bytes"]))
def test_libtorrent_takes_the_largest_ones(told: dict[str, Any]) -> None:
    lt = pytest.importorskip("libtorrent", reason="needs libtorrent")
    resume = {
        b"file-format": b"libtorrent resume file",
        b"file-version": 1,
        b"info-hash2": bytes.fromhex(told["info hash"]),
        b"info": lt.bdecode(bytes.fromhex(told["info"])),
    }
    read = lt.read_resume_data(lt.bencode(resume))
    assert (read.ti.files().file_size(0), read.ti.piece_length()) == (told["size_bytes"], told["span_bytes"])
    assert str(read.ti.info_hashes().v2) == told["info hash"]


@given(st.integers(1, 3 * SPAN_BYTES_MIN), st.lists(st.integers(0, SPAN_BYTES_MIN + 5), max_size=5))
def test_however_the_bytes_go_by_the_hashes_are_the_same(size: int, portions: list[int]) -> None:
    data = bytes(size - 1) + b"\x01"
    hashes, whole = hashed(data, *portions), hashed(data)
    assert (hashes.root(), hashes.spans()) == (whole.root(), whole.spans())
    assert hashes.root() == piece_root([data]) and hashes.size_bytes == size


@given(st.integers(1, PIECE_BYTES_MAX))
def test_spans_are_few_and_no_longer_than_needed(size: int) -> None:
    length = span_bytes(size)
    assert length.bit_count() == 1 and SPAN_BYTES_MIN <= length <= SPAN_BYTES_MAX
    assert span_count(size) <= SPANS_MAX
    assert length == SPAN_BYTES_MIN or length // 2 * SPANS_MAX < size


@pytest.mark.parametrize("size", [0, PIECE_BYTES_MAX + 1, (1 << 64) - 1])
def test_a_piece_that_cannot_travel(size: int) -> None:
    piece = Piece(PIECE_BLOCK, 0, size, bytes(32))
    for refused in (lambda: span_bytes(size), lambda: torrent_info(piece), lambda: PieceHashes(size)):
        with pytest.raises(PieceRefused, match=f"a piece of {size} bytes cannot travel"):
            refused()


def test_another_size_or_root_is_another_swarm() -> None:
    piece = Piece(PIECE_BLOCK, 0, 5, bytes(32))
    others = (replace(piece, size_bytes=6), replace(piece, root=bytes([1]) * 32))
    assert len({info_hash(one) for one in (piece, *others)}) == 3
    assert info_hash(replace(piece, index=7, kind=5)) == info_hash(piece)


def test_hashes_of_spans_lead_to_the_root_or_are_refused() -> None:
    data = content(2 * SPAN_BYTES_MIN + 17)
    hashes = hashed(data)
    piece = Piece(PIECE_BLOCK, 3, len(data), hashes.root())
    spans = hashes.spans()
    check_spans(piece, spans)
    for at in (0, 40, len(spans) - 1):
        bent = bytearray(spans)
        bent[at] ^= 1
        with pytest.raises(PieceRefused, match="block 3 lead to root"):
            check_spans(piece, bytes(bent))
    for wrong in (b"", spans[:-1], spans + bytes(32), spans[:-32]):
        with pytest.raises(PieceRefused, match=f"has {len(wrong)} bytes of span hashes, 96 fit its size"):
            check_spans(piece, wrong)
    small = Piece(PIECE_BLOCK, 3, 5, piece_root([b"small"]))
    check_spans(small, b"")
    with pytest.raises(PieceRefused, match="0 fit its size"):
        check_spans(small, small.root)


def test_more_bytes_than_a_piece_has_are_counted_and_fit_nothing() -> None:
    hashes = PieceHashes(5)
    hashes.update(bytes(SPAN_BYTES_MIN))
    hashes.update(b"more")
    assert hashes.size_bytes == SPAN_BYTES_MIN + 4


def test_bencoding_is_bep_3s() -> None:
    assert bencode({b"b": 0, b"a": b"xy", b"": {b"n": -7}}) == b"d0:d1:ni-7ee1:a2:xy1:bi0ee"
