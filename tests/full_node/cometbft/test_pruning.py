"""A node that keeps few blocks drops those that no evidence can be about any more, and only those."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dllm_protocol.params import Params
from tests.full_node.cometbft.network import Network, until

KEPT = 4


def short_lived(params: Params) -> Params:
    """A chain whose evidence expires within seconds."""
    return replace(
        params, heartbeat_ms=250, trusting_period_ms=1_000, evidence_age_ms=2_000, unbonding_ms=4_000
    )


def test_old_blocks_go_and_the_node_goes_on(tmp_path: Path, cometbft: Path) -> None:
    options = ("--keep-blocks", str(KEPT))
    with Network.start(tmp_path, validators=1, params=short_lived, options=options) as network:
        (node,) = network.nodes

        def earliest() -> int:
            return int(node.rpc("status")["sync_info"]["earliest_block_height"])

        until("blocks to go", lambda: earliest() > 1)
        first = earliest()
        age_blocks = int(node.rpc("consensus_params")["consensus_params"]["evidence"]["max_age_num_blocks"])
        assert node.height - first >= min(age_blocks, KEPT)
        network.transfer(network.sender(1), bytes(20), 1)
        assert node.stop() == 0
        node.restart()
        height = int(network.transfer(network.sender(2), bytes(20), 1)["height"])
        network.require_agreement(height)
        until("more to go", lambda: earliest() > first)
