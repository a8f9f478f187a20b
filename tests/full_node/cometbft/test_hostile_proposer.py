"""A validator that proposes invalid blocks gets none of them decided, and the chain goes on without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dllm_protocol.consensus_params import BLOCK_MAX_BYTES, BLOCK_TXS_MAX
from dllm_protocol.validator_set import address_of
from full_node.home import NodeHome
from tests.full_node.cometbft.network import Network, Node, until
from tests.full_node.processes import Sender

HOSTILE = (sys.executable, "-c", "from tests.full_node.cometbft.hostile_node import run; run()")
RECIPIENT = Sender.numbered(78).address
REASONS = (
    "transaction 0 is none",
    "bytes of transactions, at most",
    "transaction 0 does not pay for its place",
    "transaction 1 does not pay for its place",
    f"more than {BLOCK_TXS_MAX} transactions",
)
"""One for each kind of invalid block."""


@pytest.fixture
def network(tmp_path: Path, cometbft: Path) -> Iterator[Network]:
    with Network.start(tmp_path, validators=4) as started:
        started.wait_for_height(1)
        yield started


def rejections(node: Node, proposer: bytes) -> list[str]:
    """What a node's log says of a proposer's blocks."""
    lines = (NodeHome(node.home).logs / "node.log").read_text().splitlines()
    # Of a block with far too many transactions nothing else is read, not even whose it is.
    said = (f"proposer={proposer.hex()}", "more than")
    return [line for line in lines if "rejected a proposal" in line and any(one in line for one in said)]


def test_invalid_blocks_are_rejected_by_everybody_and_never_decided(network: Network) -> None:
    *honest, hostile = network.nodes
    hostile.stop()
    hostile.program = HOSTILE
    hostile.restart()
    first = honest[0].height
    proposer = address_of(hostile.signer.public_key)
    payer = network.sender(1)
    block = honest[0].rpc("consensus_params")["consensus_params"]["block"]
    assert block["max_bytes"] == str(BLOCK_MAX_BYTES)

    def all_kinds_were_rejected() -> bool:
        network.transfer(payer, RECIPIENT, 1, honest[0])
        said = "\n".join(rejections(honest[0], proposer))
        return all(reason in said for reason in REASONS)

    until("every kind of invalid block", all_kinds_were_rejected)
    last = honest[0].height
    for node in honest[1:]:
        assert rejections(node, proposer), node.name
    for height in range(first + 1, last + 1):
        header = honest[0].rpc("block", height=str(height))["block"]["header"]
        assert header["proposer_address"] != proposer.hex().upper(), height
    network.require_agreement(int(network.transfer(payer, RECIPIENT, 1, honest[0])["height"]), honest)
