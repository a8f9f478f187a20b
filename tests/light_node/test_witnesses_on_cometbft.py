"""Four real CometBFT nodes as primary and witnesses: they agree, and one that is killed stops nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from light_node.client import LightClient, TrustOptions, TrustStatus
from light_node.clock import SystemClock
from light_node.providers.events import EventKind
from light_node.queries import ProvedReads
from light_node.source import RpcSource
from light_node.trust_store import TrustStore
from tests.full_node.cometbft.network import Network, beating
from tests.full_node.processes import Sender

RECIPIENT = Sender.numbered(77).address


@pytest.fixture
def network(tmp_path: Path, cometbft: Path) -> Iterator[Network]:
    """Four validators and a first transfer."""
    with Network.start(tmp_path, validators=4, params=beating) as started:
        started.transfer(started.sender(1), RECIPIENT, 5)
        started.wait_for_height(3)
        yield started


async def paid(client: LightClient, network: Network, sender: Sender, alive: int) -> int:
    """A transfer through one node is read with proof through the client; returns the balance."""
    found = network.transfer(sender, RECIPIENT, 5, network.nodes[alive])
    network.wait_for_height(int(found["height"]) + 1)
    await client.wait_for_header(int(found["height"]) + 1, 60)
    account = await ProvedReads(client).account(RECIPIENT)
    assert account is not None
    return account.balance_udllm


async def test_witnesses_agree_and_a_killed_primary_is_replaced(network: Network, tmp_path: Path) -> None:
    first = RpcSource(network.nodes[0].websocket, timeout_s=60)
    root = (await first.signed_header(1)).header
    others = [RpcSource(node.websocket, timeout_s=60) for node in network.nodes[1:]]
    client = LightClient(
        network.chain_id,
        TrustOptions(1, root.hash(), witnesses_expected=True),
        TrustStore(tmp_path / "light.db", network.chain_id),
        first,
        others,
        clock=SystemClock(),
    )
    try:
        sender = network.sender(2)
        assert await paid(client, network, sender, 0) == 10
        assert client.status().warning == ""
        network.nodes[0].kill()
        assert await paid(client, network, sender, 1) == 15
        assert client.primary is not first
        assert client.witnesses[-1] is first
        # What it computes after a restart must be what the others compute, proposer priorities included.
        network.nodes[0].restart()
        assert await paid(client, network, sender, 2) == 20
        fresh = client.status()
        assert (fresh.state, fresh.problem) == (TrustStatus.VERIFIED, "")
        assert EventKind.WITNESS_REMOVED not in [event.kind for event in client.events], client.events
        problems = {peer.name: peer.problem for peer in fresh.peers}
        assert problems[first.name] == "", problems
    finally:
        await client.close()
