"""Snapshots are taken of one height while the chain goes on, and lie whole on the shelf."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dllm_protocol.errors import UsageRefused
from dllm_protocol.jmt import root_of
from full_node.state.snapshots import Shelf, SnapshotSettings, SnapshotTaker, take_snapshot
from full_node.state.snapshots.format import CHUNK_BYTES, Manifest, PairReader, unpack_chunk
from full_node.state.snapshots.taking import HeightGone, SnapshotUnwanted
from full_node.state.store import Store
from tests.full_node.state.snapshots.parts import CHAIN, grow, history, in_order, on_shelf

WAIT_S = 120.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "data.db", proof_window=8)
    yield opened
    opened.close()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "snapshots")


def _pairs(shelf: Shelf, manifest: Manifest) -> list[tuple[bytes, bytes]]:
    reader, found = PairReader(), []
    left = manifest.content_bytes
    for index in range(len(manifest.chunk_hashes)):
        size = min(CHUNK_BYTES, left)
        found += list(reader.feed(unpack_chunk(shelf.chunk(manifest.height, index), size)))
        left -= size
    assert reader.is_between_pairs
    return found


def test_a_snapshot_holds_the_state_of_its_height_whatever_came_later(
    store: Store, shelf: Shelf, tmp_path: Path
) -> None:
    states = history(store, 12)
    for height in (5, 8, 11):
        manifest = take_snapshot(tmp_path / "data.db", shelf, CHAIN, height)
        assert _pairs(shelf, manifest) == in_order(states[height].items())
        assert manifest.root == root_of(states[height]) == store.root_at(height)
    assert [one.height for one in shelf.list()] == [11, 8, 5]


def test_two_nodes_with_other_histories_offer_the_same_snapshot(tmp_path: Path) -> None:
    offered = []
    for name, detour in (("one", True), ("two", False)):
        folder = tmp_path / name
        folder.mkdir()
        store, shelf = Store(folder / "data.db"), Shelf(folder / "snapshots")
        grow(store, {b"a": b"1", b"b": b"2", b"c": b"9"} if detour else {b"c": b"3"})
        grow(store, {b"c": b"3"} if detour else {b"a": b"1", b"b": b"2"})
        take_snapshot(folder / "data.db", shelf, CHAIN, 1)
        store.close()
        (snapshot,) = shelf.list()
        offered.append((snapshot, on_shelf(shelf, snapshot)))
    assert offered[0] == offered[1]


def test_a_height_outside_the_window_is_refused_and_leaves_nothing(
    store: Store, shelf: Shelf, tmp_path: Path
) -> None:
    history(store, 20)
    for height in (3, 99):
        with pytest.raises(HeightGone, match=f"height {height} "):
            take_snapshot(tmp_path / "data.db", shelf, CHAIN, height)
    assert list((tmp_path / "snapshots").iterdir()) == []


def test_a_large_state_comes_in_chunks_of_bounded_size(store: Store, shelf: Shelf, tmp_path: Path) -> None:
    grow(store, {b"key/%d" % n: bytes([n]) * 500_000 for n in range(9)})
    manifest = take_snapshot(tmp_path / "data.db", shelf, CHAIN, 0)
    assert len(manifest.chunk_hashes) == 5
    assert len(_pairs(shelf, manifest)) == 9


def test_the_taker_takes_at_the_interval_and_keeps_the_newest(
    store: Store, shelf: Shelf, tmp_path: Path
) -> None:
    taker = SnapshotTaker(tmp_path / "data.db", shelf, CHAIN, SnapshotSettings(every_blocks=2, keep=2))
    for height in range(8):
        grow(store, {b"n": b"%d" % height})
        taker.note_committed(height)
        assert taker.wait(WAIT_S)
    taker.close()
    assert [one.height for one in shelf.list()] == [6, 4]
    assert shelf.chunk(2, 0) == b""


def test_the_taker_is_idle_unless_asked(store: Store, shelf: Shelf, tmp_path: Path) -> None:
    taker = SnapshotTaker(tmp_path / "data.db", shelf, CHAIN, SnapshotSettings())
    grow(store, {b"n": b"0"})
    taker.note_committed(0)
    assert taker.wait(WAIT_S)
    taker.close()
    assert shelf.list() == []


def test_a_snapshot_that_fails_is_logged_and_the_next_one_comes(
    store: Store, shelf: Shelf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taker = SnapshotTaker(tmp_path / "data.db", shelf, CHAIN, SnapshotSettings(every_blocks=1))
    taker.note_committed(77)
    assert taker.wait(WAIT_S)
    grow(store, {b"n": b"0"})
    taker.note_committed(0)
    assert taker.wait(WAIT_S)
    taker.close()
    assert "no snapshot of height 77" in caplog.text
    assert [one.height for one in shelf.list()] == [0]


def test_a_snapshot_that_nobody_wants_any_more_is_given_up(
    store: Store, shelf: Shelf, tmp_path: Path
) -> None:
    grow(store, {b"key/%d" % n: bytes([n]) * 500_000 for n in range(9)})
    asked: list[int] = []

    def after_two_chunks() -> bool:
        asked.append(len(asked))
        return len(asked) > 2

    with pytest.raises(SnapshotUnwanted):
        take_snapshot(tmp_path / "data.db", shelf, CHAIN, 0, after_two_chunks)
    assert len(asked) == 3
    assert list((tmp_path / "snapshots").iterdir()) == []


def test_what_a_crash_left_is_swept_and_never_listed(store: Store, tmp_path: Path) -> None:
    grow(store, {b"a": b"1"})
    shelf = Shelf(tmp_path / "snapshots")
    shelf.begin(5).add(0, b"half")
    (tmp_path / "snapshots" / ".old-1").mkdir()
    take_snapshot(tmp_path / "data.db", shelf, CHAIN, 0)
    assert [one.height for one in shelf.list()] == [0]
    assert [one.height for one in Shelf(tmp_path / "snapshots").list()] == [0]
    assert [one.name for one in (tmp_path / "snapshots").iterdir()] == ["0"]


def test_a_damaged_manifest_is_passed_over(store: Store, shelf: Shelf, tmp_path: Path) -> None:
    grow(store, {b"a": b"1"})
    take_snapshot(tmp_path / "data.db", shelf, CHAIN, 0)
    (tmp_path / "snapshots" / "0" / "manifest").write_bytes(b"\xff")
    assert shelf.list() == []


def test_snapshots_are_private(store: Store, shelf: Shelf, tmp_path: Path) -> None:
    grow(store, {b"a": b"1"})
    take_snapshot(tmp_path / "data.db", shelf, CHAIN, 0)
    for folder, _, files in os.walk(tmp_path / "snapshots"):
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
        assert all(stat.S_IMODE((Path(folder) / name).stat().st_mode) == 0o600 for name in files)


@pytest.mark.parametrize("settings", [{"every_blocks": -1}, {"keep": 0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(UsageRefused):
        SnapshotSettings(**settings)
