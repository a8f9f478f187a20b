"""A validator is killed at any moment, again and again, and always comes back to the root of the others."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from full_node.home import NodeHome
from tests.full_node.cometbft.network import DEADLINE_S, Network, Node
from tests.full_node.processes import Sender

SEED = 20_260
KILLS = 50
IN_A_COMMIT = 0.7
"""Share of kills that aim at a commit; the others come at any time from the start on."""
EARLIEST_S, LATEST_S = 0.1, 1.6
AFTER_A_WRITE_S = 0.02
"""A commit takes a few milliseconds; this reaches into what CometBFT does after it."""
RECIPIENT = Sender.numbered(78).address


@pytest.fixture
def network(tmp_path: Path, cometbft: Path) -> Iterator[Network]:
    """One validator, whose blocks two others check and follow: every commit is the victim's own."""
    with Network.start(tmp_path, validators=1) as started:
        for name in ("follower-1", "follower-2"):
            started.add_node(name).restart()
        started.wait_for_height(1)
        yield started


def last_write_ns(node: Node) -> int:
    """When the node last wrote into its database; 0 before it ever did."""
    log = NodeHome(node.home).database.with_name("data.db-wal")
    return log.stat().st_mtime_ns if log.exists() else 0


def wait_for_write(node: Node, since_ns: int) -> bool:
    """Returns the moment when a commit has begun to write."""
    end_s = time.monotonic() + DEADLINE_S
    while last_write_ns(node) == since_ns:
        if time.monotonic() > end_s:
            return False
        time.sleep(0.001)
    return True


def run_into_a_kill(victim: Node, chance: random.Random) -> bool:
    """Starts a node and kills it whole, or its CometBFT alone; whether it was while it committed."""
    since_ns = last_write_ns(victim)
    victim.begin()
    aimed = chance.random() < IN_A_COMMIT
    if aimed:
        assert wait_for_write(victim, since_ns), "no block was committed"
        time.sleep(chance.choice((0.0, chance.uniform(0, AFTER_A_WRITE_S))))
    else:
        time.sleep(chance.uniform(EARLIEST_S, LATEST_S))
    if chance.random() < 0.3 and victim.engine_pids():
        victim.kill_engine()
        # It cannot go on without its engine, and says so.
        assert victim.close() != 0
    else:
        victim.kill()
    return aimed


def test_fifty_kills_leave_the_same_app_hash_as_on_the_others(network: Network) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    victim, *others = network.nodes
    payers = [network.sender(n) for n in (1, 2)]
    first = int(network.transfer(payers[0], RECIPIENT, 1, others[0])["height"])
    victim.stop()
    hits = 0
    for _ in range(KILLS):
        for payer, node in zip(payers, others, strict=True):
            network.send(payer.transfer(RECIPIENT, chance.randrange(1, 1000)), node)
        hits += run_into_a_kill(victim, chance)
    victim.restart()
    last = int(network.transfer(payers[0], RECIPIENT, 1, others[0])["height"])
    assert hits > KILLS // 2
    assert last - first > hits // 2
    for height in (*range(first, last, max(1, (last - first) // 10)), last):
        network.require_agreement(height)
