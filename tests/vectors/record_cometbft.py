"""Records what a real CometBFT network of ours says: cometbft_single.json and cometbft_four.json.

Run `python -m tests.vectors.record_cometbft` where the `cometbft` program is (`make cometbft`). Keys and times are new
in each recording, so there is nothing to compare with the last one; what must hold of any of them is in
tests/dllm_protocol/test_cometbft_recordings.py. Answers are kept as the RPC gave them, byte for byte in every value.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dllm_protocol import state_keys
from full_node.consensus.cometbft.binary import find_cometbft, require_our_line
from tests.full_node.cometbft.network import Network, Node
from tests.full_node.cometbft.story import STAKER_ACCOUNT, tell
from tests.full_node.processes import Sender

FOLDER = Path(__file__).parent
RUNS = ("single", "four")
PAYMENTS = 6


def file_of(run: str) -> Path:
    """Where a run is recorded."""
    return FOLDER / f"cometbft_{run}.json"


@contextmanager
def single_run() -> Iterator[tuple[Node, int]]:
    """One validator and a few payments; the node and its tip."""
    with tempfile.TemporaryDirectory() as folder, Network.start(Path(folder), validators=1) as network:
        payer = network.sender(1)
        for _ in range(PAYMENTS):
            last = int(network.transfer(payer, Sender.numbered(77).address, 5)["height"])
        network.wait_for_height(last + 1)
        yield network.nodes[0], last + 1


@contextmanager
def four_run() -> Iterator[tuple[Node, int]]:
    """Four validators through the story; a node and its tip."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Network.start(Path(folder), validators=4, accounts=[STAKER_ACCOUNT]) as network,
    ):
        yield network.nodes[0], tell(network, PAYMENTS).tip


def recorded(node: Node, tip: int) -> dict[str, Any]:
    """Everything of a chain up to a height that a verifier can judge."""
    heights = [_recorded_height(node, height) for height in range(1, tip + 1)]
    account = Sender.numbered(1).address
    asked = {"present": state_keys.account(account), "absent": state_keys.account(bytes(20))}
    proved = tip - 1
    return {
        "cometbft": require_our_line(find_cometbft()),
        "chain_id": heights[0]["block"]["header"]["chain_id"],
        "heights": heights,
        "tip_commit": node.rpc("commit", height=str(tip))["signed_header"]["commit"],
        "consensus_params": node.rpc("consensus_params", height=str(tip))["consensus_params"],
        "txs": [_recorded_tx(node, name) for name in _tx_hashes(node)],
        "queries": {
            name: node.rpc("abci_query", path="/store", data=key.hex(), height=str(proved), prove=True)
            for name, key in asked.items()
        },
    }


def _recorded_height(node: Node, height: int) -> dict[str, Any]:
    answer = node.rpc("block", height=str(height))
    results = node.rpc("block_results", height=str(height))
    return {
        "block_id": answer["block_id"],
        "block": answer["block"],
        "validators": node.rpc("validators", height=str(height), per_page="100")["validators"],
        "txs_results": results["txs_results"],
        "validator_updates": results["validator_updates"],
    }


def _tx_hashes(node: Node) -> list[str]:
    found = node.rpc("tx_search", query="tx.height > 0", per_page="3", order_by="desc")
    return [one["hash"] for one in found["txs"]]


def _recorded_tx(node: Node, name: str) -> Any:
    octets = base64.b64encode(bytes.fromhex(name)).decode()
    return node.rpc("tx", hash=octets, prove=True)


if __name__ == "__main__":
    for run, started in (("single", single_run), ("four", four_run)):
        with started() as (running, height):
            document = recorded(running, height)
        file_of(run).write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
