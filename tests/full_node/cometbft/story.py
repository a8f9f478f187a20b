"""A story that a real network of four goes through: payments, a seat that changes hands, absent votes, a double signer.

Whoever checks light clients or records vectors wants all of it in one chain:

1. payments;
2. a newcomer outbids one of the four and takes its seat; it runs no node, so its votes are absent from every commit,
   and where it should propose, the next round decides;
3. it takes its stake back, and the old set returns;
4. one validator's key signs two blocks at a height; the evidence enters a block, and the set shrinks to three;
5. payments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from dllm_protocol.actions import Stake, Unstake
from dllm_protocol.actions.validators import prove_key
from dllm_protocol.address import address_of as account_of
from dllm_protocol.block_json import signed_header_from_json
from dllm_protocol.commit import BlockID, PartSetHeader, VoteType
from dllm_protocol.evidence import DuplicateVoteEvidence, Vote
from dllm_protocol.evidence_json import evidence_to_json
from dllm_protocol.genesis import GenesisAccount
from dllm_protocol.signing import SeedSigner
from dllm_protocol.transaction import make_body, sign_transaction
from dllm_protocol.validator_set import address_of as validator_address_of
from tests.full_node.cometbft.network import Network, Node, until
from tests.full_node.processes import FEE_UDLLM, Sender

STAKER = Sender.numbered(40)
STAKER_ACCOUNT = GenesisAccount(STAKER.address, 3_000_000_000)
STAKE_UDLLM = 1_001_000_000
"""A little more than each of the four has, so that the three that stay keep more than two thirds."""
NEWCOMER = SeedSigner(sha256(b"a validator that runs no node").digest())
RECIPIENT = Sender.numbered(77).address
PAYMENTS = 3


@dataclass(frozen=True, slots=True)
class Story:
    """Heights at which something happened."""

    staked: int
    """The block that gave the newcomer its seat; it signs from two blocks later on."""
    unstaked: int
    """The block that took it back."""
    punished: int
    """The block with the evidence."""
    tip: int
    """The newest block once everything was told."""
    account: bytes
    """An account whose balance every payment changed."""


def tell(network: Network, payments: int = PAYMENTS) -> Story:
    """Goes through it; needs `STAKER_ACCOUNT` in genesis.

    Args:
        payments: how many, one after the other, at each of the four times.
    """
    payer, staker = network.sender(1), replace(STAKER, chain_id=network.chain_id, sequence=0)
    node = network.nodes[0]
    _pay(network, payer, payments)
    proof = prove_key(NEWCOMER, network.chain_id, staker.address)
    staked = _act(network, staker, Stake(NEWCOMER.public_key, STAKE_UDLLM, proof))
    _pay(network, payer, payments)
    network.wait_for_height(staked + 2)
    unstaked = _act(network, staker, Unstake(account_of(NEWCOMER.public_key), STAKE_UDLLM))
    _pay(network, payer, payments)
    network.wait_for_height(unstaked + 2)
    punished = _punish(node, network.nodes[-1].signer, network.chain_id)
    _pay(network, payer, payments)
    tip = _settled(node, punished + 2)
    network.wait_for_height(tip)
    return Story(staked, unstaked, punished, tip, payer.address)


def _pay(network: Network, payer: Sender, payments: int) -> None:
    for _ in range(payments):
        network.transfer(payer, RECIPIENT, 5)


def _act(network: Network, sender: Sender, action: Stake | Unstake) -> int:
    """The height at which an action took effect."""
    body = make_body(
        sender.chain_id, sender.address, sender.signer.public_key, sender.sequence, [action],
        fee_udllm=FEE_UDLLM,
    )  # fmt: skip
    sender.sequence += 1
    found = network.wait_for_tx(network.send(sign_transaction(sender.signer, body).encode()))
    assert found["tx_result"]["code"] == 0, found
    return int(found["height"])


def double_signed(node: Node, signer: SeedSigner, chain_id: str) -> DuplicateVoteEvidence:
    """Evidence that a validator's key signed two precommits at the height below the tip."""
    height = node.height - 1
    header = signed_header_from_json(node.rpc("commit", height=str(height))["signed_header"]).header
    members = node.rpc("validators", height=str(height), per_page="100")["validators"]
    address = validator_address_of(signer.public_key)
    index = [one["address"] for one in members].index(address.hex().upper())
    votes = []
    for name in (b"one block", b"another"):
        block = BlockID(sha256(name).digest(), PartSetHeader(1, sha256(name + b" parts").digest()))
        unsigned = Vote(VoteType.PRECOMMIT, height, 0, block, header.time, address, index, b"")
        votes.append(replace(unsigned, signature=signer.sign(unsigned.sign_bytes(chain_id))))
    votes.sort(key=lambda vote: vote.block_id.hash)
    total = sum(int(one["voting_power"]) for one in members)
    power = int(members[index]["voting_power"])
    return DuplicateVoteEvidence(votes[0], votes[1], total, power, header.time)


def _punish(node: Node, signer: SeedSigner, chain_id: str) -> int:
    """The height of the block that carries the evidence."""
    asked_from = node.height
    node.rpc("broadcast_evidence", evidence=evidence_to_json(double_signed(node, signer, chain_id)))

    def look() -> int | None:
        for height in range(asked_from, node.height + 1):
            if node.rpc("block", height=str(height))["block"]["evidence"]["evidence"]:
                return height
        return None

    return until("a block with the evidence", look)


def _settled(node: Node, least: int) -> int:
    """The tip once no block has come for a while: payments are proved, nothing waits."""
    seen: dict[str, Any] = {"height": 0}

    def look() -> bool:
        height, seen["height"] = seen["height"], node.height
        return bool(height == seen["height"] >= least)

    until("quiet", look)
    return int(seen["height"])
