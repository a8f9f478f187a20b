"""Four validators on real CometBFT: transactions finalise, and faults do what they should."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dllm_protocol.json_shape import to_base64
from tests.full_node.cometbft.network import Network, RpcError, until
from tests.full_node.processes import Sender

RECIPIENT = Sender.numbered(77).address


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, cometbft: Path) -> Iterator[Network]:
    """One network for the file; its tests come in order and leave all four running."""
    with Network.start(tmp_path_factory.mktemp("four"), validators=4) as started:
        yield started


@pytest.fixture(scope="module")
def payer(network: Network) -> Sender:
    return network.sender(1)


def test_a_transfer_is_finalised_and_every_node_has_the_same_root(network: Network, payer: Sender) -> None:
    found = network.transfer(payer, RECIPIENT, 5)
    height = int(found["height"])
    network.require_agreement(height)
    assert network.nodes[0].rpc("genesis")["genesis"]["chain_id"] == network.chain_id


def test_with_one_of_four_killed_blocks_go_on_and_it_catches_up(network: Network, payer: Sender) -> None:
    *alive, killed = network.nodes
    killed.kill()
    heights = [int(network.transfer(payer, RECIPIENT, 5)["height"]) for _ in range(4)]
    network.require_agreement(heights[-1], alive)
    killed.restart()
    network.require_agreement(heights[-1])


def test_with_two_of_four_killed_nothing_is_decided_and_nobody_diverges(
    network: Network, payer: Sender
) -> None:
    first, second, *killed = network.nodes
    for node in killed:
        node.kill()
    before = max(first.height, second.height)
    name = network.send(payer.transfer(RECIPIENT, 5), first)
    # Three rounds' time: with a majority the block would be there many times over.
    time.sleep(6)
    assert max(first.height, second.height) <= before + 1  # one may have been decided before the second kill
    with pytest.raises(RpcError, match="not found"):
        first.rpc("tx", hash=to_base64(name))
    for node in killed:
        node.restart()
    height = int(network.wait_for_tx(name)["height"])
    network.require_agreement(height)
    until("the transfer on a node that was killed", lambda: killed[0].height > height)
