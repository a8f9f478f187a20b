"""The driver over conversations that a real CometBFT had, and over ends at every moment between two questions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dllm_protocol.consensus_params import (
    BLOCK_MAX_BYTES,
    BLOCK_MAX_BYTES_DEFAULT,
    BLOCK_TX_BYTES_MAX,
    BLOCK_TXS_MAX,
    HashedParams,
)
from dllm_protocol.genesis import Genesis, chain_id_of
from dllm_protocol.protobuf import bytes_field, read_fields, without_list
from dllm_protocol.timestamp import Timestamp
from full_node.consensus.abci import requests, responses
from full_node.consensus.abci.requests import Request, decode_request
from full_node.consensus.abci.responses import ProposalStatus, encode_response
from full_node.consensus.abci.types import CommitInfo
from full_node.consensus.cometbft.driver import Driver
from full_node.consensus.cometbft.state_sync import StateSync
from full_node.consensus.solo_chain import NotOurChain
from full_node.state.snapshots import Restoration, Shelf, SnapshotSettings, SnapshotTaker
from full_node.state.store import Store
from full_node.state_machine.application import Application
from tests.full_node.consensus.abci.recorded import Exchange, conversation, document, genesis
from tests.full_node.doubles import open_chain
from tests.full_node.processes import Sender

VARYING = {"ListSnapshots", "LoadSnapshotChunk"}
"""What a thread of its own has ready, and how a build of zlib packs it."""
BLOCK_STEPS = ("FinalizeBlock", "Commit")
_PROCESS_PROPOSAL = 17
"""Its field in a Request."""


@dataclass
class Opened:
    """A driver with the store below it."""

    driver: Driver
    store: Store

    def ask(self, request: Request) -> responses.Response:
        return self.driver.handle(request)


@contextmanager
def opened(folder: Path, chain: Genesis | None = None, *, window: int = 0) -> Iterator[Opened]:
    """A driver over the store of a folder, as after a start of the process."""
    chain = chain or genesis()
    chain_id = chain_id_of(chain)
    database = folder / "data.db"
    store = Store(database)
    shelf = Shelf(folder / "snapshots")
    taker = SnapshotTaker(database, shelf, chain_id, SnapshotSettings(document()["snapshot_every"]))
    try:
        snapshots = StateSync(shelf, taker, Restoration(store, chain_id))
        driver = Driver(
            store,
            Application(store),
            chain,
            snapshots,
            version=document()["dllm_version"],
            block_window=window,
        )
        driver.open()
        yield Opened(driver, store)
    finally:
        taker.close()
        store.close()


def replay(node: Opened, exchanges: list[Exchange]) -> None:
    """Asks again, and wants the same answers to the byte."""
    for number, one in enumerate(exchanges):
        found = encode_response(node.ask(decode_request(one.request)))
        assert one.kind in VARYING or found == one.response, f"{number}: {one.kind}"


def blocks(exchanges: list[Exchange]) -> list[Exchange]:
    """The beginning, and then only what decided blocks: what CometBFT replays from its store."""
    return [one for one in exchanges if one.kind in ("InitChain", *BLOCK_STEPS)]


@pytest.mark.parametrize("name", ["validator", "taker"])
def test_a_recorded_conversation_gets_the_same_answers(tmp_path: Path, name: str) -> None:
    with opened(tmp_path) as node:
        replay(node, conversation(name))
        assert node.driver.height > 0


def test_a_node_from_a_snapshot_has_the_roots_of_one_that_saw_every_block(tmp_path: Path) -> None:
    (tmp_path / "validator").mkdir()
    (tmp_path / "taker").mkdir()
    with opened(tmp_path / "validator") as one, opened(tmp_path / "taker") as other:
        replay(one, conversation("validator"))
        replay(other, conversation("taker"))
        common = min(one.store.version, other.store.version)
        assert one.store.root_at(common) == other.store.root_at(common)


def test_an_end_before_and_after_every_step_of_every_block_is_made_good(tmp_path: Path) -> None:
    steps = blocks(conversation("validator"))
    done = 0
    for stop in range(1, len(steps) + 1):
        with opened(tmp_path) as node:
            info = node.ask(requests.Info("", 11, 8, "2.0.0"))
            assert isinstance(info, responses.Info)
            # CometBFT asks again for everything after the height that we say.
            done = next(
                (
                    place + 1
                    for place, one in enumerate(steps)
                    if is_commit_of(steps, place, info.last_block_height)
                ),
                0,
            )
            replay(node, steps[done:stop])
    with opened(tmp_path) as node:
        assert node.driver.height == sum(one.kind == "Commit" for one in steps)


def is_commit_of(steps: list[Exchange], place: int, height: int) -> bool:
    """Whether a step is the Commit of a height."""
    return height > 0 and steps[place].kind == "Commit" and place == 2 * height


def test_only_commit_writes(tmp_path: Path) -> None:
    steps = blocks(conversation("validator"))
    with opened(tmp_path) as node:
        replay(node, steps[:3])
        before = (node.store.version, node.store.root)
        raw = payer(1).transfer(bytes(20), 1)
        node.ask(requests.CheckTx(raw, recheck=False))
        prepare(node, (raw,), height=2)
        node.ask(proposal((raw,), height=2))
        node.ask(decode_request(steps[3].request))
        assert (node.store.version, node.store.root) == before
        node.ask(requests.Commit())
        assert node.store.version == before[0] + 1


def test_commit_without_a_block_is_a_failure(tmp_path: Path) -> None:
    with opened(tmp_path) as node:
        replay(node, blocks(conversation("validator"))[:1])
        with pytest.raises(RuntimeError, match="Commit without FinalizeBlock"):
            node.ask(requests.Commit())


def test_another_chains_beginning_is_refused(tmp_path: Path) -> None:
    init = decode_request(blocks(conversation("validator"))[0].request)
    assert isinstance(init, requests.InitChain)
    for wrong, words in (
        (replace(init, chain_id="other-12345678"), "chain id"),
        (replace(init, initial_height=7), "initial height"),
        (replace(init, time=init.time.add_ms(1)), "genesis time"),
        (replace(init, params=replace(init.params, block=HashedParams(1))), "consensus parameters"),
        (
            replace(init, params=replace(init.params, block=HashedParams(BLOCK_MAX_BYTES_DEFAULT))),
            "consensus parameters",
        ),
        (replace(init, validators=init.validators[1:]), "validators"),
    ):
        with opened(tmp_path) as node, pytest.raises(NotOurChain, match=words):
            node.ask(wrong)


def test_a_chain_whose_genesis_names_no_size_of_blocks_keeps_the_one_that_it_began_with(
    tmp_path: Path,
) -> None:
    new = genesis()
    assert new.params.block_max_bytes == BLOCK_MAX_BYTES
    old = replace(new, params=replace(new.params, block_max_bytes=0))
    assert Genesis.decode(old.encode()) == old
    init = decode_request(blocks(conversation("validator"))[0].request)
    assert isinstance(init, requests.InitChain)
    assert init.params.block == HashedParams(BLOCK_MAX_BYTES)
    as_it_began = replace(
        init,
        chain_id=chain_id_of(old),
        params=replace(init.params, block=HashedParams(BLOCK_MAX_BYTES_DEFAULT)),
    )
    with opened(tmp_path, old) as node:
        with pytest.raises(NotOurChain, match="consensus parameters"):
            node.ask(replace(as_it_began, params=init.params))
        assert isinstance(node.ask(as_it_began), responses.InitChain)


def test_of_a_proposal_with_too_many_transactions_no_more_than_allowed_are_read(tmp_path: Path) -> None:
    many = bytes_field(1, b"", always=True) * (BLOCK_TXS_MAX + 1)
    behind = b"\x0a\xff, and nothing here could be read"
    request = decode_request(bytes_field(_PROCESS_PROPOSAL, many + behind))
    assert request == requests.OverfullProposal()
    with opened(tmp_path) as node:
        replay(node, blocks(conversation("validator"))[:1])
        answer = node.ask(request)
        assert isinstance(answer, responses.ProcessProposal)
        assert answer.status == ProposalStatus.REJECT
        # As many as are allowed are read, and judged one by one.
        raw = next(one.request for one in conversation("validator") if one.kind == "ProcessProposal")
        ((number, _, body),) = read_fields(raw)
        assert isinstance(body, bytes)
        rest = without_list(body, 1)
        allowed = decode_request(bytes_field(number, many[: -len(many) // (BLOCK_TXS_MAX + 1)] + rest))
        assert isinstance(allowed, requests.ProcessProposal)
        assert len(allowed.txs) == BLOCK_TXS_MAX
        assert node.driver.handle(allowed) == responses.ProcessProposal(ProposalStatus.REJECT)


def test_a_beginning_over_a_state_that_has_blocks_is_refused(tmp_path: Path) -> None:
    steps = blocks(conversation("validator"))
    with opened(tmp_path) as node:
        replay(node, steps[:3])
        with pytest.raises(NotOurChain, match="CometBFT begins the chain anew"):
            node.ask(decode_request(steps[0].request))


def test_a_first_state_that_is_there_already_is_kept(tmp_path: Path) -> None:
    steps = blocks(conversation("validator"))
    for _ in range(2):
        with opened(tmp_path) as node:
            replay(node, steps[:1])
            assert node.driver.height == 0


def proposal(txs: tuple[bytes, ...], *, height: int = 1) -> requests.ProcessProposal:
    """A block as another validator proposes it."""
    init = decode_request(blocks(conversation("validator"))[0].request)
    assert isinstance(init, requests.InitChain)
    return requests.ProcessProposal(txs, CommitInfo(), (), b"h" * 32, height, init.time, b"v" * 32, b"p" * 20)


def payer(number: int) -> Sender:
    """A funded account of the recorded chain."""
    sender = Sender.numbered(number)
    sender.chain_id = chain_id_of(genesis())
    return sender


def verdict(node: Opened, *txs: bytes) -> ProposalStatus:
    answer = node.ask(proposal(txs))
    assert isinstance(answer, responses.ProcessProposal)
    return answer.status


def test_proposals_are_judged_by_size_form_and_payment(tmp_path: Path) -> None:
    one, two, poor = payer(1), payer(2), payer(99)
    first, second = one.transfer(bytes(20), 1), one.transfer(bytes(20), 2)
    other, unpaid = two.transfer(bytes(20), 1), poor.transfer(bytes(20), 1)
    with opened(tmp_path) as node:
        replay(node, blocks(conversation("validator"))[:1])
        assert verdict(node) == ProposalStatus.ACCEPT
        assert verdict(node, first, other, second) == ProposalStatus.ACCEPT
        for wrong in (
            (second, first),
            (first, first),
            (first, b"none"),
            (first, unpaid),
            (first[:-1] + bytes([first[-1] ^ 1]),),
            (b"\x00" * (BLOCK_TX_BYTES_MAX + 1),),
        ):
            assert verdict(node, *wrong) == ProposalStatus.REJECT, [one[:20] for one in wrong]


def test_a_failing_action_pays_and_may_stand_in_a_block(tmp_path: Path) -> None:
    sender = payer(1)
    too_much = sender.transfer(bytes(20), 10**15)
    with opened(tmp_path) as node:
        replay(node, blocks(conversation("validator"))[:1])
        assert verdict(node, too_much) == ProposalStatus.ACCEPT


def prepare(
    node: Opened, txs: tuple[bytes, ...], max_tx_bytes: int = 1 << 20, *, height: int = 1
) -> tuple[bytes, ...]:
    block = proposal(txs, height=height)
    answer = node.ask(
        requests.PrepareProposal(
            max_tx_bytes, txs, block.last_commit, (), block.height, block.time, b"p" * 20
        )
    )
    assert isinstance(answer, responses.PrepareProposal)
    return answer.txs


def test_what_is_prepared_is_accepted_and_leaves_out_what_is_invalid(tmp_path: Path) -> None:
    one, two, poor = payer(1), payer(2), payer(99)
    first, second = one.transfer(bytes(20), 1), one.transfer(bytes(20), 2)
    waiting = (second, b"none", first, two.transfer(bytes(20), 1), poor.transfer(bytes(20), 1))
    with opened(tmp_path) as node:
        replay(node, blocks(conversation("validator"))[:1])
        chosen = prepare(node, waiting)
        assert set(chosen) == {first, second, waiting[3]}
        assert chosen.index(first) < chosen.index(second)
        assert verdict(node, *chosen) == ProposalStatus.ACCEPT
        assert prepare(node, waiting, max_tx_bytes=len(first) + 8) != ()
        assert prepare(node, waiting, max_tx_bytes=10) == ()


def test_before_there_is_a_state_nothing_waits_and_nothing_fails(tmp_path: Path) -> None:
    raw = payer(1).transfer(bytes(20), 1)
    with opened(tmp_path) as node:
        early = node.ask(requests.CheckTx(raw, recheck=False))
        assert isinstance(early, responses.CheckTx)
        assert early.code != 0
        for path in ("/store", "/offers"):
            asked = node.ask(requests.Query(b"account", path, 0, prove=True))
            assert isinstance(asked, responses.Query)
            assert asked.code != 0
        replay(node, blocks(conversation("validator"))[:1])
        later = node.ask(requests.CheckTx(raw, recheck=False))
        assert isinstance(later, responses.CheckTx)
        assert later.code == 0


def test_a_folder_of_the_solo_engine_is_refused(tmp_path: Path) -> None:
    chain = open_chain(tmp_path)
    chain.open()
    chain.store.close()
    with pytest.raises(NotOurChain, match="run by the solo engine"), opened(tmp_path):
        pass


def test_vote_extensions_are_neither_made_nor_taken(tmp_path: Path) -> None:
    with opened(tmp_path) as node:
        assert node.ask(requests.ExtendVote(b"h", 1)).encode() == b""
        for extension, status in ((b"", ProposalStatus.ACCEPT), (b"x", ProposalStatus.REJECT)):
            answer = node.ask(requests.VerifyVoteExtension(b"h", b"v", 1, extension))
            assert isinstance(answer, responses.VerifyVoteExtension)
            assert answer.status == status


def test_a_block_that_does_not_follow_the_state_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as node:
        replay(node, blocks(conversation("validator"))[:1])
        with pytest.raises(NotOurChain, match="block 5 does not follow"):
            node.ask(proposal((), height=5))


def test_time_is_remembered_over_a_restart(tmp_path: Path) -> None:
    steps = blocks(conversation("validator"))
    with opened(tmp_path) as node:
        replay(node, steps[:5])
    last = decode_request(steps[3].request)
    assert isinstance(last, requests.FinalizeBlock)
    with opened(tmp_path) as node:
        assert Timestamp.from_ns(node.driver._remembered_time_ns()) == last.time
