"""Manifests and BitTorrent v2 roots."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.errors import MalformedBytes
from dllm_protocol.model_manifest import (
    BLOCK_BYTES,
    PIECE_PROBE,
    Manifest,
    Piece,
    is_cut_in_order,
    manifest_hash,
    piece_order,
    piece_root,
    probe_of,
    version_for,
)
from tests.vectors.record_formats import MANIFEST


def reference_root(leaves: list[bytes]) -> bytes:
    """BEP 52, said plainly: pad the leaves with zero hashes to a power of two, then hash pairs."""
    width = 1
    while width < len(leaves):
        width *= 2
    level = leaves + [bytes(32)] * (width - len(leaves))
    while len(level) > 1:
        level = [sha256(level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
    return level[0]


@pytest.mark.parametrize("count", range(1, 19))
def test_roots_are_those_of_bittorrent_v2(count: int) -> None:
    blocks = [bytes([number]) * BLOCK_BYTES for number in range(count - 1)] + [b"rest"]
    assert piece_root(blocks) == reference_root([sha256(block).digest() for block in blocks])


def test_one_block_is_its_own_hash_and_none_has_no_root() -> None:
    assert piece_root([b"x"]) == sha256(b"x").digest()
    assert piece_root([]) == bytes(32)


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=9), st.integers(0, 8))
def test_any_changed_block_changes_the_root(blocks: list[bytes], which: int) -> None:
    changed = list(blocks)
    changed[which % len(blocks)] += b"!"
    assert piece_root(iter(changed)) != piece_root(iter(blocks))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "guide-2"},
        {"layers": 5},
        {"vocabulary_hash": bytes(32)},
        {"chat_template": "plain"},
        {"licence": "MIT"},
        {"pieces": (Piece(1, 0, 5_000_000, bytes(32)),)},
    ],
)
def test_another_manifest_is_another_model(change: dict[str, Any]) -> None:
    assert manifest_hash(replace(MANIFEST, **change)) != manifest_hash(MANIFEST)


@pytest.mark.parametrize(
    "change", [{"version": 0}, {"version": 3}, {"name": "UP"}, {"layers": 513}, {"pieces": ()}]
)
def test_a_manifest_outside_its_bounds_is_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedBytes):
        replace(MANIFEST, **change).encode()


@pytest.mark.parametrize("kind", [0, 7])
def test_a_piece_is_of_a_known_kind(kind: int) -> None:
    with pytest.raises(MalformedBytes, match="kind"):
        Piece(kind, 0, 1, bytes(32)).encode()


def pieces_of(order: list[tuple[int, int]]) -> tuple[Piece, ...]:
    return tuple(Piece(kind, index, 1, bytes(32)) for kind, index in order)


def test_a_probe_may_stand_behind_the_pieces_and_makes_a_manifest_of_the_second_version() -> None:
    plain, probe = piece_order(3), (PIECE_PROBE, 0)
    for order, in_order, version in (
        (plain, True, 1),
        ([*plain, probe], True, 2),
        ([probe, *plain], False, 2),
        ([*plain, probe, probe], False, 2),
        ([*plain[:-1], probe], False, 2),
        ([*plain, (PIECE_PROBE, 1)], False, 2),
        ([(1, 0)], False, 1),
    ):
        manifest = replace(MANIFEST, layers=3, pieces=pieces_of(order))
        assert (is_cut_in_order(manifest), version_for(manifest.pieces)) == (in_order, version)
        assert (probe_of(manifest) is not None) == (version == 2)


def test_the_longest_manifest_can_have_a_probe() -> None:
    order = [*piece_order(512), (PIECE_PROBE, 0)]
    longest = replace(MANIFEST, version=2, layers=512, pieces=pieces_of(order))
    assert Manifest.decode(longest.encode()) == longest


def test_manifests_from_before_probes_are_read_as_they_were() -> None:
    """Migration: version 1 keeps its bytes and so its models their ids."""
    raw = MANIFEST.encode()
    assert raw[:2] == b"\x08\x01"
    assert Manifest.decode(raw) == MANIFEST
