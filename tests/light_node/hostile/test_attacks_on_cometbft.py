"""Attacks with real validator keys on a real network: its nodes take our evidence, commit it and punish the signers.

The primary shows a forged tip; everything else that it says is a real node's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dllm_protocol.block import Block, LightBlock, SignedHeader
from dllm_protocol.block_json import evidence_from_json
from dllm_protocol.commit import (
    BlockID,
    BlockIDFlag,
    Commit,
    CommitSig,
    PartSetHeader,
    VoteType,
    vote_sign_bytes,
)
from dllm_protocol.evidence import Evidence
from dllm_protocol.header import Header
from dllm_protocol.light_attack import AttackKind, LightClientAttackEvidence
from dllm_protocol.signing import SeedSigner
from dllm_protocol.validator_set import Validator, ValidatorSet
from light_node.client import LightClient, TrustOptions
from light_node.clock import SystemClock
from light_node.errors import LightClientAttack
from light_node.providers.events import EventKind
from light_node.source import RpcSource
from light_node.trust_store import TrustStore
from tests.full_node.cometbft.network import Network, Node, until
from tests.full_node.processes import Sender
from tests.light_node.signed_chain import signer

RECIPIENT = Sender.numbered(77).address


@pytest.fixture
def network(tmp_path: Path, cometbft: Path) -> Iterator[Network]:
    """Four validators and a chain of some blocks."""
    with Network.start(tmp_path, validators=4) as started:
        payer = started.sender(1)
        while started.nodes[0].height < 5:
            started.transfer(payer, RECIPIENT, 5)
        started.wait_for_height(5)
        yield started


def signed_by(header: Header, members: ValidatorSet, keys: Sequence[SeedSigner], round_: int) -> SignedHeader:
    """A header with a commit by these keys; other members are absent."""
    block_id = BlockID(header.hash(), PartSetHeader(1, header.hash()))
    known = {key.public_key: key for key in keys}
    entries = []
    for member in members.validators:
        key = known.get(member.public_key)
        if key is None:
            entries.append(CommitSig.absent())
            continue
        moment = header.time.add_ms(1000)
        message = vote_sign_bytes(
            header.chain_id, VoteType.PRECOMMIT, header.height, round_, block_id, moment
        )
        entries.append(CommitSig(BlockIDFlag.COMMIT, member.address, moment, key.sign(message)))
    return SignedHeader(header, Commit(header.height, round_, block_id, tuple(entries)))


class ForgedTip(RpcSource):
    """A node whose newest block is another one than its neighbours'."""

    def __init__(self, url: str, tip: SignedHeader, members: ValidatorSet) -> None:
        super().__init__(url)
        self._tip = tip
        self._members = members

    async def signed_header(self, height: int | None) -> SignedHeader:
        if height is None or height == self._tip.header.height:
            return self._tip
        return await super().signed_header(height)

    async def validators(self, height: int) -> ValidatorSet:
        return self._members if height >= self._tip.header.height else await super().validators(height)


async def true_block(node: Node, height: int) -> LightBlock:
    source = RpcSource(node.websocket, timeout_s=60)
    try:
        signed = await source.signed_header(height)
        return LightBlock(signed, await source.validators(height), await source.validators(height + 1))
    finally:
        await source.close()


Forgery = Callable[[LightBlock, Sequence[SeedSigner]], tuple[SignedHeader, ValidatorSet]]


def lunatic(block: LightBlock, keys: Sequence[SeedSigner]) -> tuple[SignedHeader, ValidatorSet]:
    """Two of four bring in a stranger with a set of their own and a state of their own."""
    guilty = [Validator(key.public_key, 10) for key in keys[:2]]
    stranger = signer("stranger")
    members = ValidatorSet.listed([*guilty, Validator(stranger.public_key, 10)])
    header = replace(
        block.header,
        app_hash=b"\x07" * 32,
        validators_hash=members.hash(),
        next_validators_hash=members.hash(),
        proposer_address=guilty[0].address,
    )
    return signed_by(header, members, [*keys[:2], stranger], 0), members


def equivocation(block: LightBlock, keys: Sequence[SeedSigner]) -> tuple[SignedHeader, ValidatorSet]:
    """Three of four sign another block with the same state in the same round."""
    header = replace(block.header, data_hash=b"\x07" * 32)
    round_ = block.signed_header.commit.round
    return signed_by(header, block.validators, keys[:3], round_), block.validators


async def attack(network: Network, folder: Path, forgery: Forgery) -> LightClientAttack:
    """A client with a forging primary and three honest witnesses."""
    # Below the newest block, whose commit stands in no block yet: by that nodes do not judge.
    height = network.nodes[0].height - 1
    network.wait_for_height(height + 1)
    root = await true_block(network.nodes[0], 2)
    tip, members = forgery(
        await true_block(network.nodes[1], height), [node.signer for node in network.nodes]
    )
    client = LightClient(
        network.chain_id,
        TrustOptions(2, root.hash()),
        TrustStore(folder / "light.db", network.chain_id),
        ForgedTip(network.nodes[0].websocket, tip, members),
        [RpcSource(node.websocket, timeout_s=60) for node in network.nodes[1:]],
        clock=SystemClock(),
    )
    try:
        with pytest.raises(LightClientAttack) as caught:
            await client.sync()
        kinds = [event.kind for event in client.events]
        assert EventKind.EVIDENCE_SENT in kinds, "\n".join(
            f"{one.kind} {one.message}" for one in client.events
        )
        latest = client.status().height
        assert latest == 2
    finally:
        await client.close()
    return caught.value


def committed(network: Network, evidence: LightClientAttackEvidence) -> tuple[Block, Evidence]:
    """The block that carries the evidence, once there is one."""
    payer = network.sender(2)
    seen = 0

    def look() -> tuple[int, Any] | None:
        nonlocal seen
        network.transfer(payer, RECIPIENT, 5, network.nodes[3])
        for height in range(seen + 1, network.nodes[3].height + 1):
            found = network.nodes[3].rpc("block", height=str(height))["block"]["evidence"]["evidence"]
            seen = height
            if found:
                return height, found
        return None

    height, found = until("a block with evidence", look)
    assert [evidence_from_json(one).hash() for one in found] == [evidence.hash()]

    async def read() -> Block:
        source = RpcSource(network.nodes[3].websocket, timeout_s=60)
        try:
            return (await source.block(height))[1]
        finally:
            await source.close()

    block = asyncio.run(read())
    return block, block.evidence[0]


@pytest.mark.parametrize("forgery", [lunatic, equivocation])
def test_our_evidence_is_committed_and_the_signers_lose_their_seats(
    network: Network, tmp_path: Path, forgery: Forgery
) -> None:
    error = asyncio.run(attack(network, tmp_path, forgery))
    kind = AttackKind.LUNATIC if forgery is lunatic else AttackKind.EQUIVOCATION
    assert error.kind is kind
    block, evidence = committed(network, error.against_primary)
    # Every hash in the header covers what we decoded: the bytes are those that the nodes agreed on.
    block.validate_basic()
    assert evidence == error.against_primary
    assert evidence.encode() == error.against_primary.encode()
    guilty = {one.address.hex().upper() for one in error.against_primary.byzantine_validators}
    assert guilty

    def seated() -> bool:
        height = network.nodes[3].height
        listed = network.nodes[3].rpc("validators", height=str(height + 1))["validators"]
        return not guilty & {one["address"] for one in listed}

    until("the guilty have lost their seats", seated)
