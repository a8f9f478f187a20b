"""A validator is killed at any moment, again and again, and always comes back to the root of the others."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.full_node.cometbft.network import Network, Node
from tests.full_node.processes import Sender

SEED = 20_260
KILLS = 50
LATEST_KILL_S = 2.2
"""From the start of the process: while it starts, replays, catches up, commits; some come before all of it."""
RECIPIENT = Sender.numbered(78).address


@pytest.fixture
def network(tmp_path: Path, cometbft: Path) -> Iterator[Network]:
    with Network.start(tmp_path, validators=4) as started:
        yield started


def run_into_a_kill(victim: Node, chance: random.Random) -> None:
    """Lets a node run for a random moment, then kills it whole, or its CometBFT alone."""
    time.sleep(chance.uniform(0.2, LATEST_KILL_S))
    if chance.random() < 0.3 and victim.engine_pids():
        victim.kill_engine()
        # It cannot go on without its engine, and says so.
        assert victim.close() != 0
    else:
        victim.kill()


def test_fifty_kills_leave_the_same_app_hash_as_on_the_others(network: Network) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    *others, victim = network.nodes
    payers = [network.sender(n) for n in (1, 2, 3)]
    heights = [int(network.transfer(payers[0], RECIPIENT, 1, others[0])["height"])]
    for _ in range(KILLS):
        if victim.process is None:
            victim.begin()
        for payer, node in zip(payers, others, strict=True):
            network.send(payer.transfer(RECIPIENT, chance.randrange(1, 1000)), node)
        run_into_a_kill(victim, chance)
    victim.restart()
    heights.append(int(network.transfer(payers[0], RECIPIENT, 1, others[0])["height"]))
    network.require_agreement(heights[-1])
    # It was there for many of the blocks in between, and agrees about each.
    for height in range(heights[0], heights[-1], max(1, (heights[-1] - heights[0]) // 10)):
        network.require_agreement(height)
