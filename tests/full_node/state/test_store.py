"""The store: one transaction a block, a bounded window of proofs, nothing lost to kill -9."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from dllm_protocol.ics23 import verify_membership, verify_non_membership
from dllm_protocol.jmt import root_of
from dllm_protocol.schema_steps import SchemaRefused
from full_node.state.blocks import BlockRecord, SearchTooBroad
from full_node.state.page import StoreDamaged
from full_node.state.store import HeightPruned, Store

CRASHER = Path(__file__).parent / "crashing_writer.py"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "data.db", proof_window=4, cached_pages=8)
    yield opened
    opened.close()


def _record(height: int) -> BlockRecord:
    txs = [sha256(f"{height}/{n}".encode()).digest() for n in range(2)]
    return BlockRecord(
        height=height,
        hash=sha256(str(height).encode()).digest(),
        header=b"header",
        block_id=b"id",
        seen_commit=b"commit",
        block=b"block %d" % height,
        results=b"[]",
        tx_hashes=txs,
        events=[("message.sender", "alice" if height % 2 else "bob", 0), ("message.sender", "carol", 1)],
    )


def _grow(store: Store, changes: Mapping[bytes, bytes | None]) -> bytes:
    version = store.version + 1
    root, batch = store.put(version, changes)
    record = _record(version) if version else None
    store.commit(batch, record, meta={"engine": b"%d" % version}, validator_sets={b"set": b"v"})
    assert (store.version, store.root) == (version, root)
    return root


def _random_history(store: Store, versions: int, seed: int) -> list[dict[bytes, bytes]]:
    rng = random.Random(seed)
    states: list[dict[bytes, bytes]] = []
    state: dict[bytes, bytes] = {}
    for version in range(versions):
        changes: dict[bytes, bytes | None] = {b"always": b"%d" % version}
        for _ in range(20):
            changes[f"key/{rng.randrange(60)}".encode()] = None if rng.random() < 0.4 else rng.randbytes(5)
        root = _grow(store, changes)
        state = {k: v for k, v in {**state, **changes}.items() if v is not None}
        states.append(state)
        assert root == root_of(state)
    return states


def test_values_and_proofs_within_the_window_and_no_others(store: Store) -> None:
    states = _random_history(store, 12, 1)
    for version in range(8, 12):
        root = store.root_at(version)
        assert root == root_of(states[version])
        for number in range(70):
            key = f"key/{number}".encode()
            found = store.prove(key, version)
            assert found.value == states[version].get(key) == store.value_at(key, version)
            if found.value is None:
                verify_non_membership(found.proof, root, key)
            else:
                verify_membership(found.proof, root, key, found.value)
    for version in (0, 7, 12):
        for ask in (
            store.root_at,
            lambda v: store.prove(b"always", v),
            lambda v: store.value_at(b"always", v),
        ):
            with pytest.raises(HeightPruned, match=f"height {version} "):
                ask(version)


def test_pruning_leaves_only_what_the_window_reaches(store: Store, tmp_path: Path) -> None:
    states = _random_history(store, 40, 2)
    with sqlite3.connect(tmp_path / "data.db") as look:
        for version in range(5):
            assert look.execute("SELECT count(*) FROM versions").fetchone()[0] == 4, version
        live = {key for state in states[-4:] for key in state}
        kept = {row[0] for row in look.execute("SELECT DISTINCT key FROM leaves WHERE value IS NOT NULL")}
        assert kept == live
        pages = look.execute("SELECT count(*) FROM pages").fetchone()[0]
    for key in live:
        store.prove(key, store.version)
    assert pages < 4 * 40


def test_the_newest_value_is_read_with_and_without_memory(store: Store, tmp_path: Path) -> None:
    states = _random_history(store, 6, 3)
    store.close()
    again = Store(tmp_path / "data.db")
    for number in range(70):
        key = f"key/{number}".encode()
        assert again.get(key) == again.get(key) == states[-1].get(key)
    assert again.root == root_of(states[-1])
    again.close()


def test_large_values_are_read_from_the_file(store: Store) -> None:
    large = bytes(range(256)) * 100
    _grow(store, {b"large": b"small"})
    assert store.get(b"large") == b"small"
    _grow(store, {b"large": large})
    assert store.get(b"large") == store.get(b"large") == large
    found = store.prove(b"missing", store.version)
    assert len(found.proof) > len(large)
    verify_non_membership(found.proof, store.root, b"missing")


def test_a_failed_commit_leaves_nothing_behind(store: Store) -> None:
    _random_history(store, 3, 4)
    root, batch = store.put(3, {b"always": b"x"})
    twice = _record(2)
    with pytest.raises(sqlite3.IntegrityError):
        store.commit(batch, twice, meta={"engine": b"wrong"}, validator_sets={})
    assert store.version == 2
    assert store.meta("engine") == b"2"
    assert store.get(b"always") == b"2"
    assert _grow(store, {b"always": b"x"}) == root


def test_versions_come_one_after_the_other(store: Store) -> None:
    with pytest.raises(ValueError, match="next one is 0"):
        store.put(1, {b"a": b"b"})


def test_blocks_transactions_and_events_are_found(store: Store) -> None:
    _random_history(store, 5, 5)
    blocks = store.blocks
    assert (blocks.earliest_height(), blocks.latest_height()) == (1, 4)
    assert blocks.block(3) == b"block 3"
    assert blocks.block(9) is None
    assert blocks.height_of(sha256(b"2").digest()) == 2
    assert blocks.find_tx(sha256(b"3/1").digest()) == (3, 1)
    assert [meta.height for meta in blocks.metas(2, 3)] == [3, 2]
    assert blocks.search([("message.sender", "alice")], (0, 100), None) == [(1, 0), (3, 0)]
    assert blocks.search([("message.sender", "carol")], (3, 3), None) == [(3, 1)]
    assert blocks.search([], (0, 100), sha256(b"4/0").digest()) == [(4, 0)]
    assert blocks.search([("message.sender", "alice"), ("message.sender", "carol")], (0, 100), None) == []
    assert blocks.validator_set(b"set") == b"v"


def test_a_search_that_takes_too_long_is_broken_off(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _random_history(store, 5, 5)
    monkeypatch.setattr("full_node.state.blocks.SEARCH_STEPS_MAX", 0)
    monkeypatch.setattr("full_node.state.blocks._STEPS_A_LOOK", 1)
    with pytest.raises(SearchTooBroad, match="too many"):
        store.searches.search([], (0, 100), None)
    monkeypatch.undo()
    assert len(store.searches.search([], (0, 100), None)) == 8
    assert store.blocks.latest_height() == 4


def test_old_blocks_go_when_a_window_is_set(tmp_path: Path) -> None:
    store = Store(tmp_path / "data.db", block_window=3)
    _random_history(store, 9, 6)
    assert (store.blocks.earliest_height(), store.blocks.latest_height()) == (6, 8)
    assert store.blocks.find_tx(sha256(b"5/0").digest()) is None
    assert store.blocks.search([("message.sender", "carol")], (0, 100), None) == [(6, 1), (7, 1), (8, 1)]
    store.close()


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    path.write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(StoreDamaged, match="not a readable"):
        Store(path)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(SchemaRefused, match="no node database of ours"):
        Store(other)


def test_the_file_is_the_owners_only(store: Store, tmp_path: Path) -> None:
    assert (tmp_path / "data.db").stat().st_mode & 0o777 == 0o600
    assert store.version == -1


def test_kill_minus_nine_loses_no_committed_version(tmp_path: Path) -> None:
    rng = random.Random(9)
    path = tmp_path / "data.db"
    told = -1
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, str(CRASHER), str(path)], stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert process.stdout is not None
        for _ in range(rng.randint(1, 12)):
            told = int(process.stdout.readline())
        time.sleep(rng.random() / 50)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        told = int(rest[-1]) if rest and process.wait() == -signal.SIGKILL else told
        store = Store(path)
        assert store.version >= told
        assert store.meta("engine") == b"%d" % store.version
        assert store.blocks.latest_height() == store.version
        expected = _crasher_state(store.version)
        assert store.root == root_of(expected)
        for key in list(expected)[:20]:
            assert store.prove(key, store.version).value == expected[key]
        store.close()
    assert told > 10


def _crasher_state(version: int) -> dict[bytes, bytes]:
    from tests.full_node.state.crashing_writer import changes_of

    state: dict[bytes, bytes] = {}
    for past in range(version + 1):
        for key, value in changes_of(past).items():
            if value is None:
                state.pop(key, None)
            else:
                state[key] = value
    return state
