"""An idle chain makes no blocks but the proof block after a change and the heartbeat, on both engines."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_protocol.block_json import header_from_json
from dllm_protocol.json_shape import to_base64
from dllm_protocol.transaction import transaction_hash
from full_node.home import NodeHome, read_genesis, write_genesis
from tests.full_node.cometbft.network import Network, RpcError, call, until
from tests.full_node.processes import NodeProcess, Sender, dllm_node, init_with

RECIPIENT = Sender.numbered(78).address
QUIET_S = 3.0
HEARTBEAT_MS = 2_000
BEATS = 3
CLOCK_STEP_MS = 5
"""Timers and timestamps come from two clocks."""


class Chain:
    """A node of either engine with one funded sender."""

    def __init__(self, url: str, sender: Sender) -> None:
        self.url, self.sender = url, sender

    @property
    def height(self) -> int:
        return int(call(self.url, "status")["sync_info"]["latest_block_height"])

    def transfer(self) -> int:
        """A transfer; the height of its block."""
        raw = self.sender.transfer(RECIPIENT, 1)
        name = to_base64(transaction_hash(raw))
        assert call(self.url, "broadcast_tx_sync", tx=to_base64(raw))["code"] == 0
        return int(until("the transfer", lambda: call(self.url, "tx", hash=name))["height"])


@contextlib.contextmanager
def cometbft_chain(folder: Path, heartbeat_ms: int) -> Iterator[Chain]:
    with Network.start(folder, 1, params=lambda old: replace(old, heartbeat_ms=heartbeat_ms)) as network:
        network.wait_for_height(1)
        yield Chain(network.nodes[0].url, network.sender(1))


@contextlib.contextmanager
def solo_chain(folder: Path, heartbeat_ms: int) -> Iterator[Chain]:
    sender = Sender.numbered(1)
    home = NodeHome(folder / "solo")
    init_with(home.folder, [sender])
    genesis = read_genesis(home.genesis)
    beating = replace(genesis, params=replace(genesis.params, heartbeat_ms=heartbeat_ms))
    home.genesis.unlink()
    write_genesis(home, beating)
    sender.chain_id = json.loads(dllm_node("init", "--home", home.folder, "--json").stdout)["data"][
        "chain_id"
    ]
    node = NodeProcess.start(home.folder)
    try:
        yield Chain(node.url, sender)
    finally:
        node.stop()


ENGINES: dict[str, Callable[[Path, int], contextlib.AbstractContextManager[Chain]]] = {
    "solo": solo_chain,
    "cometbft": cometbft_chain,
}


@pytest.fixture(params=list(ENGINES))
def engine(
    request: pytest.FixtureRequest,
) -> Callable[[Path, int], contextlib.AbstractContextManager[Chain]]:
    if request.param == "cometbft":
        request.getfixturevalue("cometbft")
    return ENGINES[request.param]


def test_after_a_change_comes_one_proof_block_and_then_nothing(
    tmp_path: Path, engine: Callable[[Path, int], contextlib.AbstractContextManager[Chain]]
) -> None:
    with engine(tmp_path, 3_600_000) as chain:
        for _ in range(2):
            changed_at = chain.transfer()
            until("the proof block", lambda above=changed_at: chain.height > above)
            time.sleep(QUIET_S)  # many times as long as a block takes
            assert chain.height == changed_at + 1
            with pytest.raises(RpcError):
                call(chain.url, "commit", height=str(changed_at + 2))


def test_an_idle_chain_beats_no_faster_than_its_heartbeat(
    tmp_path: Path, engine: Callable[[Path, int], contextlib.AbstractContextManager[Chain]]
) -> None:
    with engine(tmp_path, HEARTBEAT_MS) as chain:
        start = chain.transfer() + 1
        until("some heartbeats", lambda: chain.height >= start + BEATS + 2)
        headers = [
            header_from_json(call(chain.url, "commit", height=str(height))["signed_header"]["header"])
            for height in range(start, start + BEATS + 3)
        ]
        # A header's time is that of the votes one block before it; so the first gap is the proof block's.
        times = [header.time.to_ms() for header in headers][1:]
        # A beat that a busy machine delays does not delay those after it: two of them keep the pace of two.
        for first, middle, last in zip(times, times[1:], times[2:], strict=False):
            assert last + CLOCK_STEP_MS >= min(middle + HEARTBEAT_MS, first + 2 * HEARTBEAT_MS), times
        assert len({header.app_hash for header in headers}) == 1
