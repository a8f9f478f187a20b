"""A node that begins from another's snapshot, by CometBFT's state sync, has the same root as the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from full_node.consensus.cometbft.config import StateSyncPlan
from full_node.home import NodeHome
from full_node.settings import NodeSettings
from full_node.state.store import Store
from tests.full_node.cometbft.network import Network, until
from tests.full_node.processes import Sender

EVERY_BLOCKS = 4
RECIPIENT = Sender.numbered(78).address


@pytest.fixture
def network(tmp_path: Path, cometbft: Path) -> Iterator[Network]:
    with Network.start(tmp_path, validators=1, options=("--snapshot-every", str(EVERY_BLOCKS))) as started:
        started.wait_for_height(1)
        yield started


def test_a_node_from_a_snapshot_goes_on_with_the_same_root(network: Network) -> None:
    (giver,) = network.nodes
    payer = network.sender(1)
    while giver.height < 3 * EVERY_BLOCKS:
        network.transfer(payer, RECIPIENT, 7)
    shelf = NodeHome(giver.home).snapshots
    until("a snapshot", lambda: [one for one in shelf.iterdir() if one.name.isdecimal()])

    root = giver.rpc("commit", height="1")["signed_header"]["commit"]["block_id"]["hash"]
    plan = StateSyncPlan((giver.url, giver.url), 1, bytes.fromhex(root))
    taker = network.add_node("taker", settings=NodeSettings(state_sync=plan))
    taker.restart()
    until(
        "the snapshot's restoration",
        lambda: not taker.rpc("status")["sync_info"]["catching_up"] and taker.height >= 3 * EVERY_BLOCKS,
    )
    assert int(taker.rpc("status")["sync_info"]["earliest_block_height"]) > EVERY_BLOCKS
    height = int(network.transfer(payer, RECIPIENT, 7, giver)["height"])
    network.require_agreement(height)

    # And after a restart, which replays nothing from before the snapshot.
    assert taker.stop() == 0
    height = int(network.transfer(payer, RECIPIENT, 7, giver)["height"])
    taker.restart()
    network.require_agreement(height)
    network.end()
    with_store = Store(NodeHome(taker.home).database), Store(NodeHome(giver.home).database)
    common = min(store.version for store in with_store)
    assert len({store.root_at(common) for store in with_store}) == 1
    for store in with_store:
        store.close()
