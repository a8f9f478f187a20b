"""One validator's chain: CometBFT's block rules, and a crash at every step of a block."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from dllm_protocol import merkle
from dllm_protocol.block import Block, PartSet
from dllm_protocol.block_errors import InvalidBlock
from dllm_protocol.commit import Commit, median_time
from dllm_protocol.jmt import root_of
from dllm_protocol.results import last_results_hash
from dllm_protocol.signing import SeedSigner, verify
from dllm_protocol.timestamp import Timestamp
from full_node.consensus.engine import CommittedBlock
from full_node.consensus.sign_state import DoubleSignRefused, SignState
from full_node.consensus.solo_chain import NotOurChain, SoloChain
from full_node.files import write_private
from full_node.state.page import StoreDamaged
from full_node.state_machine.staking.seats import ValidatorUpdate
from tests.full_node.doubles import GENESIS_TIME_MS, ManualClock, NotesApplication, note, open_chain


class PowerCut(BaseException):
    """The machine stops here."""


@pytest.fixture
def chain(tmp_path: Path) -> SoloChain:
    made = open_chain(tmp_path)
    made.open()
    return made


def _reopen(home: Path, clock: ManualClock | None = None) -> SoloChain:
    again = open_chain(home, clock=clock)
    again.open()
    return again


def _some_blocks(chain: SoloChain) -> list[CommittedBlock]:
    return [
        chain.make_block([]),
        chain.make_block([note("a", 0, "x", "1"), note("b", 0, "y", "2")]),
        chain.make_block([]),
        chain.make_block([note("a", 1, "x", "!"), note("a", 2, "y", "")]),
        chain.make_block([]),
    ]


def test_headers_follow_cometbfts_rules(chain: SoloChain) -> None:
    blocks = _some_blocks(chain)
    first = blocks[0].block.header
    assert first.time == Timestamp.from_ns(GENESIS_TIME_MS * 1_000_000)
    assert first.last_results_hash == merkle.EMPTY_ROOT
    assert first.app_hash == root_of({b"genesis": b"notes"})
    assert first.last_block_id.is_zero
    assert blocks[0].block.last_commit == Commit.empty()
    for before, after in itertools.pairwise(blocks):
        header = after.block.header
        header_before = before.block.header
        after.block.validate_basic()
        assert header.height == header_before.height + 1
        assert header.last_block_id == before.block_id
        assert before.block_id.part_set_header == PartSet.from_block(before.block).header
        assert after.block.last_commit == before.seen_commit
        assert header.time == median_time(before.seen_commit, chain.state.validators) > header_before.time
        assert header.last_results_hash == last_results_hash(before.results)
        assert header.app_hash == chain.store.root_at(header_before.height)
        assert header.validators_hash == header_before.next_validators_hash == chain.state.validators.hash()
        assert header.consensus_hash == chain.params.hash()
    assert [one.code for one in blocks[3].results] == [21, 0]


def test_every_commit_is_signed_by_the_validator(chain: SoloChain) -> None:
    for made in _some_blocks(chain):
        commit = made.seen_commit
        assert commit.block_id == made.block_id
        assert commit.block_id.hash == made.block.hash()
        assert verify(chain.public_key, commit.sign_bytes(chain.chain_id, 0), commit.signatures[0].signature)
        commit.validate_basic()


def test_votes_are_later_than_their_block_even_when_the_clock_is_not(tmp_path: Path) -> None:
    clock = ManualClock()
    chain = open_chain(tmp_path, clock=clock)
    chain.open()
    chain.make_block([])
    clock.now_ns -= 3600 * 10**9
    times = [chain.make_block([]).block.header.time for _ in range(3)]
    assert [b.to_ns() - a.to_ns() for a, b in itertools.pairwise(times)] == [1_000_000] * 2


def test_the_proof_block_is_needed_at_the_beginning_and_exactly_after_a_change(chain: SoloChain) -> None:
    needed = [chain.state.needs_proof_block]
    for txs in ([], [], [note("a", 0, "x", "1")], [], []):
        chain.make_block(txs)
        needed.append(chain.state.needs_proof_block)
    assert needed == [True, True, False, True, False, False]


def test_what_is_stored_reads_back(chain: SoloChain) -> None:
    for made in _some_blocks(chain):
        height = made.block.header.height
        stored = chain.store.blocks.block(height)
        assert stored is not None
        assert Block.decode(stored) == made.block
        meta = chain.store.blocks.meta(height)
        assert meta is not None
        assert (meta.hash, meta.block_id, meta.seen_commit) == (
            made.block.hash(),
            made.block_id.encode(),
            made.seen_commit.encode(),
        )
    assert chain.store.blocks.search([("message.sender", "a")], (1, 9), None) == [(2, 0), (4, 0), (4, 1)]
    assert chain.store.blocks.validator_set(chain.state.validators.hash()) is not None


def test_a_restart_goes_on_where_it_stopped(tmp_path: Path) -> None:
    chain = open_chain(tmp_path)
    chain.open()
    _some_blocks(chain)
    state = chain.state
    chain.store.close()
    again = _reopen(tmp_path)
    assert again.state == state
    assert again.make_block([note("a", 3, "z", "1")]).results[0].code == 0


@pytest.mark.parametrize("where", ["before signing", "after signing", "inside the transaction", "after all"])
@pytest.mark.parametrize("crash_height", [1, 2, 3])
def test_a_crash_at_any_step_needs_no_repair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, crash_height: int
) -> None:
    twin_home, home = tmp_path / "twin", tmp_path / "home"
    for folder in (twin_home, home):
        folder.mkdir()
    txs = [[note("a", n, f"k{n}", "v")] for n in range(4)]
    twin = open_chain(twin_home)
    twin.open()
    expected = [twin.make_block(one) for one in txs]

    chain = open_chain(home)
    chain.open()
    for one in txs[: crash_height - 1]:
        chain.make_block(one)
    with monkeypatch.context() as cut:
        if where == "before signing":
            cut.setattr(SignState, "sign", _cut)
        elif where == "after signing":
            cut.setattr(chain.store, "commit", _cut)
        elif where == "inside the transaction":
            cut.setattr(chain.store, "_prune", _cut)
        else:
            cut.setattr(NotesApplication, "note_committed", _cut)
        with pytest.raises(PowerCut):
            chain.make_block(txs[crash_height - 1])
    chain.store.close()

    clock = ManualClock(10**18 * 2)
    again = _reopen(home, clock)
    survived = where != "before signing"
    assert again.state.height == crash_height - (0 if survived else 1)
    if survived:
        assert again.state.block_id == expected[crash_height - 1].block_id
        assert again.state.last_commit == expected[crash_height - 1].seen_commit
    for one in txs[again.state.height :]:
        assert again.make_block(one).results[0].code == 0
    assert again.store.root == twin.store.root


def _cut(*_arguments: object, **_named: object) -> None:
    raise PowerCut


def test_another_block_is_never_signed_at_a_signed_height(tmp_path: Path) -> None:
    signer = SeedSigner(b"s" * 32)
    state = SignState.load(tmp_path / "sign_state")
    vote = state.sign(signer, 5, 0, 1, b"block A", b"A")
    assert state.sign(signer, 5, 0, 1, b"block A", b"A") == vote
    for height, round_, message in ((5, 0, b"block B"), (4, 0, b"old"), (4, 9, b"old")):
        for keeper in (state, SignState.load(tmp_path / "sign_state")):
            with pytest.raises(DoubleSignRefused, match="signed"):
                keeper.sign(signer, height, round_, 1, message, b"B")
    assert state.sign(signer, 5, 1, 1, b"next round", b"B").round == 1
    assert (tmp_path / "sign_state").stat().st_mode & 0o777 == 0o600


def test_an_old_copy_of_the_database_is_refused(tmp_path: Path) -> None:
    chain = open_chain(tmp_path)
    chain.open()
    chain.make_block([])
    chain.store.close()
    old = (tmp_path / "data.db").read_bytes()
    again = _reopen(tmp_path)
    for _ in range(2):
        again.make_block([])
    again.store.close()
    for left in tmp_path.glob("data.db*"):
        left.unlink()
    (tmp_path / "data.db").write_bytes(old)
    with pytest.raises(DoubleSignRefused, match="height 3 was signed, the database ends at 1"):
        _reopen(tmp_path)


def test_a_damaged_sign_state_is_not_guessed_around(tmp_path: Path) -> None:
    write_private(tmp_path / "sign_state", b"\xff\xff")
    with pytest.raises(DoubleSignRefused, match="damaged"):
        open_chain(tmp_path)


def test_another_key_or_chain_is_refused(tmp_path: Path) -> None:
    chain = open_chain(tmp_path)
    chain.open()
    chain.make_block([])
    chain.store.close()
    with pytest.raises(NotOurChain, match="the store holds chain notes-"):
        other = open_chain(tmp_path, name="other")
        other.open()
    stranger = open_chain(tmp_path)
    stranger._signer = SeedSigner(b"x" * 32)
    with pytest.raises(NotOurChain, match="0 of 10 voting power"):
        stranger.open()


def test_validator_updates_count_from_the_height_after_next(chain: SoloChain) -> None:
    application = chain.application
    assert isinstance(application, NotesApplication)
    chain.make_block([])
    old = chain.state.validators.hash()
    application.updates = [ValidatorUpdate(chain.public_key, 25)]
    changing = chain.make_block([]).block.header
    application.updates = []
    after, later = (chain.make_block([]).block.header for _ in range(2))
    assert changing.next_validators_hash == old == after.validators_hash
    assert after.next_validators_hash == later.validators_hash != old
    application.updates = [ValidatorUpdate(SeedSigner(b"q" * 32).public_key, 1000)]
    with pytest.raises(NotOurChain, match="25 of 1025"):
        chain.make_block([])
    application.updates = [ValidatorUpdate(chain.public_key, 0)]
    with pytest.raises(InvalidBlock, match="remove all"):
        chain.make_block([])


def test_a_tree_and_a_chain_state_that_differ_are_refused(tmp_path: Path) -> None:
    chain = open_chain(tmp_path)
    chain.open()
    _, batch = chain.store.put(1, {b"a": b"b"})
    chain.store.commit(batch, None, meta={}, validator_sets={})
    with pytest.raises(StoreDamaged, match="the chain state is of height 0"):
        chain.open()


def test_a_store_without_chain_state_is_named(tmp_path: Path) -> None:
    chain = open_chain(tmp_path)
    _, batch = chain.store.put(0, {b"a": b"b"})
    chain.store.commit(batch, None, meta={}, validator_sets={})
    with pytest.raises(StoreDamaged, match="no chain state"):
        chain.open()
