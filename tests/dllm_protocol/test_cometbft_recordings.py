"""What real CometBFT networks of ours said, judged by our rules: hashes, signatures, rotation, proofs, light steps.

The recordings come from `tests/vectors/record_cometbft.py`; nothing here needs the program or a network.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest

from dllm_protocol import state_keys
from dllm_protocol.block import Block, LightBlock, PartSet, SignedHeader, block_id_of, verify_tx
from dllm_protocol.block_json import (
    block_from_json,
    block_to_json,
    commit_from_json,
    merkle_proof_from_json,
    tx_result_from_json,
    validator_from_json,
)
from dllm_protocol.block_json import block_id_from_json as id_from_json
from dllm_protocol.commit import BlockIDFlag, Commit, median_time
from dllm_protocol.consensus_params import HashedParams
from dllm_protocol.evidence import DuplicateVoteEvidence
from dllm_protocol.ics23 import ProofInvalid, verify_membership, verify_non_membership
from dllm_protocol.results import last_results_hash
from dllm_protocol.signing import verify as signature_fits
from dllm_protocol.validator_set import Validator, ValidatorSet
from dllm_protocol.verification.options import VerificationOptions
from dllm_protocol.verification.verifier import (
    Success,
    TrustedState,
    verify,
    verify_backwards,
    verify_root,
)
from tests.full_node.processes import Sender
from tests.vectors.record_cometbft import RUNS, file_of

pytestmark = pytest.mark.conformance("recorded-cometbft-runs")


@dataclass(frozen=True)
class Run:
    """One recording, by height from 1."""

    document: dict[str, Any]

    @property
    def chain_id(self) -> str:
        """Its chain."""
        found: str = self.document["chain_id"]
        return found

    @property
    def tip(self) -> int:
        """The highest recorded height."""
        return len(self.document["heights"])

    def at(self, height: int) -> dict[str, Any]:
        """What the RPC said about a height."""
        found: dict[str, Any] = self.document["heights"][height - 1]
        return found

    @cached_property
    def blocks(self) -> dict[int, Block]:
        """Every block."""
        return {height: block_from_json(self.at(height)["block"]) for height in range(1, self.tip + 1)}

    def commit(self, height: int) -> Commit:
        """The commit over a height, as the next block carries it."""
        if height == self.tip:
            return commit_from_json(self.document["tip_commit"])
        return self.blocks[height + 1].last_commit

    def members(self, height: int) -> ValidatorSet:
        """The set that signs a height."""
        return ValidatorSet(tuple(validator_from_json(one) for one in self.at(height)["validators"]))

    def light_block(self, height: int) -> LightBlock:
        """What a light client is shown; not for the tip, whose next set is not recorded."""
        signed = SignedHeader(self.blocks[height].header, self.commit(height))
        return LightBlock(signed, self.members(height), self.members(height + 1))


LOADED = {run: Run(json.loads(file_of(run).read_text("utf-8"))) for run in RUNS}
EVERY = [(run, height) for run in RUNS for height in range(1, LOADED[run].tip + 1)]
every_height = pytest.mark.parametrize(("run", "height"), EVERY, ids=str)
every_run = pytest.mark.parametrize("run", RUNS)


@every_height
def test_a_block_has_the_id_that_was_signed(run: str, height: int) -> None:
    block = LOADED[run].blocks[height]
    block.validate_basic()
    block_id = id_from_json(LOADED[run].at(height)["block_id"])
    assert block_id_of(block) == block_id
    assert PartSet.from_block(block).header == block_id.part_set_header
    assert Block.decode(block.encode()) == block
    if height > 1:
        below = id_from_json(LOADED[run].at(height - 1)["block_id"])
        assert block.header.last_block_id == block.last_commit.block_id == below


@every_height
def test_a_block_is_written_as_cometbft_writes_it(run: str, height: int) -> None:
    assert block_to_json(LOADED[run].blocks[height]) == LOADED[run].at(height)["block"]


@every_height
def test_every_signature_is_over_our_sign_bytes(run: str, height: int) -> None:
    recorded = LOADED[run]
    commit, members = recorded.commit(height), recorded.members(height)
    assert len(commit.signatures) == len(members)
    power = 0
    for index, (entry, validator) in enumerate(zip(commit.signatures, members.validators, strict=True)):
        if entry.flag is BlockIDFlag.ABSENT:
            continue
        assert entry.validator_address == validator.address
        message = commit.sign_bytes(recorded.chain_id, index)
        assert signature_fits(validator.public_key, message, entry.signature)
        power += validator.voting_power if entry.flag is BlockIDFlag.COMMIT else 0
    assert 3 * power > 2 * members.total_power


@every_height
def test_sets_hash_to_what_headers_name(run: str, height: int) -> None:
    recorded = LOADED[run]
    header, members = recorded.blocks[height].header, recorded.members(height)
    assert members.hash() == header.validators_hash
    shown = [one["address"] for one in recorded.at(height)["validators"]]
    assert shown == [one.address.hex().upper() for one in members.validators]
    assert members.by_address(header.proposer_address) is not None
    if height < recorded.tip:
        assert recorded.members(height + 1).hash() == header.next_validators_hash


@every_height
def test_updates_and_rotation_give_the_set_two_blocks_later(run: str, height: int) -> None:
    recorded = LOADED[run]
    if height + 2 > recorded.tip:
        assert not recorded.at(height)["validator_updates"]
        return
    updates = [_update(one) for one in recorded.at(height)["validator_updates"] or ()]
    computed = recorded.members(height + 1).with_updates(updates).incremented(1)
    assert computed.validators == recorded.members(height + 2).validators
    if recorded.commit(height + 2).round == 0:
        assert computed.proposer.address == recorded.blocks[height + 2].header.proposer_address


def _update(one: dict[str, Any]) -> Validator:
    key = one["pub_key"]["Sum"]["value"]["ed25519"]
    return Validator(base64.b64decode(key), int(one.get("power", "0")))


@every_height
def test_block_time_is_the_median_of_the_votes(run: str, height: int) -> None:
    recorded = LOADED[run]
    if height > 1:
        block = recorded.blocks[height]
        assert block.header.time == median_time(block.last_commit, recorded.members(height - 1))


@every_height
def test_results_and_parameters_hash_to_what_headers_name(run: str, height: int) -> None:
    recorded = LOADED[run]
    block = recorded.blocks[height]
    params = recorded.document["consensus_params"]["block"]
    assert (
        HashedParams(int(params["max_bytes"]), int(params["max_gas"])).hash() == block.header.consensus_hash
    )
    results = [tx_result_from_json(one) for one in recorded.at(height)["txs_results"] or ()]
    assert len(results) == len(block.txs)
    if height < recorded.tip:
        assert last_results_hash(results) == recorded.blocks[height + 1].header.last_results_hash


@every_height
def test_a_light_client_takes_each_step(run: str, height: int) -> None:
    recorded = LOADED[run]
    if height == recorded.tip:
        return
    block, options = recorded.light_block(height), VerificationOptions(recorded.chain_id)
    now = recorded.blocks[recorded.tip].header.time
    assert verify_root(block, options, now) == Success()
    # From every height below: the next header, and skipping ahead of it. Over two thirds of every set stay.
    for below in range(1, height):
        assert verify(block, TrustedState.of(recorded.light_block(below)), options, now) == Success()
    if height > 1:
        lower = recorded.blocks[height - 1].header
        assert verify_backwards(lower, block.header, recorded.chain_id) == Success()


@every_run
def test_transactions_are_proved_to_stand_in_their_blocks(run: str) -> None:
    recorded = LOADED[run]
    assert len(recorded.document["txs"]) == 3
    for one in recorded.document["txs"]:
        tx = base64.b64decode(one["tx"])
        header = recorded.blocks[int(one["height"])].header
        verify_tx(merkle_proof_from_json(one["proof"]["proof"]), header.data_hash, tx)
        assert recorded.blocks[int(one["height"])].txs[int(one["index"])] == tx


@every_run
def test_state_proofs_lead_to_the_next_header_s_root(run: str) -> None:
    recorded = LOADED[run]
    account = state_keys.account(Sender.numbered(1).address)
    present, absent = (recorded.document["queries"][name]["response"] for name in ("present", "absent"))
    assert base64.b64decode(present["key"]) == account
    root = recorded.blocks[int(present["height"]) + 1].header.app_hash
    proof, value = _proof(present), base64.b64decode(present["value"])
    verify_membership(proof, root, account, value)
    verify_non_membership(_proof(absent), root, state_keys.account(bytes(20)))
    with pytest.raises(ProofInvalid):
        verify_membership(proof, root, account, value + b"\0")
    with pytest.raises(ProofInvalid):
        verify_membership(proof, recorded.blocks[1].header.app_hash, account, value)


def _proof(response: dict[str, Any]) -> bytes:
    (operation,) = response["proofOps"]["ops"]
    assert operation["type"] == "ics23:jmt"
    return base64.b64decode(operation["data"])


def test_the_network_of_four_went_through_its_story() -> None:
    recorded = LOADED["four"]
    sizes = [len(recorded.members(height)) for height in range(1, recorded.tip + 1)]
    assert (sizes[0], sizes[-1]) == (4, 3)
    hashes = [recorded.members(height).hash() for height in range(1, recorded.tip + 1)]
    assert len(set(hashes)) == 3
    flags = [one.flag for height in range(1, recorded.tip + 1) for one in recorded.commit(height).signatures]
    assert BlockIDFlag.ABSENT in flags


def test_the_double_signer_s_votes_are_in_a_block() -> None:
    recorded = LOADED["four"]
    (found,) = (one for block in recorded.blocks.values() for one in block.evidence)
    assert isinstance(found, DuplicateVoteEvidence)
    found.validate_basic()
    members = recorded.members(found.vote_a.height)
    guilty = members.by_address(found.vote_a.validator_address)
    assert guilty is not None
    assert (found.validator_power, found.total_voting_power) == (guilty.voting_power, members.total_power)
    for vote in (found.vote_a, found.vote_b):
        assert signature_fits(guilty.public_key, vote.sign_bytes(recorded.chain_id), vote.signature)
    assert recorded.members(recorded.tip).by_address(guilty.address) is None
