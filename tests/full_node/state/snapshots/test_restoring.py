"""Only the state under the trusted root ever becomes live; everything else leaves an empty store empty."""

from __future__ import annotations

import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.ics23 import verify_membership, verify_non_membership
from dllm_protocol.jmt import root_of
from full_node.state.snapshots import (
    ApplyResult,
    OfferResult,
    Restoration,
    Shelf,
    Snapshot,
    take_snapshot,
)
from full_node.state.snapshots.format import encode_pair, snapshot_hash
from full_node.state.store import Store
from tests.full_node.state.snapshots.parts import (
    CHAIN,
    ROOT,
    Made,
    apply_all,
    grow,
    history,
    in_order,
    made_of,
    made_of_stream,
    on_shelf,
    rows,
    with_manifest,
)

RESTORER = Path(__file__).parent / "killed_restorer.py"
STATE = {b"key/%d" % n: b"value %d" % n for n in range(300)}
HONEST = made_of(in_order(STATE.items()), root_of(STATE))
LARGE_STATE = {b"large/%d" % n: bytes([n]) * 700_000 for n in range(5)}
LARGE = made_of(in_order(LARGE_STATE.items()), root_of(LARGE_STATE))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "data.db")
    yield opened
    opened.close()


def _is_empty(store: Store, folder: Path) -> bool:
    return store.version == -1 and rows(folder / "data.db") == 0


def test_a_restored_node_goes_on_as_the_one_it_came_from(tmp_path: Path, store: Store) -> None:
    (tmp_path / "giver").mkdir()
    giver, shelf = Store(tmp_path / "giver" / "data.db", proof_window=8), Shelf(tmp_path / "snapshots")
    states = history(giver, 10)
    take_snapshot(tmp_path / "giver" / "data.db", shelf, CHAIN, 8)
    (snapshot,) = shelf.list()
    restoration = Restoration(store, CHAIN)
    assert restoration.offer(snapshot, giver.root_at(8)).result is OfferResult.ACCEPT
    assert apply_all(restoration, on_shelf(shelf, snapshot)).result is ApplyResult.ACCEPT
    assert (store.version, store.root) == (8, giver.root_at(8))
    changes: dict[bytes, bytes | None] = {
        key: states[9].get(key) for key in states[8].keys() | states[9].keys()
    }
    assert grow(store, changes) == giver.root
    for key, value in states[8].items():
        assert store.value_at(key, 8) == value
        proved = store.prove(key, 8)
        verify_membership(proved.proof, giver.root_at(8), key, value)
    verify_non_membership(store.prove(b"nothing", 8).proof, giver.root_at(8), b"nothing")
    grow(giver, {b"more": b"1", b"always": None})
    assert grow(store, {b"more": b"1", b"always": None}) == giver.root
    giver.close()


def test_the_restored_state_survives_closing(tmp_path: Path) -> None:
    store = Store(tmp_path / "data.db")
    restoration = Restoration(store, CHAIN)
    restoration.offer(HONEST.snapshot, root_of(STATE))
    assert restoration.is_under_way
    apply_all(restoration, HONEST.chunks)
    assert not restoration.is_under_way
    store.close()
    again = Store(tmp_path / "data.db")
    assert (again.version, again.root) == (5, root_of(STATE))
    assert {key: again.get(key) for key in STATE} == STATE
    again.close()


def _refused(**changed: object) -> Snapshot:
    return with_manifest(HONEST, **changed).snapshot


@pytest.mark.parametrize(
    ("snapshot", "result"),
    [
        pytest.param(replace(HONEST.snapshot, format=2), OfferResult.REJECT_FORMAT, id="unknown format"),
        pytest.param(replace(HONEST.snapshot, hash=bytes(32)), OfferResult.REJECT_SENDER, id="other hash"),
        pytest.param(replace(HONEST.snapshot, height=6), OfferResult.REJECT_SENDER, id="other height"),
        pytest.param(replace(HONEST.snapshot, chunks=2), OfferResult.REJECT_SENDER, id="other count"),
        pytest.param(
            replace(HONEST.snapshot, metadata=b"junk", hash=snapshot_hash(b"junk")),
            OfferResult.REJECT_SENDER,
            id="not a manifest",
        ),
        pytest.param(_refused(content_bytes=0), OfferResult.REJECT_SENDER, id="no content"),
        pytest.param(_refused(content_bytes=1 << 21), OfferResult.REJECT_SENDER, id="more than its chunks"),
        pytest.param(_refused(pairs=0), OfferResult.REJECT_SENDER, id="no pairs"),
        pytest.param(
            _refused(pairs=0, content_bytes=0, chunk_hashes=()),
            OfferResult.REJECT_SENDER,
            id="nothing at all",
        ),
        pytest.param(_refused(chain_id="other-00000000"), OfferResult.REJECT, id="other chain"),
        pytest.param(_refused(root=ROOT), OfferResult.REJECT, id="other root"),
        pytest.param(
            _refused(content_bytes=9 << 20, chunk_hashes=(ROOT,) * 9), OfferResult.REJECT, id="too large"
        ),
    ],
)
def test_an_offer_that_cannot_be_right_is_refused(
    store: Store, tmp_path: Path, snapshot: Snapshot, result: OfferResult
) -> None:
    restoration = Restoration(store, CHAIN, state_bytes_max=8 << 20)
    answer = restoration.offer(snapshot, root_of(STATE))
    assert (answer.result, bool(answer.reason)) == (result, True)
    assert not restoration.is_under_way
    assert restoration.apply(0, HONEST.chunks[0], "peer").result is ApplyResult.ABORT
    assert _is_empty(store, tmp_path)


def test_a_store_with_a_state_takes_no_snapshot(store: Store) -> None:
    grow(store, {b"a": b"1"})
    answer = Restoration(store, CHAIN).offer(HONEST.snapshot, root_of(STATE))
    assert answer.result is OfferResult.ABORT


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(LARGE.chunks[0], id="another chunk"),
        pytest.param(b"junk", id="junk"),
        pytest.param(zlib.compress(bytes(1 << 27)), id="a bomb"),
        pytest.param(LARGE.chunks[1][:-3], id="truncated"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_bad_chunk_is_asked_for_again_and_its_sender_refused(
    store: Store, tmp_path: Path, packed: bytes
) -> None:
    restoration = Restoration(store, CHAIN)
    restoration.offer(LARGE.snapshot, root_of(LARGE_STATE))
    assert restoration.apply(0, LARGE.chunks[0], "good").result is ApplyResult.ACCEPT
    bad = restoration.apply(1, packed, "bad")
    assert (bad.result, bad.refetch, bad.reject_senders) == (ApplyResult.RETRY, (1,), ("bad",))
    assert rows(tmp_path / "data.db") == 0
    assert [restoration.apply(at, LARGE.chunks[at], "good").result for at in (1, 2, 3)] == [1, 1, 1]
    assert store.root == root_of(LARGE_STATE)


def test_a_chunk_that_is_in_already_is_taken_calmly_and_a_gap_is_not(store: Store) -> None:
    restoration = Restoration(store, CHAIN)
    restoration.offer(LARGE.snapshot, root_of(LARGE_STATE))
    restoration.apply(0, LARGE.chunks[0], "good")
    assert restoration.apply(0, b"whatever", "bad").result is ApplyResult.ACCEPT
    assert restoration.apply(2, LARGE.chunks[2], "good").result is ApplyResult.ABORT


def _lie(made: Made) -> Made:
    """A snapshot whose manifest says the trusted root, whatever is in it."""
    return with_manifest(made, root=ROOT)


ORDERED = in_order(STATE.items())


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(_lie(made_of([*ORDERED[:5], ORDERED[4], *ORDERED[5:]])), id="a key twice"),
        pytest.param(_lie(made_of([*ORDERED[:4], (ORDERED[4][0], b"x"), *ORDERED[4:]])), id="two values"),
        pytest.param(_lie(made_of(sorted(STATE.items()))), id="in another order"),
        pytest.param(_lie(made_of(ORDERED[:-1])), id="a pair less"),
        pytest.param(_lie(made_of([*ORDERED[:-1], (ORDERED[-1][0], b"forged")])), id="another value"),
        pytest.param(
            _lie(made_of_stream(b"".join(encode_pair(*pair) for pair in ORDERED)[:-1], pairs=300)),
            id="cut off",
        ),
        pytest.param(with_manifest(_lie(made_of(ORDERED)), pairs=299), id="wrong count"),
        pytest.param(_lie(made_of_stream(b"\x00" * 100, pairs=1)), id="an empty key"),
        pytest.param(_lie(made_of_stream(b"\xff" * 100, pairs=1)), id="a key too long"),
    ],
)
def test_a_snapshot_that_is_not_the_promised_state_is_refused_as_a_whole(
    store: Store, tmp_path: Path, made: Made
) -> None:
    restoration = Restoration(store, CHAIN)
    assert restoration.offer(made.snapshot, ROOT).result is OfferResult.ACCEPT
    answer = apply_all(restoration, made.chunks)
    assert (answer.result, bool(answer.reason)) == (ApplyResult.REJECT_SNAPSHOT, True)
    assert not restoration.is_under_way
    assert _is_empty(store, tmp_path)
    assert restoration.offer(HONEST.snapshot, root_of(STATE)).result is OfferResult.ACCEPT
    apply_all(restoration, HONEST.chunks)
    assert store.root == root_of(STATE)


def test_another_offer_replaces_one_under_way(store: Store, tmp_path: Path) -> None:
    restoration = Restoration(store, CHAIN)
    restoration.offer(LARGE.snapshot, root_of(LARGE_STATE))
    restoration.apply(0, LARGE.chunks[0], "peer")
    assert restoration.offer(HONEST.snapshot, root_of(STATE)).result is OfferResult.ACCEPT
    apply_all(restoration, HONEST.chunks)
    assert store.root == root_of(STATE)
    assert store.get(b"large/0") is None


def test_nothing_can_be_seen_before_the_end_and_closing_forgets_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "data.db")
    restoration = Restoration(store, CHAIN)
    restoration.offer(LARGE.snapshot, root_of(LARGE_STATE))
    for at in (0, 1, 2):
        restoration.apply(at, LARGE.chunks[at], "peer")
    assert rows(tmp_path / "data.db") == 0
    store.close()
    again = Store(tmp_path / "data.db")
    assert _is_empty(again, tmp_path)
    again.close()


def test_a_restore_that_is_killed_leaves_the_store_as_new(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, str(RESTORER), str(tmp_path / "data.db")], check=False, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "data.db").exists()
    store = Store(tmp_path / "data.db")
    assert _is_empty(store, tmp_path)
    restoration = Restoration(store, CHAIN)
    restoration.offer(LARGE.snapshot, root_of(LARGE_STATE))
    apply_all(restoration, LARGE.chunks)
    assert store.root == root_of(LARGE_STATE)
    store.close()
