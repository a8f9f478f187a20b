"""Validators come, go, and are punished on real CometBFT."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

from dllm_protocol import state_keys
from dllm_protocol.actions import Stake, Unstake
from dllm_protocol.actions.validators import prove_key
from dllm_protocol.block import Block, PartSet, data_hash
from dllm_protocol.block_json import block_from_json
from dllm_protocol.commit import BlockID, VoteType
from dllm_protocol.encoding import Record
from dllm_protocol.evidence import DuplicateVoteEvidence, Vote
from dllm_protocol.evidence_json import evidence_to_json
from dllm_protocol.genesis import GenesisAccount
from dllm_protocol.json_shape import base64_bytes
from dllm_protocol.records import SeatedValidators, Supply, ValidatorRecord
from dllm_protocol.refusals import ValidatorJailed
from dllm_protocol.signing import SeedSigner
from dllm_protocol.transaction import make_body, sign_transaction
from dllm_protocol.validator_set import Validator, ValidatorSet, address_of
from tests.full_node.cometbft.network import Network, Node, until
from tests.full_node.processes import FEE_UDLLM, Sender

STAKER = Sender.numbered(40)
STAKE_UDLLM = 1_500_000_000
RECIPIENT = Sender.numbered(77).address
R = TypeVar("R", bound=Record)


@dataclass
class Staking:
    """A network of four with five seats, and a fifth node that follows it."""

    network: Network
    fifth: Node
    staker: Sender
    payer: Sender

    def act(self, sender: Sender, action: Record) -> tuple[int, int]:
        """Height and result code of an action of its own."""
        body = make_body(
            self.network.chain_id,
            sender.address,
            sender.signer.public_key,
            sender.sequence,
            [action],
            fee_udllm=FEE_UDLLM,
        )
        sender.sequence += 1
        found = self.network.wait_for_tx(self.network.send(sign_transaction(sender.signer, body).encode()))
        return int(found["height"]), int(found["tx_result"]["code"])

    def grow_to(self, height: int) -> None:
        """Payments until the chain is so high: without them it would stay idle."""
        while self.network.nodes[0].height < height:
            self.network.transfer(self.payer, RECIPIENT, 1)


@pytest.fixture(scope="module")
def staking(tmp_path_factory: pytest.TempPathFactory, cometbft: Path) -> Iterator[Staking]:
    with Network.start(
        tmp_path_factory.mktemp("staking"),
        validators=4,
        params=lambda params: replace(params, max_validators=5),
        accounts=[GenesisAccount(STAKER.address, 3_000_000_000)],
    ) as network:
        fifth = network.add_node("fifth")
        fifth.restart()
        staker = replace(STAKER, chain_id=network.chain_id, sequence=0)
        yield Staking(network, fifth, staker, network.sender(1))


def state(node: Node, key: bytes, record_type: type[R], height: int) -> R:
    """A record of the state after a block."""
    found = node.rpc("abci_query", path="/store", data=key.hex(), height=str(height))["response"]
    return record_type.decode(base64_bytes("value", found["value"], 1 << 20))


def validators_at(node: Node, height: int) -> ValidatorSet:
    """CometBFT's validator set of a height."""
    found = node.rpc("validators", height=str(height), per_page="100")["validators"]
    return ValidatorSet(
        tuple(
            Validator(base64_bytes("key", one["pub_key"]["value"], 32), int(one["voting_power"]))
            for one in found
        )
    )


def require_proved_set(node: Node, height: int) -> None:
    """What the state says after a block is what CometBFT lets sign from the second block after it."""
    said = state(node, state_keys.VALIDATORS, SeatedValidators, height).entries
    seated = ValidatorSet(tuple(Validator(one.public_key, one.power) for one in said))
    assert seated.hash() == validators_at(node, height + 2).hash()


def test_a_fifth_validator_stakes_signs_and_leaves(staking: Staking) -> None:
    network, key = staking.network, staking.fifth.signer
    address = address_of(key.public_key)
    proof = prove_key(key, network.chain_id, staking.staker.address)
    joined, code = staking.act(staking.staker, Stake(key.public_key, STAKE_UDLLM, proof))
    assert code == 0
    staking.grow_to(joined + 3)
    first = network.nodes[0]
    assert validators_at(first, joined + 1).by_address(address) is None
    member = validators_at(first, joined + 2).by_address(address)
    assert member is not None
    assert member.voting_power == STAKE_UDLLM // 1_000_000
    require_proved_set(first, joined)

    def signs() -> bool:
        network.transfer(staking.payer, RECIPIENT, 1)
        commit = first.rpc("commit", height=str(first.height - 1))["signed_header"]["commit"]
        return any(
            one["validator_address"] == address.hex().upper() and one["block_id_flag"] == 2
            for one in commit["signatures"]
        )

    until("a commit that the fifth signed", signs)
    left, code = staking.act(staking.staker, Unstake(address, STAKE_UDLLM))
    assert code == 0
    staking.grow_to(left + 3)
    assert validators_at(first, left + 1).by_address(address) is not None
    assert validators_at(first, left + 2).by_address(address) is None
    require_proved_set(first, left)
    network.require_agreement(left + 1)
    # What it signed while it was there can still be punished: the stake is on its way back, not gone.
    punished = _prove(staking, key, left)
    record = state(first, state_keys.validator(address), ValidatorRecord, punished)
    assert (record.stake_udllm, record.jailed) == (0, 1)
    assert [one.amount_udllm for one in record.unbonding] == [_after_slash(staking, STAKE_UDLLM)]


def test_a_validator_that_signs_two_blocks_is_slashed_and_jailed(staking: Staking) -> None:
    network = staking.network
    first, guilty = network.nodes[0], network.nodes[3]
    address, key = address_of(guilty.signer.public_key), guilty.signer
    staking.grow_to(3)
    before = state(first, state_keys.SUPPLY, Supply, first.height - 1)
    punished = _prove(staking, key, first.height - 1)
    events = first.rpc("block_results", height=str(punished))["finalize_block_events"]
    assert [one["type"] for one in events].count("validator_slashed") == 1
    staking.grow_to(punished + 3)
    assert validators_at(first, punished + 1).by_address(address) is not None
    assert validators_at(first, punished + 2).by_address(address) is None
    require_proved_set(first, punished)
    stake_udllm = network.genesis.validators[3].stake_udllm
    record = state(first, state_keys.validator(address), ValidatorRecord, punished)
    assert record.jailed == 1
    assert record.stake_udllm == _after_slash(staking, stake_udllm)
    after = state(first, state_keys.SUPPLY, Supply, punished)
    assert after.burned_udllm - before.burned_udllm == stake_udllm - record.stake_udllm
    # The three that are left go on, with the same state as the one that no longer has a say.
    network.require_agreement(int(network.transfer(staking.payer, RECIPIENT, 1)["height"]))
    # Only the owner may touch the stake, and the owner of a validator that a test founds is the key's own account.
    owner = Sender(key, network.chain_id)
    network.transfer(staking.payer, owner.address, 1_000_000)
    refused = Stake(key.public_key, 1, b"")
    body = make_body(network.chain_id, owner.address, key.public_key, 0, [refused], fee_udllm=FEE_UDLLM)
    with pytest.raises(AssertionError, match=f"'code': {ValidatorJailed.abci_code}"):
        network.send(sign_transaction(key, body).encode())


def _after_slash(staking: Staking, amount_udllm: int) -> int:
    return amount_udllm - amount_udllm * staking.network.genesis.params.slash_double_sign_ppm // 1_000_000


def _prove(staking: Staking, signer: SeedSigner, height: int) -> int:
    """Hand in evidence that a key signed two blocks of a height; the height of the block that carries it."""
    node = staking.network.nodes[0]
    evidence = double_signed(node, signer, height)
    asked_from = node.height
    node.rpc("broadcast_evidence", evidence=evidence_to_json(evidence))

    def look() -> int:
        # Evidence alone makes no block: it goes into the next one, at the latest that of the heartbeat.
        staking.network.transfer(staking.payer, RECIPIENT, 1)
        for at in range(asked_from, node.height + 1):
            if node.rpc("block", height=str(at))["block"]["evidence"]["evidence"]:
                return at
        return 0

    found = until("a block with the evidence", look)
    # Its results are there with the next block, which an app hash that changed brings by itself.
    until("the block after it", lambda: node.height > found)
    return found


def double_signed(node: Node, signer: SeedSigner, height: int) -> DuplicateVoteEvidence:
    """A block of the chain and another one of the same height, both signed by one validator."""
    block = block_from_json(node.rpc("block", height=str(height))["block"])
    other_txs = (*block.txs, b"a transaction that nobody sent")
    other = replace(block, txs=other_txs, header=replace(block.header, data_hash=data_hash(other_txs)))
    members = validators_at(node, height)
    address = address_of(signer.public_key)
    index, member = members.index_of(address), members.by_address(address)
    assert index is not None
    assert member is not None
    votes = []
    for one in (block, other):
        unsigned = Vote(VoteType.PRECOMMIT, height, 0, _id_of(one), block.header.time, address, index, b"")
        votes.append(replace(unsigned, signature=signer.sign(unsigned.sign_bytes(block.header.chain_id))))
    votes.sort(key=lambda vote: vote.block_id.hash)
    return DuplicateVoteEvidence(
        votes[0], votes[1], members.total_power, member.voting_power, block.header.time
    )


def _id_of(block: Block) -> BlockID:
    return BlockID(block.hash(), PartSet.from_bytes(block.encode()).header)
